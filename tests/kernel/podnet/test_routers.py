"""Pod networks across routers: who reaches whom when routers know the pods' ranges, and when they do not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from itertools import permutations
from pathlib import Path

import pytest
from support.kernel import eventually, has, own_host, ping, source_seen
from support.packets import PROTOCOLS
from support.podnet import CLUSTER_CIDR
from support.routed import Routed, placed, routed

from netkit.kernel import rtnl, rtnl_read
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device
from netkit.podnet.modes import NetworkMode, Setting

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
needs_bird = pytest.mark.skipif(not has("bird"), reason="needs BIRD 2 (Debian: bird2)")
SMALL, MUCH = 60, 100_000


async def pods_of(net: Routed) -> dict[str, tuple[str, Namespace]]:
    """A pod on each node: its address and namespace, by the node's name."""
    found = {}
    for node in net.nodes:
        sandbox, ns = await net.pod(node.name, f"on-{node.name}")
        found[node.name] = (sandbox.addresses[0], ns)
    return found


def routes_of(ns: Namespace) -> dict[str, rtnl_read.Route]:
    return {str(r.target): r for r in rtnl_read.routes(ns) if r.target.subnet_of(CLUSTER_CIDR)}


async def all_pods_reach_each_other(net: Routed, mtu: int) -> None:
    """Each pair of pods, by every protocol, small and as large as may be; whom the receiver sees is the sender."""
    pods = await pods_of(net)
    for (sender, (source, ns)), (receiver, (target, other)) in permutations(pods.items(), 2):
        for name, protocol in PROTOCOLS.items():
            for size in (SMALL, MUCH if name == "tcp" else mtu):
                seen = await asyncio.to_thread(protocol, ns, other, target, size)
                assert seen == source, f"{sender} -> {receiver} {name} {size}"


@own_host
@pytest.mark.parametrize(("setting", "mtu"), [(VXLAN, 1450), (DIRECT, 1450), (NATIVE, 1500)], ids=str)
async def test_static_routes_join_two_zones(tmp_path: Path, setting: Setting, mtu: int) -> None:
    async with routed(tmp_path, placed("two-zones"), setting=setting) as net:
        await eventually(lambda: len(routes_of(net.ns("router"))) == 3)
        await all_pods_reach_each_other(net, mtu)
        near, far = routes_of(net.ns("node1"))["10.244.2.0/24"], routes_of(net.ns("node1"))["10.244.3.0/24"]
        if setting == NATIVE:
            assert (str(near.via), str(far.via)) == ("172.18.1.12", "172.18.1.1")
        else:
            assert str(far.via) == "10.244.3.0"
            assert str(near.via) == ("172.18.1.12" if setting == DIRECT else "10.244.2.0")


@own_host
async def test_native_fails_where_routers_do_not_know_the_pods(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("two-zones"), setting=NATIVE, routes="none") as net:
        pods = await pods_of(net)
        assert routes_of(net.ns("router")) == {}
        assert ping(pods["node1"][1], pods["node2"][0])
        assert not ping(pods["node1"][1], pods["node3"][0], patience=0.3)
        assert not ping(net.ns("client"), pods["node1"][0], patience=0.3)
        # The nodes themselves reach each other, and so a tunnel between them works.
        assert ping(net.ns("node1"), str(net.address("node3")))
        await net.use(VXLAN)
        await eventually(lambda: ping(pods["node1"][1], pods["node3"][0]))


@own_host
async def test_the_outside_reaches_pods_directly_when_routers_know_them(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("two-zones"), setting=NATIVE) as net:
        pods = await pods_of(net)
        client = net.ns("client")
        await eventually(lambda: len(routes_of(net.ns("router"))) == 3)
        for address, ns in pods.values():
            assert await asyncio.to_thread(source_seen, client, ns, address) == str(net.address("client"))


@own_host
async def test_routes_in_routers_follow_the_nodes_and_nothing_stale_stays(tmp_path: Path) -> None:
    topology = placed("two-zones")
    async with routed(tmp_path, topology, setting=NATIVE) as net:
        router = net.ns("router")
        await eventually(lambda: set(routes_of(router)) == {f"10.244.{n}.0/24" for n in (1, 2, 3)})
        with Rtnl(router) as links:
            index = links.link_index("eth0")
            assert index is not None
            via = net.address("node1")
            # Somebody else's route into the range, and one of ours that somebody takes away.
            links.apply(rtnl.route_replace(IPv4Network("10.244.77.0/24"), index, via=via))
            links.apply(rtnl.route_delete(IPv4Network("10.244.1.0/24"), index))
        await eventually(lambda: set(routes_of(router)) == {f"10.244.{n}.0/24" for n in (1, 2, 3)})
        net.change_node(
            "node3", lambda node: node["spec"].update(podCIDR="10.244.9.0/24", podCIDRs=["10.244.9.0/24"])
        )
        await eventually(lambda: set(routes_of(router)) == {f"10.244.{n}.0/24" for n in (1, 2, 9)})
        net.change_node("node3", lambda node: node["status"]["addresses"][0].update(address="172.18.2.99"))
        await eventually(lambda: str(routes_of(router)["10.244.9.0/24"].via) == "172.18.2.99")
        # A restart finds what an earlier process left.
        await net.stop("routers")
        with Rtnl(router) as links:
            links.apply(rtnl.route_replace(IPv4Network("10.244.78.0/24"), index, via=via))
        from netkit.cluster.topology_layout import router_ways
        from netkit.podnet.router_agent import RouterRoutes

        ways = [(router_ways(topology, topology.machine("router")), router)]
        net._start("routers", RouterRoutes(net.api.client(), ways, CLUSTER_CIDR).run())
        await eventually(lambda: set(routes_of(router)) == {f"10.244.{n}.0/24" for n in (1, 2, 9)})


