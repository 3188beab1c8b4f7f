"""The modes of the pod network: who reaches whom in each, and changing over while packets flow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations
from pathlib import Path

import pytest
from support.kernel import eventually, own_host
from support.packets import PROTOCOLS, Stream
from support.podnet import CLUSTER_CIDR, Net, pod_network
from support.traffic import Way, echo_server, traffic

from controlplane.resources.catalog import NODE
from netkit.kernel import rtnl, rtnl_read, wireguard
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device
from netkit.podnet.agent import RouteNowhere
from netkit.podnet.attach import Attach
from netkit.podnet.modes import NetworkMode, Setting, backend
from netkit.podnet.native import Native
from netkit.podnet.paths import Devices, Paths
from netkit.podnet.peer import peers
from netkit.podnet.tunnels import PLACE

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
WIREGUARD = Setting(NetworkMode.WIREGUARD)
OPENED = Setting(NetworkMode.VXLAN, both=NetworkMode.WIREGUARD)
CLOSING = Setting(NetworkMode.WIREGUARD, both=NetworkMode.VXLAN)
BETWEEN = Setting(NetworkMode.NATIVE, both=NetworkMode.VXLAN)
SEGMENT = IPv4Network("172.18.0.0/16")
SMALL, MUCH = 60, 300_000
MTU = {NATIVE: 1500, WIREGUARD: 1420, OPENED: 1420}


@dataclass(frozen=True)
class Place:
    """Somebody who sends and receives. `node` is where a pod runs, or the node itself."""

    name: str
    kind: str
    node: str
    ns: Namespace
    address: str


def source_of(sender: Place, receiver: Place, setting: Setting) -> str:
    """Whom the receiver shall see. Written down apart from the code, from the table in podnet's README."""
    node_addresses = {"node1": "172.18.0.2", "node2": "172.18.0.3"}
    number = sender.node[-1:]
    match sender.kind, receiver.kind:
        case "pod", "outside":
            return node_addresses[sender.node]
        case "node", "pod" if sender.node == receiver.node:
            return f"10.244.{number}.1"
        case "node", "pod" if setting in (VXLAN, WIREGUARD, OPENED):
            return f"10.244.{number}.0"
        case _:
            return sender.address


async def places(net: Net) -> list[Place]:
    found = []
    for node, name in (("node1", "a"), ("node1", "b"), ("node2", "c")):
        sandbox, ns = await net.pod(node, name)
        found.append(Place(name, "pod", node, ns, sandbox.addresses[0]))
    found += [
        Place(name, "node", name, net.ns(name), str(net.fabric.machines[name].address.ip))
        for name in ("node1", "node2")
    ]
    client = net.fabric.machines["client"]
    # As a router outside would: each range through its node.
    with Rtnl(client.ns) as links:
        index = links.link_index("eth0")
        assert index is not None
        for number in (1, 2):
            via = IPv4Address(f"172.18.0.{number + 1}")
            links.apply(rtnl.route_replace(IPv4Network(f"10.244.{number}.0/24"), index, via=via))
    return [*found, Place("client", "outside", "", client.ns, str(client.address.ip))]


def ways_of(net: Net, node: str) -> Paths:
    """What the node's kernel holds."""
    links = rtnl_read.links(net.ns(node))
    tunnel = links["flannel.1"].index if "flannel.1" in links else 0
    found = device.read_paths(net.ns(node), Devices(links["eth0"].index, tunnel), CLUSTER_CIDR)
    carried = wireguard.read(net.ns(node), "flannel-wg", net.place / "state" / node / PLACE)
    return replace(found, keys=carried[1].peers) if carried is not None else found


def wanted_of(net: Net, node: str, setting: Setting) -> Paths:
    return backend(setting).wanted(peers(net.api.all(NODE), node), SEGMENT).paths


