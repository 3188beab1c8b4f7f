"""Machines that come and go: from the wish for a node to Ready and to the first ping, and back; pods all at once.

sudo .venv/bin/python tests/bench/nodes.py [RUNS [PODS]]

The times of a node are taken in this process, as a program that uses the toolkit would see them, and of the command as
a person does. The floor is a machine and its cable without a cluster.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report, timed
from support.cluster import NETKIT, Cluster, eventually
from support.host import run

from netkit.cluster import node_api, node_changes
from netkit.cluster.profile import Profile
from netkit.fabric.build import build
from netkit.fabric.spec import FabricSpec, InterfaceSpec, MachineSpec, SegmentSpec
from netkit.kernel import netns
from netkit.kernel.ledger import Ledger
from netkit.kernel.teardown import teardown

assert node_api  # imported before the clock runs, as in every program that asks twice
NAME = "bench"
MANY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "registry.k8s.io/pause:3.10"}]
"""


def answers(space: str, address: str) -> bool:
    """Whether the address answers a ping within 50 ms."""
    argv = ("ip", "netns", "exec", space, "ping", "-n", "-q", "-c1", "-W0.05", address)
    return run(*argv, check=False).returncode == 0


def bare(place: Path) -> float:
    """Milliseconds to make a machine with its cable, until another one reaches it."""
    lan = IPv4Interface("172.31.0.1/24")

    def machine(number: int) -> MachineSpec:
        return MachineSpec(f"m{number}", (InterfaceSpec("lan", IPv4Interface((lan.network[number], 24))),))

    segments = (SegmentSpec("lan", lan.network),)
    spec = FabricSpec("bare", segments, (machine(11),), InterfaceSpec("lan", lan), "nk-bare")
    try:
        with Ledger(place, "fabric") as ledger:
            build(spec, ledger).close()
            begin = time.perf_counter()
            build(replace(spec, machines=(machine(11), machine(12))), ledger).close()
            while not answers("bare.m11", str(lan.network[12])):
                pass
            return (time.perf_counter() - begin) * 1000
    finally:
        teardown(place)


@contextmanager
def first_ping(cluster: Cluster, known: set[str]) -> Iterator[list[float]]:
    """The moment at which node1 first reached the pods' gateway of the node that joins meanwhile."""
    moments: list[float] = []

    def watch() -> None:
        while True:
            found = cluster.get("nodes")["items"]
            ranges = [n["spec"].get("podCIDR") for n in found if n["metadata"]["name"] not in known]
            if ranges and ranges[0]:
                gateway = str(IPv4Interface(ranges[0]).network[1])
                while not answers(f"{NAME}.node1", gateway):
                    pass
                moments.append(time.perf_counter())
                return

    thread = threading.Thread(target=watch)
    thread.start()
    yield moments
    thread.join()


def many_pods(cluster: Cluster, count: int) -> tuple[float, float]:
    """Pods per second from create to all Ready; seconds from their deletion until none of their namespaces is left."""
    begin = time.perf_counter()
    cluster.kubectl("create", "-f", "-", stdin=MANY.replace("COUNT", str(count)))
    wait = ("wait", f"--for=jsonpath={{.status.readyReplicas}}={count}", "deployment/many", "--timeout=300s")
    cluster.kubectl(*wait, timeout=310)
    up = count / (time.perf_counter() - begin)
    begin = time.perf_counter()
    cluster.kubectl("delete", "deployment", "many", "--wait=false")
    mine = f"{NAME}.default.many-"
    eventually("nothing left", lambda: not any(name.startswith(mine) for name in netns.names()), 300)
    return up, time.perf_counter() - begin


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pods = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    floor, ready, ping, command, gone, rate, down = [], [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(NAME, Path(directory))
        cluster.up("--nodes", "3")
        try:
            for number in range(runs):
                floor.append(bare(Path(directory) / f"bare{number}"))
                names = {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}
                with first_ping(cluster, names) as moments:
                    begin = time.perf_counter()
                    (added,) = node_changes.add(NAME, "", 1, lambda change: None)
                    ready.append(added.seconds * 1000)
                ping.append((moments[0] - begin) * 1000)
                removed = run(
                    NETKIT, "node", "remove", added.node, "-p", NAME, "-o", "json", env=cluster.environment
                )
                gone.append(json.loads(removed.stdout)[0]["seconds"] * 1000)
                added_by = ("node", "add", "again", "-p", NAME)
                command.append(timed(lambda argv=added_by: cluster.netkit(*argv)) * 1000)
                cluster.netkit("node", "remove", "--force", "again", "-p", NAME)
                if pods:
                    up, ended = many_pods(cluster, pods)
                    rate.append(up)
                    down.append(ended)
        finally:
            cluster.down()
    assert not Profile(NAME).exists
    least = sorted(floor)[len(floor) // 2]
    figures = [
        Figure("a machine and its cable, until it is reached", "ms", tuple(floor)),
        Figure("node add: wish to Ready", "ms", tuple(ready), least, "machine", "under 1000"),
        Figure("node add: wish to first ping of its pod range", "ms", tuple(ping), least, "machine"),
        Figure("node add: the command", "ms", tuple(command), least, "machine"),
        Figure("node remove: drained, nothing left", "ms", tuple(gone), least, "machine"),
    ]
    if pods:
        figures += [
            Figure(f"{pods} pods on three nodes, create to Ready", "pods/s", tuple(rate), aim="100"),
            Figure(f"{pods} pods, deletion to no namespace left", "s", tuple(down), aim="under 3"),
        ]
    report("nodes", figures)


if __name__ == "__main__":
    main()
