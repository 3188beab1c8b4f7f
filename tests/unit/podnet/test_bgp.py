"""BGP: who speaks with whom, what daemons are told, and what they say; routes of routers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from netkit.cluster import routing
from netkit.cluster.topology_file import find
from netkit.cluster.topology_layout import place
from netkit.kernel.rtnl_read import BIRD, Route
from netkit.podnet import router_entries, router_routes
from netkit.podnet.bgp import configuration, node_asn, sessions
from netkit.podnet.entries import Kind, differences
from netkit.podnet.router_entries import RouterFacts
from netkit.podnet.router_routes import Router

PODS = IPv4Network("10.244.0.0/16")
RACKS = place(find("two-racks"), IPv4Network("172.18.0.0/16"))
SEGMENTS = routing.segments(RACKS)

SHOWN = """\
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     10:37:56.194

to_spine1 BGP        ---        up     10:47:35.515  Established
  BGP state:          Established
    Neighbor address: 172.18.3.2
    Neighbor AS:      64701
    Local AS:         64601
  Channel ipv4
    State:          UP
    Routes:         7 imported, 9 exported, 5 preferred
to_spine2 BGP        ---        start  10:47:35.585  Active        Socket: Connection refused
  BGP state:          Active
    Neighbor address: 172.18.4.2
    Neighbor AS:      64702
  Channel ipv4
    State:          DOWN
to_nodes_rack1 BGP        ---        start  10:47:34.552  Passive
  BGP state:          Passive
    Neighbor range:   172.18.1.0/24
