from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.rtnl import Message
from netkit.podnet.modes import Both
from netkit.podnet.native import Native
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Devices, Hop, NoWay, Paths, leftovers
from netkit.podnet.paths import changes as first_changes
from netkit.podnet.peer import Peer, peers, pod_range

LINK = IPv4Network("172.18.0.0/16")
ELSEWHERE = IPv4Network("172.19.0.0/16")
DEVICES = Devices(underlay=2, tunnel=4)
VXLAN, NATIVE, BOTH = Vxlan(), Native(), Both(Native(), Vxlan())
MODES = (VXLAN, Vxlan(direct_routing=True), NATIVE, BOTH)


def node(number: int, **changed: Any) -> dict[str, Any]:
    address = IPv4Address(f"172.18.0.{number}")
    obj: dict[str, Any] = {
        "metadata": {
            "name": f"node{number}",
            "annotations": changed.get("mode", VXLAN).annotations(address, ""),
        },
        "spec": {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]},
    }
    obj["spec"].update(changed.get("spec", {}))
    obj["metadata"]["annotations"].update(changed.get("annotations", {}))
    return obj


def peer(number: int, mode: Any = VXLAN) -> Peer:
    (found,) = peers([node(number, mode=mode)], "")
    return found


def changes(current: Paths, wanted: Paths, devices: Devices) -> list[Message]:
    return first_changes(current, wanted, devices) + leftovers(current, wanted, devices)


def overlay(joined: list[Peer]) -> Paths:
    return VXLAN.wanted(joined, LINK).paths


def test_annotations_are_flannels() -> None:
    assert VXLAN.annotations(IPv4Address("172.18.0.2")) == {
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"0e:f1:ac:12:00:02"}',
        "flannel.alpha.coreos.com/public-ip": "172.18.0.2",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
    }
    native = NATIVE.annotations(IPv4Address("172.18.0.2"))
    assert native["flannel.alpha.coreos.com/backend-type"] == "host-gw"
    assert native["flannel.alpha.coreos.com/backend-data"] == "null"
    # On the way from one to the other: reached natively, and with a tunnel end for those that are there already.
    both = BOTH.annotations(IPv4Address("172.18.0.2"), "")
    assert both["flannel.alpha.coreos.com/backend-type"] == "host-gw"
    assert both["flannel.alpha.coreos.com/backend-data"] == '{"VNI":1,"VtepMAC":"0e:f1:ac:12:00:02"}'


def test_peers_are_the_others_that_have_joined() -> None:
    unjoined = {"metadata": {"name": "node9"}, "spec": {"podCIDR": "10.244.9.0/24"}}
    rangeless = node(8, spec={"podCIDR": "", "podCIDRs": []})
    found = peers([node(3), node(2), unjoined, rangeless], "node2")
    assert found == (
        Peer("node3", IPv4Address("172.18.0.3"), IPv4Network("10.244.3.0/24"), "0e:f1:ac:12:00:03"),
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        {"flannel.alpha.coreos.com/backend-data": "{"},
        {"flannel.alpha.coreos.com/backend-data": "{}"},
        {"flannel.alpha.coreos.com/backend-data": '{"VtepMAC":"zz"}'},
        {"flannel.alpha.coreos.com/backend-data": "null"},
        {"flannel.alpha.coreos.com/public-ip": "nowhere"},
    ],
)
def test_nonsense_costs_only_its_own_node(nonsense: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert [p.name for p in peers([node(2, annotations=nonsense), node(3)], "")] == ["node3"]
    assert "node2: flannel annotations not understood" in caplog.text


def test_the_ipv4_range_is_found_among_two_families() -> None:
    assert pod_range({"spec": {"podCIDRs": ["fd00::/64", "10.244.1.0/24"]}}) == IPv4Network("10.244.1.0/24")
    assert pod_range({"spec": {"podCIDR": "10.244.1.0/24"}}) == IPv4Network("10.244.1.0/24")
    assert pod_range({}) is None


def test_a_new_node_gets_its_route_last() -> None:
    assert [str(m) for m in changes(Paths(), overlay([peer(3)]), DEVICES)] == [
        "bridge fdb replace 0e:f1:ac:12:00:03 dev 4 dst 172.18.0.3 self permanent",
        "ip neighbour replace 10.244.3.0 lladdr 0e:f1:ac:12:00:03 dev 4 nud permanent",
        "ip route replace 10.244.3.0/24 via 10.244.3.0 dev 4 onlink",
    ]


def test_a_node_that_left_loses_its_route_first() -> None:
    assert [str(m) for m in changes(overlay([peer(3)]), Paths(), DEVICES)] == [
        "ip route delete 10.244.3.0/24 dev 4",
        "ip neighbour delete 10.244.3.0 dev 4",
        "bridge fdb delete 0e:f1:ac:12:00:03 dev 4 self",
    ]


def test_no_change_costs_nothing_and_one_node_costs_one_node() -> None:
    before = overlay([peer(n) for n in range(2, 200)])
    assert changes(before, overlay([peer(n) for n in range(2, 200)]), DEVICES) == []
    assert len(changes(before, overlay([peer(n) for n in range(2, 201)]), DEVICES)) == 3


def test_a_changed_address_replaces_and_a_range_that_moves_keeps_its_route() -> None:
    moved = node(4, spec={"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24"]})
    texts = [str(m) for m in changes(overlay([peer(3)]), overlay(peers([moved], "")), DEVICES)]
    assert texts == [
        "bridge fdb replace 0e:f1:ac:12:00:04 dev 4 dst 172.18.0.4 self permanent",
        "ip neighbour replace 10.244.3.0 lladdr 0e:f1:ac:12:00:04 dev 4 nud permanent",
        "bridge fdb delete 0e:f1:ac:12:00:03 dev 4 self",
    ]


