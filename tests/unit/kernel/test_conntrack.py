"""Dumps of the connection tracking table as the kernel sends them, without a kernel."""

from __future__ import annotations

import errno
import struct
from ipaddress import ip_address

import pytest

from netkit.kernel.conntrack import Conntrack, Entry, decode
from netkit.kernel.conntrack_fake import FakeConntrack, entry
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import HOST

UDP = 17
DONE, ERROR, NEW = 3, 2, 1 << 8
INTERRUPTED = 0x10


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def tuple_of(source: str, destination: str, sport: int, dport: int) -> bytes:
    first = 1 if "." in source else 3
    places = attribute(first, ip_address(source).packed) + attribute(
        first + 1, ip_address(destination).packed
    )
    ports = attribute(1, bytes([UDP]))
    ports += attribute(2, struct.pack("!H", sport)) + attribute(3, struct.pack("!H", dport))
    return attribute(1 | 0x8000, places) + attribute(2 | 0x8000, ports)


ORIGINAL = attribute(1 | 0x8000, tuple_of("10.0.0.1", "10.96.0.10", 4000, 53))
REPLY = attribute(2 | 0x8000, tuple_of("10.244.0.5", "10.0.0.1", 5353, 4000))
REST = attribute(3, b"\0\0\0\x08") + attribute(12, b"\1\2\3\4")
BODY = ORIGINAL + REPLY + REST


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


class FakeSocket:
    """A netlink socket whose answers are known."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        return self._answers.pop(0)


def dumped(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> list[Entry]:
    monkeypatch.setattr(Conntrack, "_socket", lambda *_: FakeSocket(*answers))
    return Conntrack(HOST).dump(4, UDP)


HEADED = b"\x02\0\0\0" + BODY
WANTED = entry(UDP, "10.0.0.1:4000", "10.96.0.10:53", "10.244.0.5:5353", "10.0.0.1:4000")


def test_a_dump_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dumped(monkeypatch, message(NEW, HEADED) * 2, message(NEW, HEADED) + message(DONE, b"\0" * 4))
    assert found == [WANTED] * 3


@pytest.mark.parametrize("end", [DONE, ERROR])
def test_a_dump_cut_short_is_used_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    interrupted = struct.pack("=i", -errno.EINTR)
    found = dumped(monkeypatch, message(NEW, HEADED, INTERRUPTED), message(end, interrupted, INTERRUPTED))
    assert found == [WANTED]


def test_a_refused_dump_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError) as failed:
        dumped(monkeypatch, message(ERROR, struct.pack("=i", -errno.EPERM)))
    assert failed.value.is_permission


def test_a_kernel_that_ignores_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Conntrack, "_socket", lambda *_: FakeSocket(message(NEW, HEADED) + message(DONE, b"\0" * 4))
    )
    assert Conntrack(HOST).dump(4, 6) == []


def test_entries_without_addresses_are_passed_over() -> None:
    assert decode(ORIGINAL) is None
    assert decode(BODY) == WANTED


def test_the_fake_prints_like_conntrack() -> None:
    table = FakeConntrack([WANTED, entry(UDP, "[fd00::1]:1", "[fd00::2]:2")])
    assert str(table).splitlines() == [
        "udp src=10.0.0.1 dst=10.96.0.10 sport=4000 dport=53 src=10.244.0.5 dst=10.0.0.1 sport=5353 dport=4000",
        "udp src=fd00::1 dst=fd00::2 sport=1 dport=2 src=fd00::2 dst=fd00::1 sport=2 dport=1",
    ]
    assert table.dump(6, UDP) == [table.entries[1]]