"""


def node(name: str, cidr: str, address: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name}, "spec": {"podCIDR": cidr},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }  # fmt: skip


NODES = [node("near", "10.244.1.0/24", "172.18.1.11"), node("far", "10.244.2.0/24", "172.18.2.11")]
ROUTER = Router(
    "r", (IPv4Network("172.18.1.0/24"),), {IPv4Network("172.18.2.0/24"): IPv4Address("172.18.1.254")}
)


def test_routers_speak_with_routers_and_with_whoever_calls_from_a_segment_with_nodes() -> None:
    found = routing.speakers(RACKS)
    tor1 = found["tor1"]
    assert [(n.name, str(n.address), n.asn) for n in tor1.neighbours] == [
        ("spine1-tor1-spine1", "172.18.3.2", 64701),
        ("spine2-tor1-spine2", "172.18.4.2", 64702),
        ("nodes-rack1", "172.18.1.0/24", 0),
    ]
    assert [n.name for n in found["spine1"].neighbours] == ["tor1-tor1-spine1", "tor2-tor2-spine1"]
    node1 = found["node1"]
    assert (node1.asn, [str(n.address) for n in node1.neighbours]) == (4200000000 + 0x12010B, ["172.18.1.1"])
    assert len({speaker.asn for speaker in found.values()}) == len(found)
    assert node_asn(IPv4Address("172.18.1.11")) != node_asn(IPv4Address("172.19.1.11"))


def test_a_router_passes_pods_and_segments_on_and_nothing_else() -> None:
    text = configuration(routing.speakers(RACKS)["tor1"], PODS, SEGMENTS)
    assert "router id 172.18.1.1;" in text
    assert 'protocol direct segments { ipv4; interface "eth*"; }' in text
    assert "import none; export where source = RTS_BGP; }; merge paths on;" in text
    known = "10.244.0.0/16+, " + ", ".join(map(str, SEGMENTS))
    assert (
        "protocol bgp to_spine1_tor1_spine1 from neighbour { local 172.18.3.1 as 64601; neighbor 172.18.3.2 as 64701;"
        f" ipv4 {{ import where net ~ [ {known} ]; export where net ~ [ {known} ]; }}; }}"
    ) in text
    assert 'neighbor range 172.18.1.0/24 external; dynamic name "to_nodes_rack1_";' in text
    assert "protocol static" not in text


def test_a_node_announces_its_pods_only_and_takes_no_segments() -> None:
    speaker = routing.speakers(RACKS)["node1"]
    text = configuration(speaker, PODS, SEGMENTS, IPv4Network("10.244.7.0/24"))
    assert "protocol static pods { ipv4; route 10.244.7.0/24 blackhole; }" in text
    assert "import where net ~ [ 10.244.0.0/16+ ]; export where source = RTS_STATIC;" in text
    assert "protocol direct" not in text
    assert "blackhole" not in configuration(speaker, PODS, SEGMENTS)


def test_what_a_daemon_says_of_its_sessions() -> None:
    one, other = sessions(SHOWN.splitlines())
    assert (one.name, str(one.neighbour), one.asn, one.state) == (
        "to_spine1",
        "172.18.3.2",
        64701,
        "Established",
    )
    assert (one.imported, one.exported, one.since, one.established) == (7, 9, "10:47:35.515", True)
    assert (other.state, other.asn, other.imported, other.established) == ("Active", 64702, 0, False)
    assert sessions([]) == []


def test_routes_of_a_router_and_their_changes() -> None:
    wanted = router_routes.ways(ROUTER, [*NODES, node("lost", "10.244.3.0/24", "192.0.2.1")])
    assert {str(k): str(v) for k, v in wanted.items()} == {
        "10.244.1.0/24": "172.18.1.11",
        "10.244.2.0/24": "172.18.1.254",
    }
    links = {IPv4Network("172.18.1.0/24"): 5}
    stale = {IPv4Network("10.244.9.0/24"): IPv4Address("172.18.1.11")}
    told = [str(m) for m in router_routes.changes(stale, wanted, links)]
    assert told == [
        "ip route delete 10.244.9.0/24 dev 0",
        "ip route replace 10.244.1.0/24 via 172.18.1.11 dev 5",
        "ip route replace 10.244.2.0/24 via 172.18.1.254 dev 5",
    ]
    assert router_routes.changes(wanted, wanted, links) == []


def test_what_differs_in_a_router_is_named() -> None:
    facts = RouterFacts(
        ROUTER, PODS, {IPv4Network("172.18.1.0/24"): "a", IPv4Network("172.18.2.0/24"): "b"}, NODES,
    )  # fmt: skip
    wanted = router_entries.expected(facts)
    assert [(e.key, e.value, e.purpose) for e in wanted] == [
        ("172.18.2.0/24", "via 172.18.1.254", "segment b"),
        ("10.244.1.0/24", "via 172.18.1.11", "pods of near"),
        ("10.244.2.0/24", "via 172.18.1.254", "pods of far"),
    ]
    via = IPv4Address("172.18.1.254")
    routes = [
        Route(IPv4Network("172.18.1.0/24"), 2, None, 2, False),
        Route(IPv4Network("172.18.2.0/24"), 2, via, 4, False),
        Route(IPv4Network("10.244.1.0/24"), 2, via, 4, False),
        Route(IPv4Network("10.244.9.0/24"), 2, via, 3, False),
    ]
    found = router_entries.found(routes, {2: "eth0"}, [])
    assert [(str(d.problem), d.key) for d in differences(wanted, found, ())] == [
        ("wrong", "10.244.1.0/24"),
        ("missing", "10.244.2.0/24"),
        ("not ours", "10.244.9.0/24"),
    ]
    shown = {r.target: (r.source, r.purpose) for r in router_entries.described(facts, routes, {2: "eth0"})}
    assert shown["10.244.1.0/24"] == ("static", "pods of near")
    assert shown["10.244.9.0/24"] == ("protocol 3", "")
    assert shown["172.18.1.0/24"] == ("connected", "segment a")


def test_learned_routes_may_go_any_way_and_sessions_must_stand() -> None:
    facts = RouterFacts(
        ROUTER, PODS, {}, NODES, learned=True,
        neighbours={IPv4Address("172.18.3.2"): "router spine1", IPv4Address("172.18.4.2"): "router spine2"},
    )  # fmt: skip
    hops = ((IPv4Address("172.18.3.2"), 3), (IPv4Address("172.18.4.2"), 4))
    routes = [
        Route(IPv4Network("10.244.1.0/24"), 2, IPv4Address("172.18.1.9"), BIRD, False, 32),
        Route(IPv4Network("10.244.2.0/24"), 0, None, BIRD, False, 32, hops),
    ]
    found = router_entries.found(routes, {}, sessions(SHOWN.splitlines()))
    assert [(d.kind, d.key, d.found) for d in differences(router_entries.expected(facts), found, ())] == [
        (Kind.SESSION, "172.18.4.2", "Active")
    ]
    (spread,) = [
        r for r in router_entries.described(facts, routes, {3: "eth1", 4: "eth2"}) if len(r.hops) == 2
    ]
    assert spread.hops == ("via 172.18.3.2 dev eth1", "via 172.18.4.2 dev eth2")
