"""The pod network of a whole cluster: begun natively, changed over under load, shown, checked, broken and repaired."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.packets import Stream
from support.space import Space
from support.traffic import Way, echo_server, traffic

from netkit.kernel import netns, rtnl_read
from netkit.kernel.netns import Namespace

NODES = ("node1", "node2", "node3")
PODS = {"server": "node2", "caller": "node1", "neighbour": "node1"}
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
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 7070}]}
"""


@pytest.fixture(scope="module")
def cluster(untouched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("home")
    (home / "config.yaml").write_text("network: {mode: native}\n")
    made = Cluster(f"t{uuid.uuid4().hex[:6]}", home)
    made.up("--config", str(home / "config.yaml"))
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def spaces(cluster: Cluster, lab: Space) -> Iterator[dict[str, tuple[Namespace, str]]]:
    """Namespace and address of each pod."""
    lab.apply(
        "".join(MANIFEST.replace("NAME", name).replace("NODE", node) for name, node in PODS.items()) + SERVICE
    )
    found = {}
    for name in PODS:
        pod = lab.ready(name)
        space = f"{cluster.name}.{lab.name}.{name}.{pod['metadata']['uid'][:6]}"
        found[name] = (netns.open_namespace(space), pod["status"]["podIP"])
    yield found
    for ns, _ in found.values():
        ns.close()


def network(cluster: Cluster, *arguments: str, code: int = 0) -> Any:
    result = cluster.netkit("network", *arguments, "-p", cluster.name, "-o", "json", check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return json.loads(result.stdout)


def modes(cluster: Cluster) -> set[tuple[str, int]]:
    return {(node["mode"], node["mtu"]) for node in network(cluster, "mode")["nodes"]}


def kill_agent(cluster: Cluster, node: str) -> None:
    for process in cluster.status()["processes"]:
        if process["label"] == f"agent-{node}":
            with suppress(ProcessLookupError):
                os.kill(process["pid"], signal.SIGKILL)


def test_a_native_cluster_routes_pods_as_they_are(
    cluster: Cluster, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    assert modes(cluster) == {("native", 1500)}
    for node in NODES:
        assert "flannel.1" not in cluster.on(node, "ip", "link")
    routes = cluster.on("node1", "ip", "route")
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in cluster.get("nodes")["items"]}
    addresses = {m["name"]: m["address"] for m in cluster.status()["machines"]}
    for node in ("node2", "node3"):
        assert f"{ranges[node]} via {addresses[node]} dev eth0" in routes
    assert rtnl_read.links(spaces["caller"][0])["eth0"].mtu == 1500
    notes = cluster.get("node", "node1")["metadata"]["annotations"]
    assert notes["flannel.alpha.coreos.com/backend-type"] == "host-gw"
    assert network(cluster, "check")["same"] is True


def test_changing_over_under_load(
    cluster: Cluster, lab: Space, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    address = lab.get("service", "echo")["spec"]["clusterIP"]
    eventually("the Service has its endpoint", lambda: len(endpoints(lab)) == 1)
    started = {pod["metadata"]["name"]: pod["status"]["startTime"] for pod in lab.items("pods")}
    caller, server, near = spaces["caller"][0], spaces["server"], spaces["neighbour"]

    async def under_load() -> None:
        async with (
            echo_server(*server, 7070),
            echo_server(*near, 7070),
            traffic(
                Way("pod to pod", caller, server[1], 7070),
                Way("pod to cluster IP", caller, address, 80),
                Way("pod to pod, same node", caller, near[1], 7070),
            ) as told,
        ):
            stream = Stream(caller, server[0], server[1])
            await told.more()
            for wish, mode, mtu in (
                (("vxlan",), "vxlan", 1450),
                (("native",), "native", 1500),
                (("vxlan", "--direct-routing"), "vxlan", 1450),
                (("native",), "native", 1500),
            ):
                before = stream.received
                result = await asyncio.to_thread(network, cluster, "mode", *wish)
                assert [(node["mode"], node["error"]) for node in result["nodes"]] == [(mode, "")] * 3
                assert await asyncio.to_thread(modes, cluster) == {(mode, mtu)}
                assert rtnl_read.links(caller)["eth0"].mtu == mtu
                assert (await asyncio.to_thread(network, cluster, "check"))["same"] is True
                await told.more()
                assert stream.received > before
            assert told.failures == []
            assert await asyncio.to_thread(stream.end) > 0

    asyncio.run(under_load())
    # Nobody was restarted for it.
    assert {pod["metadata"]["name"]: pod["status"]["startTime"] for pod in lab.items("pods")} == started
    assert all(
        status["restartCount"] == 0
        for pod in lab.items("pods")
        for status in pod["status"]["containerStatuses"]
    )


def test_a_killed_agent_comes_up_in_the_mode_that_was_chosen(cluster: Cluster) -> None:
    for mode, mtu in (("vxlan", 1450), ("native", 1500)):
        network(cluster, "mode", mode)
        kill_agent(cluster, "node2")
        eventually("the agent is back", lambda: network_same(cluster))
        assert modes(cluster) == {(mode, mtu)}
        assert ("flannel.1" in cluster.on("node2", "ip", "link")) is (mode == "vxlan")


def test_show_says_what_each_entry_is_for(
    cluster: Cluster, lab: Space, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    (view,) = network(cluster, "show", "--node", "node1")
    assert (view["node"], view["mode"], view["pod_mtu"], view["underlay_mtu"]) == (
        "node1",
        "native",
        1500,
        1500,
    )
    purposes = {(entry["kind"], entry["key"]): entry["purpose"] for entry in view["entries"]}
    assert all(purposes.values())
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in cluster.get("nodes")["items"]}
    assert purposes["route", ranges["node2"]] == "pods of node2"
    assert purposes["pod", spaces["caller"][0].name] == f"pod {lab.name}/caller"
    text = cluster.netkit("network", "show", "-p", cluster.name).stdout
    for node in NODES:
        assert f"{node}, native, bridge: " in text


def test_what_is_broken_is_named_and_repaired(
    cluster: Cluster, spaces: dict[str, tuple[Namespace, str]]
) -> None:
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in cluster.get("nodes")["items"]}
    # A rule is looked after every minute only: there is time to see it named.
    rule = "FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT"
    cluster.on("node3", "sh", "-c", f"iptables -D {rule} || iptables-legacy -D {rule}")
    found = network(cluster, "check", code=1)
    wrong = [
        (node["node"], entry["kind"], entry["problem"])
        for node in found["nodes"]
        for entry in node["entries"]
    ]
    assert wrong == [("node3", "rule", "missing")]
    text = cluster.netkit("network", "check", "-p", cluster.name, check=False).stdout
    assert "!!  node3  missing: rule filter -A FLANNEL-FWD -s 10.244.0.0/16" in text
    # A route is put back at once.
    cluster.on("node1", "ip", "route", "del", ranges["node2"])
    eventually("the route is back", lambda: ranges["node2"] in cluster.on("node1", "ip", "route"))
    kill_agent(cluster, "node3")
    eventually("all is well", lambda: network_same(cluster))


def test_what_cannot_be_is_refused(cluster: Cluster) -> None:
    for arguments, message in (
        (("mode", "geneve"), "there is no network mode 'geneve'"),
        (("mode", "native", "--direct-routing"), "--direct-routing is for mode vxlan only"),
        (("show", "--node", "node9"), f"cluster {cluster.name} has no node node9"),
        (("check", "--node", "node9"), f"cluster {cluster.name} has no node node9"),
    ):
        result = cluster.netkit("network", *arguments, "-p", cluster.name, check=False)
        assert result.returncode == 1
        assert message in result.stderr
    assert modes(cluster) == {("native", 1500)}


def network_same(cluster: Cluster) -> bool:
    result = cluster.netkit("network", "check", "-p", cluster.name, "-o", "json", check=False)
    return bool(json.loads(result.stdout)["same"])


def endpoints(lab: Space) -> list[str]:
    return [
        endpoint["addresses"][0]
        for item in lab.items("endpointslices", "-l", "kubernetes.io/service-name=echo")
        for endpoint in item["endpoints"] or ()
        if endpoint["conditions"].get("ready")
    ]
