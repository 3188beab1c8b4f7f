"""Fabrics of several segments: everybody reaches everybody, and the machine that runs it changes as little as ever."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from itertools import permutations
from pathlib import Path

import pytest
from support.host import host_network
from support.kernel import machine_ns, own_host, ping
from support.routed import BASE, placed

from netkit.cluster.topology import Role
from netkit.cluster.topology_file import parse
from netkit.cluster.topology_layout import address_of, fabric, place
from netkit.fabric.build import Fabric, build
from netkit.kernel import netns, process, rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import HOST
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.teardown import teardown


def state(built: Fabric) -> dict[str, object]:
    return {
        name: (rtnl_read.links(m.ns), rtnl_read.addresses(m.ns), rtnl_read.routes(m.ns))
        for name, m in built.machines.items()
    }


@own_host
@pytest.mark.parametrize("name", ["two-zones", "two-racks", "mtu-bottleneck", "one-segment"])
def test_every_pair_of_machines_and_the_host_reach_each_other(tmp_path: Path, name: str) -> None:
    topology = placed(name)
    before = host_network()
    with build(fabric(topology, "kt"), Ledger(tmp_path, "me")) as built:
        addresses = {m.name: str(address_of(m)) for m in topology.machines}
        for one, other in permutations(built.machines, 2):
            assert ping(machine_ns(built, one), addresses[other]), f"{one} -> {other}"
        for machine in built.machines:
            assert ping(HOST, addresses[machine])
        after = host_network()
        added = [line for line in after.routes if line not in before.routes and "table local" not in line]
        assert all(
            " dev nk-kt " in f"{line} " for line in added if "inet6" not in line and ":" not in line
        ), added
        assert (after.rules, after.filters) == (before.rules, before.filters)
        assert {k: v for k, v in after.sysctls.items() if "/nk-kt/" not in k} == before.sysctls
        for machine in topology.machines:
            if machine.role is not Role.HOST:
                forwards = sysctl.read(machine_ns(built, machine.name), "net.ipv4.ip_forward")
                assert forwards == ("1" if machine.role is Role.ROUTER else "0")
    teardown(tmp_path)


@own_host
def test_what_stands_is_adopted_and_what_is_missing_is_repaired(tmp_path: Path) -> None:
    spec = fabric(placed("two-racks"), "kt")
    ledger = Ledger(tmp_path, "me")
    with build(spec, ledger) as built:
        first = state(built)
    with build(spec, ledger) as built:
        assert state(built) == first
        with Rtnl(built.switch) as switch:
            switch.apply(rtnl.link_delete("tor1.1"), rtnl.link_delete("br4"))
        with Rtnl(machine_ns(built, "spine2")) as links:
            index = links.link_index("eth0")
            assert index is not None
            links.apply(rtnl.route_delete(IPv4Network("172.18.1.0/24"), index))
        netns.delete("kt.tor2")
    with build(spec, ledger) as built:
        for one, other in permutations(("node1", "node4", "client", "spine1", "spine2"), 2):
            assert ping(machine_ns(built, one), str(built.machines[other].address.ip)), f"{one} -> {other}"
    teardown(tmp_path)


@own_host
def test_a_range_that_this_machine_uses_is_refused_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    process.run(["ip", "link", "add", "other", "type", "bridge"], check=True)
    process.run(["ip", "address", "add", "172.18.2.77/32", "dev", "other"], check=True)
    with pytest.raises(KernelError, match=r"172\.18\.2\.77/32"):
        build(fabric(placed("two-zones"), "kt"), Ledger(tmp_path, "me"))
    teardown(tmp_path)
    process.run(["ip", "link", "del", "other"], check=True)


@own_host
def test_the_router_of_a_bottleneck_says_what_fits(tmp_path: Path) -> None:
    topology = placed("mtu-bottleneck")
    with build(fabric(topology, "kt"), Ledger(tmp_path, "me")) as built:
        one, far = machine_ns(built, "node1"), str(address_of(topology.machine("node2")))
        argv = ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", far]
        assert b"Frag needed and DF set (mtu = 1400)" in process.run(argv, ns=one).stdout
        assert ping(one, far, size=1372)
    teardown(tmp_path)


@own_host
def test_a_node_may_have_several_interfaces(tmp_path: Path) -> None:
    document = {
        "segments": [{"name": "front"}, {"name": "back", "mtu": 9000}],
        "routers": [{"name": "r", "interfaces": ["front", "back"]}],
        "nodes": [
            {"name": "a", "interfaces": ["front", "back"]},
            {"name": "b", "interfaces": ["front", "back"]},
        ],
    }
    topology = place(parse(document), BASE)
    with build(fabric(topology, "kt"), Ledger(tmp_path, "me")) as built:
        a = machine_ns(built, "a")
        assert {name: link.mtu for name, link in rtnl_read.links(a).items() if name != "lo"} == {
            "eth0": 1500,
            "eth1": 9000,
        }
        assert ping(a, "172.18.2.12", size=8972)
        assert ping(a, "172.18.1.12")
    teardown(tmp_path)


@own_host
def test_routes_of_several_ways_are_read_as_ip_shows_them(tmp_path: Path) -> None:
    topology = placed("two-racks")
    with build(replace(fabric(topology, "kt")), Ledger(tmp_path, "me")) as built:
        tor1 = machine_ns(built, "tor1")
        ways = ["nexthop", "via", "172.18.3.2", "dev", "eth1", "nexthop", "via", "172.18.4.2", "dev", "eth2"]
        argv = ["ip", "route", "add", "10.244.9.0/24", "proto", "bird", "metric", "32", *ways]
        process.run(argv, ns=tor1, check=True)
        (route,) = [r for r in rtnl_read.routes(tor1) if str(r.target) == "10.244.9.0/24"]
        links = {link.index: link.name for link in rtnl_read.links(tor1).values()}
        assert [(str(via), links[index]) for via, index in route.hops] == [
            ("172.18.3.2", "eth1"),
            ("172.18.4.2", "eth2"),
        ]
        assert (route.protocol, route.metric, route.via, route.index) == (rtnl_read.BIRD, 32, None, 0)
    teardown(tmp_path)
