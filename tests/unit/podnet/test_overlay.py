from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.podnet.overlay import (
    Overlay,
    Peer,
    changes,
    node_annotations,
    overlay,
    peers,
    pod_range,
    vtep_mac,
)


def node(number: int, **changed: Any) -> dict[str, Any]:
    address = IPv4Address(f"172.18.0.{number}")
    obj: dict[str, Any] = {
        "metadata": {"name": f"node{number}", "annotations": node_annotations(address, vtep_mac(address))},
        "spec": {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]},
    }
    obj["spec"].update(changed.get("spec", {}))
    obj["metadata"]["annotations"].update(changed.get("annotations", {}))
    return obj


def peer(number: int) -> Peer:
    (found,) = peers([node(number)], "")
    return found


def test_annotations_are_flannels() -> None:
    assert node_annotations(IPv4Address("172.18.0.2"), "0e:f1:ac:12:00:02") == {
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"0e:f1:ac:12:00:02"}',
        "flannel.alpha.coreos.com/public-ip": "172.18.0.2",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
    }


def test_peers_are_the_others_that_have_joined() -> None:
    unjoined = {"metadata": {"name": "node9"}, "spec": {"podCIDR": "10.244.9.0/24"}}
    rangeless = node(8, spec={"podCIDR": "", "podCIDRs": []})
    found = peers([node(3), node(2), unjoined, rangeless], "node2")
    assert found == (
        Peer("node3", IPv4Address("172.18.0.3"), "0e:f1:ac:12:00:03", IPv4Network("10.244.3.0/24")),
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
    assert [str(m) for m in changes(Overlay(), overlay([peer(3)]), 4)] == [
        "bridge fdb replace 0e:f1:ac:12:00:03 dev 4 dst 172.18.0.3 self permanent",
        "ip neighbour replace 10.244.3.0 lladdr 0e:f1:ac:12:00:03 dev 4 nud permanent",
        "ip route replace 10.244.3.0/24 via 10.244.3.0 dev 4 onlink",
    ]


def test_a_node_that_left_loses_its_route_first() -> None:
    assert [str(m) for m in changes(overlay([peer(3)]), Overlay(), 4)] == [
        "ip route delete 10.244.3.0/24 dev 4",
        "ip neighbour delete 10.244.3.0 dev 4",
        "bridge fdb delete 0e:f1:ac:12:00:03 dev 4 self",
    ]


def test_no_change_costs_nothing_and_one_node_costs_one_node() -> None:
    before = overlay([peer(n) for n in range(2, 200)])
    assert changes(before, overlay([peer(n) for n in range(2, 200)]), 4) == []
    assert len(changes(before, overlay([peer(n) for n in range(2, 201)]), 4)) == 3


def test_a_changed_address_replaces_and_a_range_that_moves_keeps_its_route() -> None:
    moved = node(4, spec={"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24"]})
    texts = [str(m) for m in changes(overlay([peer(3)]), overlay(peers([moved], "")), 4)]
    assert texts == [
        "bridge fdb replace 0e:f1:ac:12:00:04 dev 4 dst 172.18.0.4 self permanent",
        "ip neighbour replace 10.244.3.0 lladdr 0e:f1:ac:12:00:04 dev 4 nud permanent",
        "bridge fdb delete 0e:f1:ac:12:00:03 dev 4 self",
    ]


@given(st.sets(st.integers(2, 20)), st.sets(st.integers(2, 20)))
def test_changes_lead_from_one_state_to_the_other(before: set[int], after: set[int]) -> None:
    """Applied to a toy kernel, the messages give exactly the wanted state."""
    old, new = overlay(map(peer, before)), overlay(map(peer, after))
    fdb, neighbours, routes = dict(old.fdb), dict(old.neighbours), dict(old.routes)
    for message in changes(old, new, 4):
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
                routes[IPv4Network(words[3])] = IPv4Address(words[5])
            case ["ip", "route", "delete"]:
                del routes[IPv4Network(words[3])]
            case _:
                raise AssertionError(message)
    assert Overlay(fdb, neighbours, routes) == new
