"""`netkit proxy-mode` on a whole cluster: all nodes change over under load, agents are killed meanwhile, and nothing
is lost or left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.space import Space
from support.traffic import Way, echo_server, traffic

from netkit.kernel import netns, rtnl_read
from netkit.kernel.iptables import installed_variants
from netkit.kernel.netns import Namespace

ECHO = 7070
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: ROLE}}
spec:
  nodeName: NODE
  containers: [{name: c, image: registry.k8s.io/pause:3.10}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {type: NodePort, selector: {app: server}, ports: [{port: 80, targetPort: 7070}]}
"""


def modes(cluster: Cluster) -> dict[str, str]:
    found = json.loads(cluster.netkit("proxy-mode", "-p", cluster.name, "-o", "json").stdout)
    return {node["node"]: node["mode"] for node in found["nodes"]}


def change(cluster: Cluster, *arguments: str) -> Any:
    return json.loads(cluster.netkit("proxy-mode", "-p", cluster.name, "-o", "json", *arguments).stdout)


def left_of(cluster: Cluster, node: str, mode: str) -> str:
    """What of a mode's rules stands on a node."""
    if mode == "nftables":
        return cluster.on(node, "nft", "list", "tables")
    saved = "".join(cluster.on(node, f"iptables-{variant}-save") for variant in installed_variants())
    return "\n".join(re.findall(r".*KUBE-.*", saved))


def opened(cluster: Cluster, name: str) -> Namespace:
    return netns.open_namespace(
        next(machine["namespace"] for machine in cluster.status()["machines"] if machine["name"] == name)
    )


def pod_space(cluster: Cluster, address: str) -> Namespace:
    """The namespace that has a pod's address."""
    for name in netns.names():
        if name.startswith(cluster.name):
            with suppress(Exception):
                ns = netns.open_namespace(name)
                if any(str(item.address.ip) == address for item in rtnl_read.addresses(ns)):
                    return ns
                ns.close()
    raise AssertionError(f"no namespace has {address}")


@pytest.fixture
def spaces(cluster: Cluster, lab: Space) -> Iterator[dict[str, tuple[Namespace, str]]]:
    """Namespace and address of two servers and a client pod, and of node and outside client; the Service is there."""
    pods = {"server-1": "node1", "server-2": "node2", "caller": "node1"}
    lab.apply(
        "".join(
            MANIFEST.replace("NAME", name).replace("ROLE", name.split("-")[0]).replace("NODE", node)
            for name, node in pods.items()
        )
        + SERVICE
    )
    found = {}
    for name in pods:
        address = lab.ready(name)["status"]["podIP"]
        found[name] = (pod_space(cluster, address), address)
    for machine in ("node1", "client"):
        found[machine] = (opened(cluster, machine), "")
    yield found
    for ns, _ in found.values():
        ns.close()


def ways(lab: Space, spaces: dict[str, tuple[Namespace, str]], node_address: str) -> list[Way]:
    spec = lab.get("service", "echo")["spec"]
    address, port = spec["clusterIP"], spec["ports"][0]["nodePort"]
    return [
        Way("pod to cluster IP", spaces["caller"][0], address, 80),
        Way("node to cluster IP", spaces["node1"][0], address, 80),
        Way("outside to NodePort", spaces["client"][0], node_address, port),
    ]


def kill_agent(cluster: Cluster, node: str) -> None:
    for process in cluster.status()["processes"]:
        if process["label"] == f"agent-{node}":
            with suppress(ProcessLookupError):
                os.kill(process["pid"], signal.SIGKILL)


def test_all_nodes_change_over_under_load(
    cluster: Cluster, lab: Space, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    assert set(modes(cluster).values()) == {"iptables"}
    node_address = next(m["address"] for m in cluster.status()["machines"] if m["name"] == "node1")
    eventually("the Service has both endpoints", lambda: len(addresses_of(lab)) == 2)

    async def under_load() -> None:
        async with (
            echo_server(*spaces["server-1"], ECHO),
            echo_server(*spaces["server-2"], ECHO),
            traffic(*ways(lab, spaces, node_address)) as told,
        ):
            await told.more()
            for before, *wish in (
                ("iptables", "nftables"),
                ("nftables", "nftables", "--layout", "compact"),
                ("nftables", "iptables"),
            ):
                result = await asyncio.to_thread(change, cluster, *wish)
                assert [(node["mode"], node["error"]) for node in result["nodes"]] == [(wish[0], "")] * 3
                if before != wish[0]:
                    for node in ("node1", "node2", "node3"):
                        left = await asyncio.to_thread(left_of, cluster, node, before)
                        assert "kube-proxy" not in left.lower()
                        assert "KUBE-" not in left
                await told.more()
        assert told.failures == []

    asyncio.run(under_load())


def test_a_killed_agent_ends_in_the_mode_that_was_chosen(
    cluster: Cluster, lab: Space, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    eventually("the Service has both endpoints", lambda: len(addresses_of(lab)) == 2)
    node_address = next(m["address"] for m in cluster.status()["machines"] if m["name"] == "node1")

    async def under_load() -> None:
        async with (
            echo_server(*spaces["server-1"], ECHO),
            echo_server(*spaces["server-2"], ECHO),
            traffic(*ways(lab, spaces, node_address)) as told,
        ):
            for mode in ("nftables", "iptables", "nftables", "iptables"):
                changing = asyncio.create_task(asyncio.to_thread(change, cluster, mode, "--node", "node1"))
                await asyncio.to_thread(kill_agent, cluster, "node1")
                result = await changing
                assert [(node["mode"], node["error"]) for node in result["nodes"]] == [(mode, "")]
                await told.more()
        assert told.failures == []

    asyncio.run(under_load())
    kill_agent(cluster, "node1")
    eventually("the agent says its mode", lambda: modes(cluster)["node1"] == "iptables")
    assert set(modes(cluster).values()) == {"iptables"}
    eventually(
        "nothing of nftables is left", lambda: "kube-proxy" not in left_of(cluster, "node1", "nftables")
    )


def test_what_cannot_be_is_refused(cluster: Cluster) -> None:
    for arguments, message in (
        (("ebpf",), "there is no proxy mode 'ebpf'"),
        (("nftables", "--node", "node9"), f"cluster {cluster.name} has no node node9"),
        (("iptables", "--layout", "compact"), "--layout compact is for mode nftables only"),
    ):
        result = cluster.netkit("proxy-mode", "-p", cluster.name, *arguments, check=False)
        assert result.returncode == 1
        assert message in result.stderr
    assert set(modes(cluster).values()) == {"iptables"}


def addresses_of(lab: Space) -> list[str]:
    return [
        endpoint["addresses"][0]
        for item in lab.items("endpointslices", "-l", "kubernetes.io/service-name=echo")
        for endpoint in item["endpoints"] or ()
        if endpoint["conditions"].get("ready")
    ]
