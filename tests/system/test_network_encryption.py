"""The pod network of a whole cluster becomes encrypted under load, and is so no more; what carries it may die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.packets import Stream, udp
from support.space import Space
from support.traffic import Way, echo_server, traffic

from netkit.kernel import netns, rtnl_read
from netkit.kernel.netns import Namespace

pytestmark = pytest.mark.skipif(
    not os.path.exists("/usr/bin/wireguard-go"), reason="the package wireguard-go is not installed"
)

NODES = ("node1", "node2", "node3")
PODS = {"server": "node2", "caller": "node1", "third": "node3"}
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: registry.k8s.io/pause:3.10}]
---
"""
SHOWN = "wireguard (userspace: wireguard-go)"


@pytest.fixture
def spaces(cluster: Cluster, lab: Space) -> Iterator[dict[str, tuple[Namespace, str]]]:
    """Namespace and address of each pod."""
    lab.apply("".join(MANIFEST.replace("NAME", name).replace("NODE", node) for name, node in PODS.items()))
    found = {}
    for name in PODS:
        pod = lab.ready(name)
        space = f"{cluster.name}.{lab.name}.{name}.{pod['metadata']['uid'][:6]}"
        found[name] = (netns.open_namespace(space), pod["status"]["podIP"])
    yield found
    for ns, _ in found.values():
        ns.close()


def network(cluster: Cluster, *arguments: str) -> Any:
    result = cluster.netkit("network", *arguments, "-p", cluster.name, "-o", "json", check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def same(cluster: Cluster) -> bool:
    result = cluster.netkit("network", "check", "-p", cluster.name, "-o", "json", check=False)
    return bool(json.loads(result.stdout)["same"])


def programs(cluster: Cluster) -> dict[str, int]:
    """The processes that carry tunnels, by their labels."""
    return {
        process["label"]: process["pid"]
        for process in cluster.status()["processes"]
        if process["label"].startswith("wireguard-")
    }


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_cluster_becomes_encrypted_under_load_and_is_so_no_more(
    cluster: Cluster, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    caller, server, third = (spaces[name] for name in ("caller", "server", "third"))

    async def under_load() -> None:
        async with (
            echo_server(*server, 7070),
            traffic(
                Way("node1 to node2", caller[0], server[1], 7070),
                Way("node3 to node2", third[0], server[1], 7070),
                resent=True,
            ) as told,
        ):
            stream = Stream(caller[0], server[0], server[1])
            for mode, mtu, carried in (("wireguard", 1420, 3), ("vxlan", 1450, 0)):
                before = stream.received
                result = await asyncio.to_thread(network, cluster, "mode", mode)
                assert [(n["mode"], n["mtu"], n["error"]) for n in result["nodes"]] == [(mode, mtu, "")] * 3
                assert rtnl_read.links(caller[0])["eth0"].mtu == mtu
                assert (await asyncio.to_thread(network, cluster, "check"))["same"] is True
                assert len(await asyncio.to_thread(programs, cluster)) == carried
                for node in NODES:
                    links = await asyncio.to_thread(cluster.on, node, "ip", "link")
                    assert ("flannel-wg" in links, "flannel.1" in links) == (carried > 0, carried == 0)
                await told.more()
                assert stream.received > before
            assert told.failures == []
            assert await asyncio.to_thread(stream.end) > 0

    asyncio.run(under_load())


def test_an_encrypted_cluster_says_so_and_heals(
    cluster: Cluster, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    caller, server = spaces["caller"], spaces["server"]
    text = cluster.netkit("network", "mode", "wireguard", "-p", cluster.name).stdout
    assert f"vxlan -> {SHOWN}, pods' MTU 1420" in text
    assert SHOWN in cluster.netkit("network", "mode", "-p", cluster.name).stdout
    (view,) = network(cluster, "show", "--node", "node1")
    assert view["mode"] == SHOWN
    peers = {entry["purpose"] for entry in view["entries"] if entry["kind"] == "peer"}
    assert peers == {"pods of node2, and itself", "pods of node3, and itself"}
    notes = cluster.get("node", "node1")["metadata"]["annotations"]
    assert notes["flannel.alpha.coreos.com/backend-type"] == "wireguard"

    before = programs(cluster)
    kill(before["wireguard-node2"])
    eventually(
        "another program carries it",
        lambda: (
            programs(cluster).get("wireguard-node2", before["wireguard-node2"]) != before["wireguard-node2"]
        ),
        10,
    )
    eventually("all is well", lambda: same(cluster), 20)
    assert udp(caller[0], server[0], server[1], 1420) == caller[1]

    # An agent that dies takes nothing with it.
    before = programs(cluster)
    (agent,) = [p["pid"] for p in cluster.status()["processes"] if p["label"] == "agent-node1"]
    kill(agent)
    eventually("all is well", lambda: same(cluster), 30)
    assert programs(cluster) == before
    assert udp(caller[0], server[0], server[1], 1420) == caller[1]
    # The cluster is taken down so: nothing of it may be left.