def mtus(net: Net, node: str, pods: list[Place]) -> set[int]:
    """The MTU of everything on a pod's way out of its node."""
    links = rtnl_read.links(net.ns(node))
    found = {link.mtu for name, link in links.items() if name.startswith(("cni0", "veth", "flannel"))}
    return found | {rtnl_read.links(pod.ns)["eth0"].mtu for pod in pods if pod.node == node}


@own_host
@pytest.mark.parametrize("attach", Attach)
@pytest.mark.parametrize("setting", [VXLAN, DIRECT, BETWEEN, NATIVE, WIREGUARD, OPENED], ids=str)
async def test_everybody_reaches_everybody_and_is_seen_as_who_he_is(
    tmp_path: Path, setting: Setting, attach: Attach
) -> None:
    async with pod_network(tmp_path, setting=setting, attach=attach) as net:
        everybody = await places(net)
        pod_mtu = MTU.get(setting, 1450)
        assert net.agents["node1"].network.mtu == pod_mtu
        seen, expected = {}, {}
        for sender, receiver in permutations(everybody, 2):
            full = pod_mtu if "pod" in (sender.kind, receiver.kind) else 1500
            for protocol, send in PROTOCOLS.items():
                for size in (SMALL, MUCH if protocol == "tcp" else full):
                    case = (sender.name, receiver.name, protocol, size)
                    expected[case] = source_of(sender, receiver, setting)
                    try:
                        seen[case] = await asyncio.to_thread(
                            send, sender.ns, receiver.ns, receiver.address, size
                        )
                    except (OSError, TimeoutError) as error:
                        seen[case] = repr(error)
        assert seen == expected
        assert len(seen) == 30 * 3 * 2


@own_host
async def test_a_native_node_has_a_route_per_node_and_no_tunnel(tmp_path: Path) -> None:
    async with pod_network(tmp_path, setting=NATIVE) as net:
        sandbox, ns = await net.pod("node1", "a")
        assert sandbox.mtu == rtnl_read.links(ns)["eth0"].mtu == 1500
        assert "flannel.1" not in rtnl_read.links(net.ns("node1"))
        routes = {str(r.target): (str(r.via), r.onlink) for r in rtnl_read.routes(net.ns("node1")) if r.via}
        assert routes["10.244.2.0/24"] == ("172.18.0.3", False)
        node = net.api.get(NODE, "node1")
        assert node is not None
        assert node["metadata"]["annotations"] == Native().annotations(IPv4Address("172.18.0.2"))
        (condition,) = node["status"]["conditions"]
        assert (condition["type"], condition["status"]) == ("NetworkUnavailable", "False")


@own_host
@pytest.mark.parametrize("attach", Attach)
async def test_changing_over_under_load_loses_nothing(tmp_path: Path, attach: Attach) -> None:
    async with pod_network(tmp_path, nodes=2, setting=VXLAN, attach=attach) as net:
        everybody = await places(net)
        pods = [place for place in everybody if place.kind == "pod"]
        a, b, c, client = (everybody[number] for number in (0, 1, 2, 5))
        async with (
            echo_server(c.ns, c.address, 7070),
            echo_server(b.ns, b.address, 7070),
            traffic(
                Way("pod to pod, other node", a.ns, c.address, 7070),
                Way("pod to pod, same node", a.ns, b.address, 7070),
                Way("outside to pod", client.ns, c.address, 7070),
            ) as told,
        ):
            streams = [Stream(a.ns, c.ns, c.address), Stream(c.ns, b.ns, b.address)]
            for setting in (NATIVE, VXLAN, NATIVE, DIRECT, VXLAN):
                before = [stream.received for stream in streams]
                await net.use(setting)
                for node in ("node1", "node2"):
                    assert ways_of(net, node) == wanted_of(net, node, setting)
                    assert ("flannel.1" in rtnl_read.links(net.ns(node))) is (setting != NATIVE)
                    assert mtus(net, node, pods) == {MTU.get(setting, 1450)}
                await told.more()
                await eventually(
                    lambda before=before: all(s.received > b for s, b in zip(streams, before, strict=True))
                )
            assert told.failures == []
            assert all([await asyncio.to_thread(stream.end) > MUCH for stream in streams])


