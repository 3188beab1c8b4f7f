"""Virtual servers, sets and rules of the IPVS mode, as upstream's `pkg/proxy/ipvs/proxier_test.go` expects them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from support.ipvs import World, key
from support.proxy import Object, endpoint, service, slice_of, state_of
from unit.proxy.upstream.world import balanced

from netkit.proxy.addresses import Family
from netkit.proxy.ipvs.sets import DEVICE, SETS
from netkit.proxy.settings import ProxySettings

NODE_IP, NODE_IPS = "100.101.102.103", ("100.101.102.103", "100.101.102.104", "100.101.102.105")
CLUSTER_IP, PORTAL = "10.20.30.41", "1.2.3.4"
FIRST, SECOND = "10.180.0.1", "10.180.1.1"
HERE, THERE = endpoint(FIRST, "here"), endpoint(SECOND, "there")

CLUSTER_RULES = ("src,dst KUBE-CLUSTER-IP -> KUBE-MARK-MASQ",)
NODE_RULES = ("-> KUBE-NODE-PORT", "KUBE-CLUSTER-IP -> ACCEPT")
HEALTH = {"filter KUBE-NODE-PORT": ("KUBE-HEALTH-CHECK-NODE-PORT -> ACCEPT",)}


def tcp(number: int = 80, node_port: int = 0, protocol: str = "TCP") -> list[Object]:
    return [
        {"name": "p80", "port": number, "protocol": protocol} | ({"nodePort": node_port} if node_port else {})
    ]


def node_port_service(protocol: str = "TCP", **spec: Any) -> Object:
    return service("ns1/svc1", CLUSTER_IP, tcp(80, 3001, protocol), type="NodePort", **spec)


def pods(*endpoints: Object, protocol: str = "TCP", name: str = "ns1/svc1", **more: Any) -> Object:
    return slice_of(name, *endpoints, ports=tcp(80, protocol=protocol), **more)


@dataclass(frozen=True)
class Case:
    """`servers`: all virtual servers and their real ones; `sets`: those that are named; `rules`: chains by name."""

    objects: Sequence[Object]
    servers: Mapping[str, set[str]] = field(default_factory=dict)
    sets: Mapping[str, set[str]] = field(default_factory=dict)
    rules: Mapping[str, Sequence[str]] = field(default_factory=dict)
    node: Sequence[str] = (NODE_IP,)
    only: Sequence[str] = ()
    family: Family = Family.IPV4


POD = pods(endpoint(FIRST, ""))
DUAL = slice_of("ns1/svc1", endpoint("1002:ab8::2:10", ""), ports=tcp(), address_type="IPv6", suffix="v6")
REAL = {f"{FIRST}:80"}
BOTH = {f"{FIRST}:80", f"{SECOND}:80"}

NODE_PORTS = {
    "node port, endpoints of two families": Case(
        [node_port_service(), POD, DUAL],
        {f"{CLUSTER_IP}:80/TCP": REAL, f"{NODE_IP}:3001/TCP": REAL},
        node=(NODE_IP, "2001:db8::1:1"),
    ),
    "node port, the IPv6 side": Case(
        [service("ns1/svc1", "2020::1", tcp(80, 3001), type="NodePort"), POD, DUAL],
        {
            "[2020::1]:80/TCP": {"[1002:ab8::2:10]:80"},
            "[2001:db8::1:1]:3001/TCP": {"[1002:ab8::2:10]:80"},
        },
        node=(NODE_IP, "2001:db8::1:1"),
        family=Family.IPV6,
    ),
    "UDP": Case(
        [node_port_service("UDP"), pods(endpoint(FIRST, ""), protocol="UDP")],
        {f"{CLUSTER_IP}:80/UDP": REAL, f"{NODE_IP}:3001/UDP": REAL},
        {"KUBE-NODE-PORT-UDP": {"3001"}},
        {
            "nat KUBE-NODE-PORT": ("KUBE-NODE-PORT-UDP -> KUBE-MARK-MASQ",),
            "nat KUBE-SERVICES": (*CLUSTER_RULES, *NODE_RULES),
            **HEALTH,
        },
        only=("0.0.0.0/0",),
    ),
    "no endpoints": Case(
        [node_port_service()], {f"{CLUSTER_IP}:80/TCP": set(), f"{NODE_IP}:3001/TCP": set()}
    ),
    "SCTP, three node addresses": Case(
        [node_port_service("SCTP"), pods(endpoint(FIRST, ""), protocol="SCTP")],
        {f"{CLUSTER_IP}:80/SCTP": REAL, **{f"{ip}:3001/SCTP": REAL for ip in NODE_IPS}},
        {"KUBE-NODE-PORT-SCTP-HASH": {f"{ip},sctp:3001" for ip in NODE_IPS}},
        {"nat KUBE-NODE-PORT": ("KUBE-NODE-PORT-SCTP-HASH -> KUBE-MARK-MASQ",), **HEALTH},
        node=(*NODE_IPS, "2001:db8::1:1", "2001:db8::1:2"),
    ),
    "SCTP, Local": Case(
        [node_port_service("SCTP", externalTrafficPolicy="Local"), pods(HERE, THERE, protocol="SCTP")],
        {f"{CLUSTER_IP}:80/SCTP": BOTH, f"{NODE_IP}:3001/SCTP": REAL},
        {
            "KUBE-NODE-PORT-SCTP-HASH": {f"{NODE_IP},sctp:3001"},
            "KUBE-NODE-PORT-LOCAL-SCTP-HASH": {f"{NODE_IP},sctp:3001"},
        },
        {
            "nat KUBE-NODE-PORT": (
                "KUBE-NODE-PORT-LOCAL-SCTP-HASH -> RETURN",
                "KUBE-NODE-PORT-SCTP-HASH -> KUBE-MARK-MASQ",
            ),
            "nat KUBE-SERVICES": (*CLUSTER_RULES, *NODE_RULES),
            **HEALTH,
        },
    ),
    "Local, addresses by range": Case(
        [node_port_service(externalTrafficPolicy="Local"), pods(HERE, THERE)],
        {f"{CLUSTER_IP}:80/TCP": BOTH, f"{NODE_IP}:3001/TCP": REAL},
        {"KUBE-NODE-PORT-TCP": {"3001"}, "KUBE-NODE-PORT-LOCAL-TCP": {"3001"}},
        {
            "nat KUBE-NODE-PORT": (
                "KUBE-NODE-PORT-LOCAL-TCP -> RETURN",
                "KUBE-NODE-PORT-TCP -> KUBE-MARK-MASQ",
            ),
            "nat KUBE-SERVICES": (*CLUSTER_RULES, *NODE_RULES),
            **HEALTH,
        },
        node=(NODE_IP, "2001:db8::1:1"),
        only=("100.101.102.0/24", "2001:db8::0/64"),
    ),
}

INSIDE = {f"{CLUSTER_IP}:80/TCP": REAL}
CLUSTER_SET = {"KUBE-CLUSTER-IP": {f"{CLUSTER_IP},tcp:80"}}


def health_checked(name: str, address: str, port: int, policy: str) -> Object:
    spec = {"externalTrafficPolicy": policy, "healthCheckNodePort": port}
    return balanced(f"ns1/{name}", address, tcp(), PORTAL, **spec)


OTHERS = {
    "cluster IP": Case(
        [service("ns1/svc1", CLUSTER_IP, tcp()), POD],
        INSIDE,
        CLUSTER_SET,
        {"nat KUBE-SERVICES": (*CLUSTER_RULES, *NODE_RULES)},
    ),
    "cluster IP, the IPv6 side": Case(
        [service("ns1/svc1", "1002:ab8::2:1", tcp()), POD, DUAL],
        {"[1002:ab8::2:1]:80/TCP": {"[1002:ab8::2:10]:80"}},
        {"KUBE-6-CLUSTER-IP": {"1002:ab8::2:1,tcp:80"}},
        family=Family.IPV6,
    ),
    "cluster IP without endpoints": Case(
        [service("ns1/svc1", CLUSTER_IP, tcp())], {f"{CLUSTER_IP}:80/TCP": set()}, CLUSTER_SET
    ),
    "headless and ExternalName": Case(
        [
            service("ns1/headless", "None", tcp()),
            service("ns1/named", "", tcp(), type="ExternalName", externalName="foo.bar.com"),
        ],
        {},
        {"KUBE-CLUSTER-IP": set()},
    ),
    "external IP without endpoints": Case(
        [service("ns1/svc1", CLUSTER_IP, tcp(), externalIPs=["50.60.70.81"])],
        {f"{CLUSTER_IP}:80/TCP": set(), "50.60.70.81:80/TCP": set()},
    ),
    "external IPs of both families": Case(
        [
            service(
                "ns1/svc1",
                CLUSTER_IP,
                tcp(),
                externalIPs=["50.60.70.81", "2012::51", "127.0.0.1"],
                type="NodePort",
            ),
            POD,
        ],
        {**INSIDE, "50.60.70.81:80/TCP": REAL, "127.0.0.1:80/TCP": REAL},
        {"KUBE-EXTERNAL-IP": {"50.60.70.81,tcp:80", "127.0.0.1,tcp:80"}},
    ),
    "external IP, Local": Case(
        [
            service(
                "ns1/svc1",
                CLUSTER_IP,
                tcp(),
                externalIPs=["50.60.70.81"],
                type="NodePort",
                externalTrafficPolicy="Local",
            ),
            pods(HERE, THERE),
        ],
        {f"{CLUSTER_IP}:80/TCP": BOTH, "50.60.70.81:80/TCP": REAL},
        {"KUBE-EXTERNAL-IP-LOCAL": {"50.60.70.81,tcp:80"}, "KUBE-EXTERNAL-IP": set()},
    ),
    "load balancer": Case(
        [balanced("ns1/svc1", CLUSTER_IP, tcp(80, 3001), PORTAL), POD],
        {**INSIDE, f"{PORTAL}:80/TCP": REAL, f"{NODE_IP}:3001/TCP": REAL},
        {"KUBE-LOAD-BALANCER": {f"{PORTAL},tcp:80"}, "KUBE-LOAD-BALANCER-LOCAL": set()},
        {
            "nat KUBE-SERVICES": (
                "KUBE-LOAD-BALANCER -> KUBE-LOAD-BALANCER",
                *CLUSTER_RULES,
                *NODE_RULES,
                "KUBE-LOAD-BALANCER -> ACCEPT",
            ),
            "nat KUBE-LOAD-BALANCER": ("-> KUBE-MARK-MASQ",),
            **HEALTH,
        },
    ),
    "load balancer, Local": Case(
        [
            balanced("ns1/svc1", CLUSTER_IP, tcp(80, 3001), PORTAL, externalTrafficPolicy="Local"),
            pods(HERE, THERE),
        ],
        {f"{CLUSTER_IP}:80/TCP": BOTH, f"{PORTAL}:80/TCP": REAL, f"{NODE_IP}:3001/TCP": REAL},
        {
            "KUBE-LOAD-BALANCER": {f"{PORTAL},tcp:80"},
            "KUBE-LOAD-BALANCER-LOCAL": {f"{PORTAL},tcp:80"},
            "KUBE-NODE-PORT-TCP": {"3001"},
            "KUBE-NODE-PORT-LOCAL-TCP": {"3001"},
        },
        {
            "nat KUBE-LOAD-BALANCER": ("KUBE-LOAD-BALANCER-LOCAL -> RETURN", "-> KUBE-MARK-MASQ"),
            "nat KUBE-NODE-PORT": (
                "KUBE-NODE-PORT-LOCAL-TCP -> RETURN",
                "KUBE-NODE-PORT-TCP -> KUBE-MARK-MASQ",
            ),
            "nat KUBE-SERVICES": (
                "KUBE-LOAD-BALANCER -> KUBE-LOAD-BALANCER",
                *CLUSTER_RULES,
                *NODE_RULES,
                "KUBE-LOAD-BALANCER -> ACCEPT",
            ),
        },
    ),
    "load balancer, source ranges": Case(
        [
            balanced("ns1/svc1", CLUSTER_IP, tcp(80, 3001), PORTAL, loadBalancerSourceRanges=[" 10.0.0.0/8"]),
            POD,
        ],
        {**INSIDE, f"{PORTAL}:80/TCP": REAL, f"{NODE_IP}:3001/TCP": REAL},
        {
            "KUBE-LOAD-BALANCER": {f"{PORTAL},tcp:80"},
            "KUBE-LOAD-BALANCER-FW": {f"{PORTAL},tcp:80"},
            "KUBE-LOAD-BALANCER-SOURCE-CIDR": {f"{PORTAL},tcp:80,10.0.0.0/8"},
        },
        {
            "nat KUBE-LOAD-BALANCER": ("-> KUBE-MARK-MASQ",),
            "filter KUBE-PROXY-FIREWALL": ("KUBE-LOAD-BALANCER-FW -> KUBE-SOURCE-RANGES-FIREWALL",),
            "filter KUBE-SOURCE-RANGES-FIREWALL": ("KUBE-LOAD-BALANCER-SOURCE-CIDR -> RETURN", "-> DROP"),
        },
    ),
    "health checks of Local Services only": Case(
        [
            health_checked("local-1", "10.20.30.41", 30000, "Local"),
            health_checked("local-2", "10.20.30.42", 30001, "Local"),
            health_checked("cluster", "10.20.30.43", 30002, "Cluster"),
        ],
        sets={"KUBE-HEALTH-CHECK-NODE-PORT": {"30000", "30001"}},
        rules=HEALTH,
    ),
    "every kind of address": Case(
        [
            service("ns1/inside", "10.20.30.40", tcp()),
            balanced("ns1/balanced", CLUSTER_IP, tcp(80, 3001), PORTAL),
            service("ns1/exposed", "10.20.30.42", tcp(80, 3002), type="NodePort", externalIPs=["1.2.3.5"]),
        ],
        rules={
            "nat KUBE-SERVICES": (
                "KUBE-LOAD-BALANCER -> KUBE-LOAD-BALANCER",
                *CLUSTER_RULES,
                "KUBE-EXTERNAL-IP -> KUBE-MARK-MASQ",
                "KUBE-EXTERNAL-IP ! is-in ! LOCAL -> ACCEPT",
                "KUBE-EXTERNAL-IP LOCAL -> ACCEPT",
                *NODE_RULES,
                "KUBE-LOAD-BALANCER -> ACCEPT",
            )
        },
    ),
}


async def world_of(case: Case) -> World:
    settings = ProxySettings(node_port_addresses=tuple(case.only))
    world = World(settings, case.family)
    world.node.devices["eth0"] = {ip_address(one) for one in case.node}
    await world.backend.sync(state_of(*case.objects, family=case.family), None)
    return world


def servers(world: World) -> dict[str, set[str]]:
    for reals in world.servers.reals.values():
        assert all(real.weight == 1 for real in reals.values())
    assert {server.scheduler for server in world.servers.known.values()} <= {"rr"}
    return {str(one): {str(target) for target in reals} for one, reals in world.servers.reals.items()}


def short(rule: str) -> str:
    """What matters of a rule: set, local addresses, target; how a set is asked where the source counts."""
    name, asked = ([*re.findall(r"--match-set (\S+) (\S+)", rule), ("", "")])[0]
    marks = {
        "src,dst": asked == "src,dst",
        name: True,
        "! is-in": "! --physdev-is-in" in rule,
        "! LOCAL": "! --src-type LOCAL" in rule,
        "LOCAL": bool(name) and "--dst-type LOCAL" in rule,
    }
    target = re.search(r"-j (\S+)$", rule)
    assert target
    return " ".join([*(mark for mark, there in marks.items() if mark and there), "->", target[1]])


@pytest.mark.parametrize("case", [*NODE_PORTS.values(), *OTHERS.values()], ids=[*NODE_PORTS, *OTHERS])
async def test_servers_sets_and_rules(case: Case) -> None:
    world = await world_of(case)
    if case.servers:
        assert servers(world) == case.servers
    for name, entries in case.sets.items():
        assert world.sets.contents[name] == entries, name
    for place, rules in case.rules.items():
        found = [short(rule) for rule in world.iptables.rules(*place.split())]
        assert [rule for rule in found if rule != "-> RETURN"] == list(rules), place


async def test_whose_addresses_are_the_nodes() -> None:
    devices = {
        DEVICE: ["1.2.3.4", "2000::"],
        "lo": ["127.0.0.1", "::1"],
        "encap7": ["10.20.30.31"],
        "ipvs0": ["3.4.5.6"],
    }
    case = Case([node_port_service()])
    world = World(ProxySettings())
    world.node.devices = {name: {ip_address(one) for one in found} for name, found in devices.items()}
    await world.backend.sync(state_of(*case.objects), None)
    assert set(servers(world)) == {f"{CLUSTER_IP}:80/TCP", "10.20.30.31:3001/TCP", "3.4.5.6:3001/TCP"}


async def test_affinity_is_persistence_of_every_server() -> None:
    spec = {"sessionAffinity": "ClientIP", "externalIPs": ["50.60.70.81"]}
    world = await world_of(Case([node_port_service(**spec)]))
    found = {str(one): server.persistence for one, server in world.servers.known.items()}
    wanted = (f"{CLUSTER_IP}:80/TCP", "50.60.70.81:80/TCP", f"{NODE_IP}:3001/TCP")
    assert found == dict.fromkeys(wanted, 10800)


async def test_the_names_of_sets_per_family() -> None:
    assert {kind.name_for(Family.IPV6) for kind in SETS} == {
        "KUBE-6-LOOP-BACK", "KUBE-6-CLUSTER-IP", "KUBE-6-EXTERNAL-IP", "KUBE-6-EXTERNAL-IP-LOCAL",
        "KUBE-6-LOAD-BALANCER", "KUBE-6-LOAD-BALANCER-FW", "KUBE-6-LOAD-BALANCER-LOCAL",
        "KUBE-6-LOAD-BALANCER-SOURCE-IP", "KUBE-6-LOAD-BALANCER-SOURCE-CID", "KUBE-6-NODE-PORT-TCP",
        "KUBE-6-NODE-PORT-LOCAL-TCP", "KUBE-6-NODE-PORT-UDP", "KUBE-6-NODE-PORT-LOCAL-UDP",
        "KUBE-6-NODE-PORT-SCTP-HASH", "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS", "KUBE-6-HEALTH-CHECK-NODE-PORT",
        "KUBE-6-IPVS-IPS",
    }  # fmt: skip


async def test_a_service_that_goes_takes_its_server_and_addresses_along() -> None:
    world = World(ProxySettings())
    state = state_of(service("ns1/svc1", "1.1.1.1", tcp()), service("ns1/svc2", "2.2.2.2", tcp()))
    await world.backend.sync(state, None)
    state.collect()
    state.delete_service("ns1", "svc1")
    await world.backend.sync(state, state.collect())
    assert set(world.servers.known) == {key("2.2.2.2:80")}
    assert world.node.devices[DEVICE] == {ip_address("2.2.2.2")}
