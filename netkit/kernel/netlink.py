"""Netlink as the drivers of this package speak it: messages, their attributes, and a socket of one namespace.

Used by `rtnl`, `ipvs`, `ipset` and `address_events`, which know what the messages mean. A message prints as the
command a user would type for it, which is what errors and fakes show.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace

NESTED: Final = 0x8000
NET_BYTE_ORDER: Final = 0x4000
TYPE_MASK: Final = 0x3FFF
"""What of an attribute's kind is its number: the rest are the two flags above."""

_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_NOOP, _ERROR, _DONE = 1, 2, 3
_CAPPED, _ACK_TLVS = 0x100, 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_BATCH_BYTES: Final = 64 * 1024
_RECEIVED_AT_ONCE: Final = 1 << 15
"""The kernel never puts more than this into one part of a dump."""

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `what` is the command it stands for, `allowed` the errnos that count as success."""

    kind: int
    flags: int
    body: bytes
    what: str
    allowed: frozenset[int] = frozenset()

    def allowing(self, *errnos: int) -> Message:
        """The same request, with these answers counted as success."""
        return Message(self.kind, self.flags, self.body, self.what, self.allowed | frozenset(errnos))

    def __str__(self) -> str:
        return self.what


class NetlinkSocket:
    """A socket of one netlink protocol in one namespace; usable from any thread. Close it, or use it in a `with`.

    One exchange at a time: a second thread waits until the first has its answer.
    """

    def __init__(self, ns: Namespace, protocol: int) -> None:
        self.namespace = ns.name
        self._socket = netns.socket_in(ns, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _BATCH_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._turn = threading.Lock()

    def apply(self, *messages: Message) -> None:
        """Send all messages and wait for all answers; the kernel does them in order and goes on after a
        failure.

        Raises KernelError that names the first message which failed, and says how many more did.
        """
        batch: list[Message] = []
        size = 0
        failed: list[KernelError] = []
        with self._turn:
            for message in messages:
                batch.append(message)
                size += len(message.body) + 20
                if size > _BATCH_BYTES:
                    failed += self._send(batch)
                    batch, size = [], 0
            if batch:
                failed += self._send(batch)
        if failed:
            if len(failed) > 1:
                failed[0].add_note(f"and {len(failed) - 1} more: " + "; ".join(str(e) for e in failed[1:6]))
            raise failed[0]

    def ask(self, message: Message) -> bytes:
        """Send one request that is answered by one message; the body of the answer. Raises KernelError."""
        with self._turn:
            self._sequence += 1
            self._socket.send(encode(message, self._sequence, ack=False))
            data = self._socket.recv(_RECEIVED_AT_ONCE)
        length, kind, flags, _, _ = HEADER.unpack_from(data)
        if kind == _ERROR:
            code = -struct.unpack_from("=i", data, HEADER.size)[0]
            raise KernelError(message.what, self.namespace, code, _extended_text(data[:length], flags))
        return data[HEADER.size : length]

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of all messages that answer a dump request. Raises KernelError."""
        asked = Message(message.kind, message.flags | _DUMP, message.body, message.what, message.allowed)
        found: list[bytes] = []
        with self._turn:
            self._sequence += 1
            self._socket.send(encode(asked, self._sequence, ack=False))
            while True:
                data = self._socket.recv(_RECEIVED_AT_ONCE)
                for kind, body in _messages(data):
                    if kind in (_ERROR, _DONE):
                        # The end of a dump carries the error that ended it; older kernels send no number.
                        code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                        if code and code not in message.allowed:
                            raise KernelError(message.what, self.namespace, code)
                        return found
                    if kind != _NOOP:
                        found.append(body)

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        # Kept open for as long as their owner lives, and most owners live until the process ends.
        if hasattr(self, "_socket"):
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(self, batch: Sequence[Message]) -> list[KernelError]:
        first = self._sequence + 1
        self._sequence += len(batch)
        last = self._sequence
        self._socket.send(
            b"".join(encode(message, first + i, ack=first + i == last) for i, message in enumerate(batch))
        )
        failed: list[KernelError] = []
        answered = False
        # Failures are answered in any case, success only where it was asked for: by the last one.
        while not answered:
            data = self._socket.recv(1 << 16)
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
                if kind == _ERROR and sequence >= first:
                    answered |= sequence == last
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    message = batch[sequence - first]
                    if code and code not in message.allowed:
                        text = _extended_text(data[offset : offset + length], flags)
                        failed.append(KernelError(message.what, self.namespace, code, text))
                offset += (length + 3) & ~3
        return failed


def encode(message: Message, sequence: int, *, ack: bool) -> bytes:
    """The bytes of a request."""
    body = message.body
    flags = message.flags | _REQUEST | (_ACK if ack else 0)
    return HEADER.pack(HEADER.size + len(body), message.kind, flags, sequence, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    """A string attribute, with the zero byte the kernel wants."""
    return attribute(kind, value.encode() + b"\0")


def u16(kind: int, value: int) -> bytes:
    """A number of 16 bits in the machine's byte order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """A number of 32 bits in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, data: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, data)


def attributes(data: bytes, offset: int = 0) -> Attributes:
    """The attributes behind `offset`, by kind without its flags; of equal ones the last."""
    return dict(each_attribute(data, offset))


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Kind (without flags) and contents of the attributes behind `offset`, in order."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        yield kind, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _extended_text(answer: bytes, flags: int) -> str:
    """The kernel's own sentence in an error answer, "" when there is none."""
    if not flags & _ACK_TLVS:
        return ""
    offset = 36 if flags & _CAPPED else 20 + struct.unpack_from("=I", answer, 20)[0]
    found = attributes(answer, offset).get(1, b"")
    return found.rstrip(b"\0").decode(errors="replace")