@own_host
async def test_nodes_of_different_modes_reach_each_other(tmp_path: Path) -> None:
    """Every moment of a change: one node after the other takes each step."""
    async with pod_network(tmp_path, setting=VXLAN) as net:
        everybody = await places(net)
        a, c = everybody[0], everybody[2]
        for step in (BETWEEN, NATIVE, BETWEEN, VXLAN, OPENED, CLOSING, WIREGUARD, CLOSING, OPENED, VXLAN):
            if step == OPENED:
                # The first step waits for the keys of all.
                await asyncio.gather(*(net.agents[node].use(step) for node in ("node1", "node2")))
            for node in ("node1", "node2"):
                await net.agents[node].use(step)
                size = min(net.agents[name].network.mtu for name in net.agents)
                for sender, receiver in ((a, c), (c, a)):
                    for send in PROTOCOLS.values():
                        seen = await asyncio.to_thread(send, sender.ns, receiver.ns, receiver.address, size)
                        assert seen == sender.address


@own_host
async def test_a_mode_that_cannot_reach_a_node_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    async with pod_network(tmp_path) as net:
        await net.register("far", 9)
        far = backend(VXLAN).annotations(IPv4Address("192.0.2.9"))
        net.change_node("far", lambda n: n["metadata"].update(annotations=far))
        await eventually(lambda: len(ways_of(net, "node1").routes) == 2)
        before = ways_of(net, "node1")
        with pytest.raises(RouteNowhere, match=r"10\.244\.9\.0/24 of node far: its address 192\.0\.2\.9"):
            await net.agents["node1"].use(NATIVE)
        assert net.agents["node1"].setting == VXLAN
        assert ways_of(net, "node1") == before
        # A node that begins natively goes on without the one that it cannot reach.
        await net.stop("node1")
        net.setting = NATIVE
        await net.start("node1")
        assert list(ways_of(net, "node1").routes) == [IPv4Network("10.244.2.0/24")]


@own_host
@pytest.mark.parametrize("killed_in", [BETWEEN, NATIVE, VXLAN, OPENED, WIREGUARD], ids=str)
async def test_an_agent_that_starts_in_another_mode_removes_what_the_first_left(
    tmp_path: Path, killed_in: Setting
) -> None:
    async with pod_network(tmp_path, setting=killed_in) as net:
        pods = (await places(net))[:3]
        for setting in (NATIVE, VXLAN, WIREGUARD):
            for node in ("node1", "node2"):
                await net.stop(node)
            net.setting = setting
            for node in ("node1", "node2"):
                await net.start(node)
            for node in ("node1", "node2"):
                await eventually(lambda n=node, s=setting: ways_of(net, n) == wanted_of(net, n, s))
                assert mtus(net, node, pods) == {MTU.get(setting, 1450)}
                links = rtnl_read.links(net.ns(node))
                assert ("flannel.1" in links, "flannel-wg" in links) == (
                    setting == VXLAN,
                    setting == WIREGUARD,
                )


@own_host
async def test_a_change_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    async with pod_network(tmp_path) as net:
        pods = (await places(net))[:3]
        agent = net.agents["node1"]
        net.api.down = True
        with pytest.raises(Exception, match=r"(?i)down|refused|connection"):
            await agent.use(BETWEEN)
        assert agent.setting == VXLAN
        net.api.down = False
        await eventually(lambda: ways_of(net, "node1") == wanted_of(net, "node1", VXLAN))
        await eventually(lambda: mtus(net, "node1", pods) == {1450})
        await net.use(NATIVE)
        assert "flannel.1" not in rtnl_read.links(net.ns("node1"))