def test_native_routes_lead_to_node_addresses_and_nothing_else_is_needed() -> None:
    wanted = NATIVE.wanted([peer(3, NATIVE), peer(4)], LINK)
    assert wanted.refused == ()
    assert [str(m) for m in changes(Paths(), wanted.paths, DEVICES)] == [
        "ip route replace 10.244.3.0/24 via 172.18.0.3 dev 2",
        "ip route replace 10.244.4.0/24 via 172.18.0.4 dev 2",
    ]


def test_a_route_that_would_lead_nowhere_is_refused_by_name() -> None:
    wanted = NATIVE.wanted([peer(3)], ELSEWHERE)
    assert wanted.paths == Paths()
    assert [str(way) for way in wanted.refused] == [
        "no route to 10.244.3.0/24 of node node3: its address 172.18.0.3 is not on the link 172.19.0.0/16, "
        "a route would lead nowhere"
    ]
    # Through a tunnel it is reached, if it has one.
    assert VXLAN.wanted([peer(3)], ELSEWHERE).refused == ()
    (refused,) = VXLAN.wanted([peer(3, NATIVE)], ELSEWHERE).refused
    assert isinstance(refused, NoWay)
    assert "it has no tunnel end" in refused.why


def test_direct_routing_uses_the_tunnel_only_for_nodes_that_are_elsewhere() -> None:
    far = Peer("far", IPv4Address("172.30.0.9"), IPv4Network("10.244.9.0/24"), "0e:f1:ac:1e:00:09")
    paths = Vxlan(direct_routing=True).wanted([peer(3), far], LINK).paths
    assert paths.routes == {
        IPv4Network("10.244.3.0/24"): Hop(IPv4Address("172.18.0.3")),
        far.pod_range: Hop(IPv4Address("10.244.9.0"), tunnel=True),
    }
    assert list(paths.fdb) == list(paths.neighbours.values()) == [far.vtep_mac]


def test_a_tunnelling_node_reaches_a_native_one_natively() -> None:
    """Nodes do not change over all at once."""
    paths = VXLAN.wanted([peer(3, NATIVE), peer(4, BOTH)], LINK).paths
    assert paths.routes[IPv4Network("10.244.3.0/24")] == Hop(IPv4Address("172.18.0.3"))
    assert paths.routes[IPv4Network("10.244.4.0/24")] == Hop(IPv4Address("10.244.4.0"), tunnel=True)


def test_a_change_of_mode_replaces_routes_and_deletes_none() -> None:
    there, back = overlay([peer(3)]), NATIVE.wanted([peer(3)], LINK).paths
    assert [str(m) for m in changes(there, back, DEVICES)] == [
        "ip route replace 10.244.3.0/24 via 172.18.0.3 dev 2",
        "ip neighbour delete 10.244.3.0 dev 4",
        "bridge fdb delete 0e:f1:ac:12:00:03 dev 4 self",
    ]
    kept = BOTH.wanted([peer(3)], LINK).paths
    assert [str(m) for m in changes(there, kept, DEVICES)] == [
        "ip route replace 10.244.3.0/24 via 172.18.0.3 dev 2"
    ]
    assert [str(m) for m in changes(back, there, DEVICES)][-1] == (
        "ip route replace 10.244.3.0/24 via 10.244.3.0 dev 4 onlink"
    )


@given(
    st.sets(st.integers(2, 20)), st.sampled_from(MODES), st.sets(st.integers(2, 20)), st.sampled_from(MODES)
)
def test_changes_lead_from_one_state_to_the_other(
    before: set[int], first: Any, after: set[int], then: Any
) -> None:
    """Applied to a toy kernel, the messages give exactly the wanted state."""
    old = first.wanted(list(map(peer, before)), LINK).paths
    new = then.wanted(list(map(peer, after)), LINK).paths
    fdb, neighbours, routes = dict(old.fdb), dict(old.neighbours), dict(old.routes)
    for message in changes(old, new, DEVICES):
        words = str(message).split()
        match words[:3]:
            case ["bridge", "fdb", "replace"]:
                fdb[words[3]] = IPv4Address(words[7])
            case ["bridge", "fdb", "delete"]:
                del fdb[words[3]]
            case ["ip", "neighbour", "replace"]:
                neighbours[IPv4Address(words[3])] = words[5]
            case ["ip", "neighbour", "delete"]:
                del neighbours[IPv4Address(words[3])]
            case ["ip", "route", "replace"]:
                routes[IPv4Network(words[3])] = Hop(IPv4Address(words[5]), words[7] == "4")
            case ["ip", "route", "delete"]:
                assert DEVICES.of(routes.pop(IPv4Network(words[3]))) == int(words[5])
            case _:
                raise AssertionError(message)
    assert Paths(fdb, neighbours, routes) == new
