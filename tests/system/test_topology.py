"""Clusters whose network comes from a topology: zones and racks behind routers, routes by BGP, links that are slow."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.host import left_overs

from netkit.kernel import bird
from netkit.kernel.errors import Unsupported

POD = """
apiVersion: v1
kind: Pod
metadata: {name: on-NODE}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx}]
---
"""
SLOW = """
network: {mode: native, routes: none}
topology:
  segments: [{name: left}, {name: right}]
  zones: [{name: left, region: lab}, {name: right, region: lab}]
  routers: [{name: router, interfaces: [left, right]}]
  nodes:
    - {name: node1, zone: left, interfaces: [left], labels: {disk: ssd}}
    - {name: node2, zone: left, interfaces: [left]}
    - {name: node3, zone: right, interfaces: [{segment: right, link: {delay: 15ms}}]}
"""


def has_bird() -> bool:
    try:
        bird.program()
    except Unsupported:
        return False
    return True


@contextmanager
def cluster_of(home: Path, config: str) -> Iterator[Cluster]:
    (home / "config.yaml").write_text(config)
    made = Cluster(f"t{uuid.uuid4().hex[:6]}", home)
    made.up("--config", str(home / "config.yaml"))
    try:
        yield made
    finally:
        made.down()


def told(cluster: Cluster, *arguments: str, code: int = 0) -> Any:
    result = cluster.netkit(*arguments, "-p", cluster.name, "-o", "json", check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return json.loads(result.stdout)


def pods_on(cluster: Cluster, *nodes: str) -> dict[str, str]:
    """A web server on each node: its address by the node's name."""
    manifest = "".join(POD.replace("NODE", node) for node in nodes)
    eventually(
        "the default ServiceAccount", lambda: cluster.kubectl("get", "serviceaccount", "default", check=False)
    )
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    return {node: cluster.get("pod", f"on-{node}")["status"]["podIP"] for node in nodes}


def from_pod(cluster: Cluster, node: str, address: str, seconds: float = 3.0) -> str:
    return cluster.kubectl(
        "exec", f"on-{node}", "--", "curl", "-s", "-m", str(seconds), f"http://{address}/", check=False
    )


def callers(cluster: Cluster, node: str) -> list[str]:
    """Whom a web server has seen, in order."""
    return re.findall(r"^(\d+\.\d+\.\d+\.\d+) - - ", cluster.kubectl("logs", f"on-{node}"), re.M)


def test_native_fails_across_a_router_that_knows_no_pods_and_links_are_slow(
    untouched: None, tmp_path: Path
) -> None:
    with cluster_of(tmp_path, SLOW) as cluster:
        nodes = {n["metadata"]["name"]: n["metadata"]["labels"] for n in cluster.get("nodes")["items"]}
        assert nodes["node1"]["disk"] == "ssd"
        assert [nodes[n]["topology.kubernetes.io/zone"] for n in sorted(nodes)] == ["left", "left", "right"]
        assert nodes["node3"]["topology.kubernetes.io/region"] == "lab"
        pods = pods_on(cluster, "node1", "node2", "node3")
        assert "nginx" in from_pod(cluster, "node1", pods["node2"])
        assert "nginx" not in from_pod(cluster, "node1", pods["node3"], 1.0)
        assert callers(cluster, "node3") == []
        # What nobody was told to do is not missing.
        assert told(cluster, "network", "check")["same"] is True
        (router,) = told(cluster, "network", "routes")
        assert [route["purpose"] for route in router["routes"]] == ["segment left", "segment right"]
        assert {node["mode"] for node in told(cluster, "network", "mode", "vxlan")["nodes"]} == {"vxlan"}
        assert "nginx" in from_pod(cluster, "node1", pods["node3"])
        assert callers(cluster, "node3") == [pods["node1"]]
        times = re.findall(r"time=([\d.]+)", cluster.on("node1", "ping", "-n", "-c", "3", pods["node3"]))
        assert min(map(float, times)) >= 30
        drawn = cluster.netkit("topology", "draw", "-p", cluster.name).stdout
        assert "delay 15ms" in drawn
        # The process that holds packets back is a part as any other.
        kill(cluster, "links")
        eventually("it is back", lambda: slow(cluster, pods["node3"]))


