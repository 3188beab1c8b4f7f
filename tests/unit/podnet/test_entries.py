from __future__ import annotations

import base64
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from netkit.podnet.attach import Attach
from netkit.podnet.device import Uplink
from netkit.podnet.entries import Entry, Facts, Kind, Problem, differences, expected
from netkit.podnet.ipam import Lease
from netkit.podnet.modes import NetworkMode, Setting
from netkit.podnet.peer import Peer

SEGMENT = IPv4Network("172.18.0.0/16")
FACTS = Facts(
    "node1",
    IPv4Address("172.18.0.11"),
    IPv4Network("10.244.0.0/24"),
    IPv4Network("10.244.0.0/16"),
    Setting(),
    Uplink("eth0", 2, 1500, SEGMENT),
    (Peer("node2", IPv4Address("172.18.0.12"), IPv4Network("10.244.1.0/24"), "0e:f1:ac:12:00:0c"),),
    (Lease("u1", "default", "web", IPv4Address("10.244.0.2"), "lab.default.web.u1", "veth01"),),
)
OWN, THEIRS = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
ENCRYPTED = replace(
    FACTS,
    setting=Setting(NetworkMode.WIREGUARD),
    peers=tuple(replace(peer, public_key=THEIRS) for peer in FACTS.peers),
    public_key=OWN,
)


def of(facts: Facts, kind: Kind) -> dict[str, tuple[str, str]]:
    return {entry.key: (entry.value, entry.purpose) for entry in expected(facts)[0] if entry.kind is kind}


def test_every_entry_says_what_it_is_for() -> None:
    assert of(FACTS, Kind.ROUTE) == {
        "10.244.1.0/24": ("via 10.244.1.0 dev flannel.1 onlink", "pods of node2")
    }
    assert of(FACTS, Kind.FDB) == {"0e:f1:ac:12:00:0c dev flannel.1": ("dst 172.18.0.12", "tunnel to node2")}
    assert of(FACTS, Kind.DEVICE)["veth01"] == (
        "veth up mtu 1450 master cni0 hairpin",
        "cable of pod default/web",
    )
    assert of(FACTS, Kind.POD) == {
        "lab.default.web.u1": (
            "eth0 up mtu 1450 10.244.0.2/24 default via 10.244.0.1",
            "pod default/web",
        )
    }
    assert all(entry.purpose for entry in expected(FACTS)[0])


def test_a_native_node_has_no_tunnel_and_the_whole_mtu() -> None:
    native = replace(FACTS, setting=Setting(NetworkMode.NATIVE))
    assert of(native, Kind.ROUTE) == {"10.244.1.0/24": ("via 172.18.0.12 dev eth0", "pods of node2")}
    assert of(native, Kind.FDB) == {}
    assert list(of(native, Kind.DEVICE)) == ["cni0", "veth01"]
    assert native.mtu == 1500
    assert "mtu 1500" in of(native, Kind.DEVICE)["cni0"][0]


def test_a_pod_on_a_cable_of_its_own_has_a_route_of_its_own() -> None:
    routed = replace(FACTS, attach=Attach.PTP)
    assert of(routed, Kind.ROUTE) == {
        "10.244.0.0/24": ("unreachable", "addresses of this node that no pod has"),
        "10.244.0.2/32": ("dev veth01", "pod default/web"),
        "10.244.1.0/24": ("via 10.244.1.0 dev flannel.1 onlink", "pods of node2"),
    }
    assert of(routed, Kind.DEVICE)["veth01"] == (
        "veth up mtu 1450 mac 0a:58:0a:f4:00:01", "cable of pod default/web",
    )  # fmt: skip
    assert "cni0" not in of(routed, Kind.DEVICE)
    assert of(routed, Kind.ADDRESS)["10.244.0.1/32 dev veth01"] == ("", "the gateway of pod default/web")
    assert of(routed, Kind.NEIGHBOUR)["10.244.0.2 dev veth01"][0] == "0a:58:0a:f4:00:02"
    assert of(routed, Kind.POD)["lab.default.web.u1"][0] == (
        "eth0 up mtu 1450 10.244.0.2/32 default via 10.244.0.1"
    )
    settings = of(routed, Kind.SETTING)
    assert "net.bridge.bridge-nf-call-iptables" not in settings
    assert settings["net.ipv4.conf.all.send_redirects"][0] == "0"
    assert of(routed, Kind.RULE) == of(FACTS, Kind.RULE)


def test_an_encrypted_node_has_one_route_and_a_peer_per_node() -> None:
    assert of(ENCRYPTED, Kind.ROUTE) == {
        "10.244.0.0/16": ("dev flannel-wg", "all other pods; the device chooses the node")
    }
    assert of(ENCRYPTED, Kind.PEER) == {
        f"{THEIRS} dev flannel-wg": (
            "endpoint 172.18.0.12:51820 allowed-ips 10.244.1.0/24,172.18.0.12/32",
            "pods of node2, and itself",
        )
    }
    assert of(ENCRYPTED, Kind.FDB) == {}
    assert of(ENCRYPTED, Kind.DEVICE)["flannel-wg"][0] == (
        f"wireguard listen-port 51820 public-key {OWN} up mtu 1420"
    )
    assert list(of(ENCRYPTED, Kind.DEVICE)) == ["cni0", "flannel-wg", "veth01"]
    assert ENCRYPTED.mtu == 1420
    assert all(entry.purpose for entry in expected(ENCRYPTED)[0])
    silent = replace(ENCRYPTED, peers=FACTS.peers)
    assert of(silent, Kind.PEER) == {}
    (way,) = expected(silent)[1]
    assert str(way).startswith("no route to 10.244.1.0/24 of node node2: it has not told a key")


def test_what_is_as_it_should_be_differs_nowhere() -> None:
    wanted, refused = expected(FACTS)
    assert differences(wanted, wanted, refused) == []


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.SESSION])
def test_each_entry_can_be_missing_wrong_and_foreign(kind: Kind) -> None:
    wanted, _ = expected(replace(ENCRYPTED, setting=Setting(both=NetworkMode.WIREGUARD)))
    victim = next(entry for entry in wanted if entry.kind is kind)
    rest = [entry for entry in wanted if entry is not victim]
    (missing,) = differences(wanted, rest, ())
    assert (missing.kind, missing.key, missing.problem) == (kind, victim.key, Problem.MISSING)
    assert (missing.wanted, missing.found, missing.purpose) == (victim.value, "", victim.purpose)
    (wrong,) = differences(wanted, [*rest, replace(victim, value="other")], ())
    assert (wrong.problem, wrong.wanted, wrong.found) == (Problem.WRONG, victim.value, "other")
    (foreign,) = differences(wanted, [*wanted, Entry(kind, "strange", "thing")], ())
    assert (foreign.key, foreign.problem, foreign.found) == ("strange", Problem.NOT_OURS, "thing")


def test_a_node_that_the_mode_cannot_reach_is_a_missing_route() -> None:
    facts = replace(
        FACTS,
        setting=Setting(NetworkMode.NATIVE),
        peers=(Peer("far", IPv4Address("192.0.2.1"), IPv4Network("10.244.9.0/24")),),
    )
    wanted, refused = expected(facts)
    (found,) = differences(wanted, wanted, refused)
    assert (found.kind, found.key, found.problem) == (Kind.ROUTE, "10.244.9.0/24", Problem.MISSING)
    assert "pods of far: its address 192.0.2.1 is not on the link" in found.purpose
