from __future__ import annotations

import base64
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from netkit.kernel import wireguard_netlink
from netkit.kernel.errors import KernelError
from netkit.kernel.netlink import attributes, each_attribute, encode
from netkit.kernel.wireguard_uapi import Uapi, keepalive_request, listening, set_request, state_in
from netkit.kernel.wireguard_values import Change, Peer, State

RAW = [bytes([number]) * 32 for number in range(4)]
KEY = [base64.b64encode(raw).decode() for raw in RAW]
# RFC 7748, section 6.1, Bob's.
PRIVATE = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
PUBLIC = base64.b64encode(
    bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
).decode()
PEER = Peer(
    KEY[1],
    IPv4Address("172.18.0.3"),
    51820,
    (IPv4Network("10.244.2.0/24"), IPv4Network("172.18.0.3/32")),
)
CHANGE = Change(KEY[3], 51820, (PEER,), (KEY[2],))


def test_a_change_is_one_request_in_text() -> None:
    assert set_request(CHANGE).splitlines() == [
        "set=1",
        f"private_key={RAW[3].hex()}",
        "listen_port=51820",
        f"public_key={RAW[2].hex()}",
        "remove=true",
        f"public_key={RAW[1].hex()}",
        "endpoint=172.18.0.3:51820",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "allowed_ip=10.244.2.0/24",
        "allowed_ip=172.18.0.3/32",
        "",
    ]
    # What is not named is not touched.
    assert set_request(Change(removed=(KEY[2],))).splitlines() == [
        "set=1",
        f"public_key={RAW[2].hex()}",
        "remove=true",
        "",
    ]
    assert keepalive_request((PEER,), 1).splitlines() == [
        "set=1",
        f"public_key={RAW[1].hex()}",
        "update_only=true",
        "persistent_keepalive_interval=1",
        "",
    ]


def test_the_secret_is_in_no_message_for_people() -> None:
    assert str(CHANGE) == (
        f"listen-port 51820 private-key (hidden) peer {KEY[2]} remove "
        f"peer {KEY[1]} endpoint 172.18.0.3:51820 allowed-ips 10.244.2.0/24,172.18.0.3/32"
    )
    (message,) = wireguard_netlink.set_messages("wg0", CHANGE)
    assert KEY[3] not in str(message)


def test_what_a_program_answers_is_read() -> None:
    answer = f"""private_key={PRIVATE}
listen_port=51820
public_key={RAW[1].hex()}
preshared_key={"0" * 64}
protocol_version=1
endpoint=172.18.0.3:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=1
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
allowed_ip=172.18.0.3/32
allowed_ip=10.244.2.0/24
public_key={RAW[2].hex()}
persistent_keepalive_interval=25
allowed_ip=fd00::/64
"""
    far = Peer(KEY[2], IPv4Address(0), 0, (), 25)
    assert state_in(answer) == State(PUBLIC, 51820, {KEY[1]: PEER, KEY[2]: far}, frozenset({KEY[1]}))
    assert state_in("") == State("", 0)
    assert state_in(f"private_key={'0' * 64}\n") == State("", 0)


