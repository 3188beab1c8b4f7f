from __future__ import annotations

import base64
import os
import stat
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.wireguard_fake import FakeWireGuard
from netkit.kernel.wireguard_values import State
from netkit.podnet.modes import Both
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Devices, Paths, changes
from netkit.podnet.peer import Peer, peers
from netkit.podnet.underlay import Underlay
from netkit.podnet.wireguard import WireGuard, additions, removals, silent
from netkit.podnet.wireguard_key import KEY_FILE, own_key, read_key

LINK = IPv4Network("172.18.0.0/16")
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(20)]


def peer(number: int, key: str | None = None) -> Peer:
    return Peer(
        f"node{number}",
        IPv4Address(f"172.18.0.{number}"),
        IPv4Network(f"10.244.{number}.0/24"),
        public_key=KEYS[number] if key is None else key,
    )


def node(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"podCIDR": "10.244.3.0/24"}}


def test_annotations_are_flannels() -> None:
    notes = WireGuard().annotations(IPv4Address("172.18.0.3"), KEYS[3])
    assert notes == {
        "flannel.alpha.coreos.com/backend-type": "wireguard",
        "flannel.alpha.coreos.com/backend-data": f'{{"PublicKey":"{KEYS[3]}"}}',
        "flannel.alpha.coreos.com/public-ip": "172.18.0.3",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
    }
    assert peers([node("node3", notes)], "") == (peer(3),)


def test_a_node_on_its_way_tells_what_both_modes_need() -> None:
    notes = Both(Vxlan(), WireGuard()).annotations(IPv4Address("172.18.0.3"), KEYS[3])
    assert notes["flannel.alpha.coreos.com/backend-type"] == "vxlan"
    (found,) = peers([node("node3", notes)], "")
    assert (found.vtep_mac, found.public_key) == ("0e:f1:ac:12:00:03", KEYS[3])


@pytest.mark.parametrize("data", ["{}", '{"PublicKey":"short"}', '{"PublicKey":"!"}', "null"])
def test_a_node_that_tells_no_key_is_left_out(data: str) -> None:
    notes = WireGuard().annotations(IPv4Address("172.18.0.3"), KEYS[3])
    notes["flannel.alpha.coreos.com/backend-data"] = data
    assert peers([node("node3", notes)], "") == ()


def test_a_peer_per_node_with_its_range_and_its_own_address() -> None:
    wanted = WireGuard().wanted([peer(2), peer(3)], LINK)
    assert wanted.refused == ()
    assert wanted.paths.routes == {}
    assert {
        key: (str(p.endpoint), p.port, [*map(str, p.allowed)]) for key, p in wanted.paths.keys.items()
    } == {
        KEYS[2]: ("172.18.0.2", 51820, ["10.244.2.0/24", "172.18.0.2/32"]),
        KEYS[3]: ("172.18.0.3", 51820, ["10.244.3.0/24", "172.18.0.3/32"]),
    }


def test_a_node_without_a_key_is_refused_and_never_reached_in_the_clear() -> None:
    for mode in (WireGuard(), Both(WireGuard(), Vxlan())):
        wanted = mode.wanted([peer(2), peer(3, "")], LINK)
        assert [(way.node, way.passing) for way in wanted.refused] == [("node3", True)]
        assert list(wanted.paths.keys) == [KEYS[2]]
        assert wanted.paths.routes == {}


def test_learned_routes_in_the_clear_do_not_go_before() -> None:
    learned = WireGuard(Underlay(learned=True)).wanted([peer(2), peer(3, "")], LINK)
    assert {str(target): (str(hop.via), hop.encrypted) for target, hop in learned.paths.routes.items()} == {
        "10.244.2.0/24": ("10.244.2.0", True),
        "10.244.3.0/24": ("10.244.3.0", True),
    }
    assert [str(message) for message in changes(Paths(), learned.paths, Devices(2, 4, 5))] == [
        f"ip route replace 10.244.{number}.0/24 via 10.244.{number}.0 dev 5 onlink" for number in (2, 3)
    ]


def test_a_change_costs_what_changed() -> None:
    before = WireGuard().wanted([peer(2), peer(3), peer(4)], LINK).paths.keys
    after = WireGuard().wanted([peer(2), peer(3, KEYS[13]), peer(5)], LINK).paths.keys
    assert [p.public_key for p in additions(before, after, KEYS[1]).peers] == [KEYS[13], KEYS[5]]
    assert removals(before, after).removed == (KEYS[3], KEYS[4])
    assert not additions(after, after, KEYS[1])
    assert not removals(after, after)


def test_only_one_of_two_greets_and_the_other_when_it_hears_nothing() -> None:
    found = WireGuard().wanted([peer(2), peer(4)], LINK).paths.keys
    assert [p.public_key for p in additions({}, found, KEYS[3]).greeted] == [KEYS[4]]
    assert [p.public_key for p in additions({}, found, KEYS[1]).greeted] == [KEYS[2], KEYS[4]]
    assert [p.public_key for p in additions({}, found, KEYS[5]).greeted] == []
    state = State(KEYS[3], 51820, found, frozenset({KEYS[4]}))
    assert [p.public_key for p in silent(state).greeted] == [KEYS[2]]
    assert not silent(State(KEYS[3], 51820, found, frozenset(found)))


@given(st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)))
def test_whatever_changed_the_device_ends_as_wanted(
    before: set[int], after: set[int], turned: set[int]
) -> None:
    device = FakeWireGuard()
    device.ensure()
    first = WireGuard().wanted([peer(number) for number in sorted(before)], LINK).paths.keys
    last = (
        WireGuard()
        .wanted([peer(n, KEYS[n + 10] if n in turned else KEYS[n]) for n in sorted(after)], LINK)
        .paths.keys
    )
    device.apply(additions({}, first, KEYS[0]))
    device.apply(additions(first, last, KEYS[0]))
    device.apply(removals(first, last))
    assert device.read().peers == last


def test_a_key_is_made_once_and_is_for_root_alone(tmp_path: Path) -> None:
    assert read_key(tmp_path) is None
    key = own_key(tmp_path)
    assert own_key(tmp_path) == read_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert len(base64.b64decode(key.private)) == len(base64.b64decode(key.public)) == 32
    assert key.private not in repr(key)
    assert os.listdir(tmp_path) == [KEY_FILE]
    (tmp_path / KEY_FILE).unlink()
    assert own_key(tmp_path) != key


def test_public_keys_are_those_of_rfc_7748(tmp_path: Path) -> None:
    # Section 6.1, Bob's.
    private = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    (tmp_path / KEY_FILE).write_bytes(base64.b64encode(private))
    public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert base64.b64decode(own_key(tmp_path).public) == public


@pytest.mark.parametrize("text", ["", "not base64", base64.b64encode(b"short").decode()])
def test_a_file_without_a_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"wireguard\.key: there is no key in it"):
        own_key(tmp_path)