@own_host
async def test_a_tunnel_fits_through_a_bottleneck_and_pods_are_told_of_it_natively(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("mtu-bottleneck"), setting=VXLAN) as net:
        await all_pods_reach_each_other(net, 1350)
        assert rtnl_read.links(net.ns("node1"))["flannel.1"].mtu == 1350
        await net.use(NATIVE)
        pods = await pods_of(net)
        (_, one), (target, other) = pods["node1"], pods["node2"]
        assert rtnl_read.links(one)["eth0"].mtu == 1500
        await eventually(lambda: len(routes_of(net.ns("gate-a"))) == 2)
        # Too large for the line: the first router says so, and TCP goes on with what fits.
        from netkit.kernel import process

        told = process.run(
            ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", target], ns=one
        ).stdout
        assert b"Frag needed and DF set (mtu = 1400)" in told
        assert await asyncio.to_thread(source_seen, one, other, target, 8080, MUCH) == pods["node1"][0]


@own_host
@needs_bird
async def test_bgp_joins_two_racks_and_finds_another_way_when_one_is_cut(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("two-racks"), setting=NATIVE, routes="bgp") as net:
        pods = await pods_of(net)
        await eventually(lambda: len(routes_of(net.ns("tor1"))) == 4)
        await eventually(lambda: all(len(routes_of(net.ns(node.name))) == 4 for node in net.nodes))
        assert {r.protocol for t, r in routes_of(net.ns("node1")).items() if t != "10.244.1.0/24"} == {
            rtnl_read.BIRD
        }
        await eventually(lambda: len(routes_of(net.ns("tor1"))["10.244.3.0/24"].hops) == 2)
        await all_pods_reach_each_other(net, 1500)
        client, (address, ns) = net.ns("client"), pods["node3"]
        assert await asyncio.to_thread(source_seen, client, ns, address) == str(net.address("client"))
        # The nodes of one rack go to each other, not over their router.
        assert str(routes_of(net.ns("node1"))["10.244.2.0/24"].via) == str(net.address("node2"))
        with Rtnl(net.fabric.switch) as switch:
            switch.apply(rtnl.link_down("spine2"), rtnl.link_down("spine2.1"))
        await eventually(lambda: not routes_of(net.ns("tor1"))["10.244.3.0/24"].hops)
        assert ping(pods["node1"][1], pods["node3"][0])
        with Rtnl(net.fabric.switch) as switch:
            switch.apply(rtnl.link_up("spine2"), rtnl.link_up("spine2.1"))
        await eventually(lambda: len(routes_of(net.ns("tor1"))["10.244.3.0/24"].hops) == 2)


@own_host
@needs_bird
async def test_a_node_whose_daemon_dies_is_forgotten_and_comes_back(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("two-zones"), setting=NATIVE, routes="bgp") as net:
        await eventually(lambda: len(routes_of(net.ns("router"))) == 3)
        await eventually(lambda: [s.established for s in net.sessions("router")] == [True] * 3)
        daemon = net.daemons["node3"]
        daemon.send_signal(9)
        daemon.wait()
        await eventually(lambda: "10.244.3.0/24" not in routes_of(net.ns("router")))
        await eventually(lambda: "10.244.3.0/24" not in routes_of(net.ns("node1")))
        net.start_daemon("node3")
        await eventually(lambda: "10.244.3.0/24" in routes_of(net.ns("node1")))
        net.change_node(
            "node3", lambda node: node["spec"].update(podCIDR="10.244.9.0/24", podCIDRs=["10.244.9.0/24"])
        )
        await eventually(
            lambda: {"10.244.9.0/24"} == set(routes_of(net.ns("router"))) - {"10.244.1.0/24", "10.244.2.0/24"}
        )


@own_host
@needs_bird
async def test_modes_change_over_where_routes_are_learned(tmp_path: Path) -> None:
    async with routed(tmp_path, placed("two-zones"), setting=VXLAN, routes="bgp") as net:
        pods = await pods_of(net)
        await eventually(lambda: len(routes_of(net.ns("router"))) == 3)
        for setting in (NATIVE, VXLAN, NATIVE):
            await net.use(setting)
            await eventually(lambda: ping(pods["node1"][1], pods["node3"][0]))
        one = net.ns("node1")
        # What the daemon has learned stands, whatever the agent removed of its own.
        assert {(t, r.protocol) for t, r in routes_of(one).items() if t != "10.244.1.0/24"} == {
            ("10.244.2.0/24", rtnl_read.BIRD),
            ("10.244.3.0/24", rtnl_read.BIRD),
        }
        found = device.read_paths(
            one, device.Devices(device.uplink(one, net.address("node1")).index), CLUSTER_CIDR
        )
        assert found.routes == {}
        assert replace(found, routes={}) == device.Paths()
        assert IPv4Interface("172.18.1.11/24").network == device.uplink(one, net.address("node1")).network