def slow(cluster: Cluster, address: str) -> bool:
    times = re.findall(
        r"time=([\d.]+)", cluster.on("node1", "ping", "-n", "-c", "1", "-W", "1", address, check=False)
    )
    return bool(times) and float(times[0]) >= 30


def kill(cluster: Cluster, label: str) -> None:
    (pid,) = [each["pid"] for each in cluster.status()["processes"] if each["label"] == label]
    os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not has_bird(), reason="needs BIRD 2 (Debian: bird2)")
def test_racks_with_bgp_lose_a_spine_and_a_daemon(untouched: None, tmp_path: Path) -> None:
    with cluster_of(tmp_path, "network: {mode: native, routes: bgp}\ntopology: two-racks\n") as cluster:
        pods = pods_on(cluster, "node1", "node3")
        eventually("all is as it should be", lambda: same(cluster))
        assert "nginx" in from_pod(cluster, "node1", pods["node3"])
        assert callers(cluster, "node3") == [pods["node1"]]
        client = next(m["address"] for m in cluster.status()["machines"] if m["name"] == "client")
        assert "nginx" in cluster.curl("client", f"http://{pods['node3']}/")
        assert callers(cluster, "node3")[-1] == client
        assert hops(cluster, "tor1", pods["node3"]) == 2
        assert {
            s["state"] for s in told(cluster, "network", "routes", "--router", "tor1")[0]["sessions"]
        } == {"Established"}
        cluster.netkit("segment", "cut", "spine2", "-p", cluster.name)
        eventually("one way is left", lambda: hops(cluster, "tor1", pods["node3"]) == 1)
        assert "nginx" in from_pod(cluster, "node1", pods["node3"])
        assert "bgp session" in {
            e["kind"] for n in told(cluster, "network", "check", code=1)["nodes"] for e in n["entries"]
        }
        cluster.netkit("segment", "heal", "spine2", "-p", cluster.name)
        eventually("both ways are back", lambda: hops(cluster, "tor1", pods["node3"]) == 2)
        kill(cluster, "bgp-node3")
        eventually("the daemon is back", lambda: same(cluster))
        assert "nginx" in from_pod(cluster, "node1", pods["node3"])
        text = cluster.netkit("network", "routes", "-p", cluster.name, "--router", "tor1").stdout
        assert "pods of node3" in text
        assert "spine1" in text


def same(cluster: Cluster) -> bool:
    result = cluster.netkit("network", "check", "-p", cluster.name, "-o", "json", check=False)
    return bool(json.loads(result.stdout)["same"])


def hops(cluster: Cluster, router: str, pod: str) -> int:
    """How many ways the router has to the pod's range."""
    target = pod.rpartition(".")[0] + ".0/24"
    (view,) = told(cluster, "network", "routes", "--router", router)
    return next((len(route["hops"]) for route in view["routes"] if route["target"] == target), 0)


def test_what_cannot_be_is_refused_and_nothing_is_built(untouched: None, tmp_path: Path) -> None:
    cluster = Cluster(f"t{uuid.uuid4().hex[:6]}", tmp_path)
    before = left_overs()
    file = tmp_path / "bad.yaml"
    for text, message in (
        (
            "segments: [{name: a}, {name: b}]\nnodes: [{name: n, interfaces: [a]}]\n",
            "segments[1]: no router joins",
        ),
        (
            "segments: [{name: a, subnet: 127.0.0.0/24}]\nnodes: [{name: n}]\n",
            "segments[0].subnet: 127.0.0.0/24",
        ),
        (
            "segments: [{name: a}]\nnodes: [{name: n}, {name: n}]\n",
            "nodes[1].name: n is the name of nodes[0]",
        ),
    ):
        file.write_text(text)
        result = cluster.netkit("up", "-p", cluster.name, "--topology", str(file), check=False)
        assert result.returncode == 1
        assert message in result.stderr
        assert left_overs() == before