@contextmanager
def program(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who listens at the socket, and answers all requests alike; what was asked."""
    asked: list[bytes] = []
    sock = listening(path)

    def serve() -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(1 << 16))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join()


def test_a_greeting_is_taken_back_at_once(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 40) / "wg0.sock"
    with program(path, b"errno=0\n\n") as asked:
        Uapi(path).apply(Change(peers=(PEER,), greeted=(PEER,)))
        assert [request.count(b"interval=1\n") for request in asked] == [0, 1, 0]
        assert asked[2] == keepalive_request((PEER,)).encode()


def test_a_refusal_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    with program(path, b"errno=-22\n\n"), pytest.raises(KernelError) as refused:
        Uapi(path, "lab.node1").apply(CHANGE)
    assert refused.value.errno == errno.EINVAL
    assert str(refused.value).startswith("lab.node1: wg set wg0 listen-port 51820 private-key (hidden)")


def test_nobody_there_is_not_found_and_a_dead_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    with pytest.raises(KernelError) as missing:
        Uapi(path).read()
    assert missing.value.is_not_found
    listening(path).close()
    with pytest.raises(KernelError) as silent:
        Uapi(path).read()
    assert silent.value.is_not_found
    with program(path, b""), pytest.raises(KernelError, match="the program hung up"):
        Uapi(path).read()


def test_a_change_in_netlink_says_the_same() -> None:
    (message,) = wireguard_netlink.set_messages("wg0", CHANGE)
    device = attributes(message.body, 4)
    assert device[2] == b"wg0\0"
    assert (device[3], device[6]) == (RAW[3], (51820).to_bytes(2, "little"))
    gone, there = (attributes(contents) for _, contents in each_attribute(device[8]))
    assert (gone[1], gone[3]) == (RAW[2], b"\5\0\0\0")
    assert (there[1], there[3], there[4][:8]) == (RAW[1], b"\2\0\0\0", b"\2\0\xca\x6c\xac\x12\0\3")
    assert len(there[4]) == 16
    assert [attributes(each)[2] for _, each in each_attribute(there[9])] == [
        IPv4Address("10.244.2.0").packed,
        IPv4Address("172.18.0.3").packed,
    ]


def test_what_netlink_is_told_is_read_back_from_it() -> None:
    """The kernel answers in the attributes that it takes."""
    (message,) = wireguard_netlink.set_messages("wg0", Change(port=51820, peers=(PEER,)))
    assert wireguard_netlink.state_in([message.body]) == State("", 51820, {KEY[1]: PEER})
    # A peer in two parts of a dump.
    halves = [
        wireguard_netlink.set_messages(
            "wg0", Change(peers=(Peer(KEY[1], PEER.endpoint, 51820, (network,)),))
        )[0].body
        for network in PEER.allowed
    ]
    assert wireguard_netlink.state_in(halves).peers == {KEY[1]: PEER}


def test_many_peers_go_in_several_messages() -> None:
    peers = tuple(
        Peer(base64.b64encode(number.to_bytes(32, "big")).decode(), PEER.endpoint, 51820, PEER.allowed)
        for number in range(450)
    )
    messages = wireguard_netlink.set_messages("wg0", Change(KEY[3], peers=peers))
    assert [len(message.body) < 1 << 16 for message in messages] == [True] * 3
    assert [3 in attributes(message.body, 4) for message in messages] == [True, False, False]
    found = wireguard_netlink.state_in([message.body for message in messages])
    assert list(found.peers.values()) == list(peers)


def test_netlink_messages_are_what_another_library_reads_in_them() -> None:
    (message,) = wireguard_netlink.set_messages("wg0", CHANGE)
    read = wgmsg(encode(message, 1, ack=False))
    read.decode()
    assert read["cmd"] == 1
    assert read.get_attr("WGDEVICE_A_IFNAME") == "wg0"
    assert read.get_attr("WGDEVICE_A_LISTEN_PORT") == 51820
    assert read.get_attr("WGDEVICE_A_PRIVATE_KEY") == KEY[3].encode()
    gone, there = read.get_attr("WGDEVICE_A_PEERS")
    assert (gone.get_attr("WGPEER_A_PUBLIC_KEY"), gone.get_attr("WGPEER_A_FLAGS")) == (KEY[2].encode(), 5)
    assert (there.get_attr("WGPEER_A_PUBLIC_KEY"), there.get_attr("WGPEER_A_FLAGS")) == (KEY[1].encode(), 2)
    endpoint = there.get_attr("WGPEER_A_ENDPOINT")
    assert (endpoint["family"], endpoint["port"], endpoint["addr"]) == (socket.AF_INET, 51820, "172.18.0.3")
    allowed = there.get_attr("WGPEER_A_ALLOWEDIPS")
    assert [each["addr"] for each in allowed] == ["10.244.2.0/24", "172.18.0.3/32"]
