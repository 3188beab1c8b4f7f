"""Entries of the connection tracking table of one namespace: read many, delete some, by netlink.

Called by the proxy, which removes what leads datagrams to endpoints that are gone. An entry is decoded as far as
that needs, and keeps the kernel's own words for the rest: a table of 100,000 is read in a second.

A dump can be cut short when the table changes under it (the kernel's flag DUMP_INTR, or EINTR): what came until
then is returned, the rest waits for the next dump.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from netkit.kernel import netns
from netkit.kernel.errors import KernelError, from_os_error
from netkit.kernel.netns import Namespace

_NETFILTER: Final = 12
_SUBSYSTEM: Final = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_SOL_NETLINK, _CAP_ACK = 270, 10
_BATCH: Final = 256
_RECEIVE: Final = 1 << 18

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_PORT = struct.Struct("!H")
_ERRNO = struct.Struct("=i")

# Attribute numbers of nfnetlink_conntrack.h.
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_BY_PROTOCOL = 1, 1 << 3

# A tuple behind its own header: the nest of addresses, then that of protocol number and ports.
_USUAL_V4 = struct.Struct("!4x 4x4s 4x4s 4x 4xB3x 4xH2x 4xH2x")
_USUAL_V6 = struct.Struct("!4x 4x16s 4x16s 4x 4xB3x 4xH2x 4xH2x")
_USUAL = tuple(
    (
        _ATTRIBUTE.pack(4 + layout.size, _TUPLE_ORIG | _NESTED),
        _ATTRIBUTE.pack(4 + layout.size, _TUPLE_REPLY | _NESTED),
        layout,
    )
    for layout in (_USUAL_V4, _USUAL_V6)
)

_PROTOCOL_NAMES = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}


class Direction(NamedTuple):
    """Where packets of one direction of a connection come from and go to.

    Addresses are packed (4 or 16 bytes, as `ip_address.packed`): tables are long, and few of their entries matter.
    Ports are 0 for protocols without.
    """

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int

    def __str__(self) -> str:
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        return f"src={source} dst={destination} sport={self.source_port} dport={self.destination_port}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked connection: what its first packet asked for, and what answers look like.

    `protocol` is the number of the IP header, `message` all that the kernel said, to name the entry by.
    """

    protocol: int
    original: Direction
    reply: Direction
    message: bytes = field(default=b"", repr=False, compare=False)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.original.source) == 4 else 6

    def __str__(self) -> str:
        """As conntrack(8) prints it."""
        return f"{_PROTOCOL_NAMES.get(self.protocol, self.protocol)} {self.original} {self.reply}"


class ConntrackTable(Protocol):
    """What reads and thins out a table: `Conntrack`, or a fake that can be printed."""

    def dump(self, version: int, protocol: int) -> list[Entry]: ...

    def delete(self, entries: Sequence[Entry]) -> int: ...


class Conntrack:
    """The table of one namespace. Every call has a socket of its own, blocks, and may come from any thread."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns

    def dump(self, version: int, protocol: int) -> list[Entry]:
        """All entries of one IP version (4 or 6) and one protocol. Raises KernelError."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        # Kernels before 5.8 ignore the filter, hence the second look at the protocol.
        number = _attribute(_NUMBER, bytes([protocol]))
        flags = _attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", _FILTER_BY_PROTOCOL))
        body = _FAMILY.pack(family, 0, 0)
        body += _attribute(_TUPLE_ORIG | _NESTED, _attribute(_PROTO | _NESTED, number))
        body += _attribute(_FILTER | _NESTED, flags)
        request = _HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST | _DUMP, 1, 0) + body
        entries = []
        with self._socket("conntrack -L") as netlink:
            netlink.send(request)
            for message in self._answers(netlink):
                entry = decode(message)
                if entry is not None and entry.protocol == protocol:
                    entries.append(entry)
        return entries

    def delete(self, entries: Sequence[Entry]) -> int:
        """Delete exactly these; those that went by themselves meanwhile are not counted. Returns how many it deleted.

        Raises KernelError for the first that was refused, after having tried all.
        """
        refused: list[KernelError] = []
        deleted = 0
        with self._socket("conntrack -D") as netlink:
            for start in range(0, len(entries), _BATCH):
                batch = entries[start : start + _BATCH]
                codes = _delete_batch(netlink, batch)
                deleted += len(batch) - len(codes)
                refused += (
                    KernelError(f"conntrack -D {batch[number]}", self._ns.name, code)
                    for number, code in codes.items()
                    if code != errno.ENOENT
                )
        if refused:
            raise refused[0]
        return deleted

    def _socket(self, operation: str) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        netlink = netns.socket_in(self._ns, socket.AF_NETLINK, kind, _NETFILTER)
        try:
            netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            netlink.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            netlink.bind((0, 0))
        except OSError as error:
            netlink.close()
            raise from_os_error(error, operation, self._ns.name) from error
        return netlink

    def _answers(self, netlink: socket.socket) -> Iterator[bytes]:
        """The bodies of a dump's messages, without the four bytes that name the family."""
        while True:
            data = netlink.recv(_RECEIVE)
            offset = 0
            while offset < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                begin = offset + _HEADER.size
                if kind in (_DONE, _ERROR):
                    code = -_ERRNO.unpack_from(data, begin)[0] if length > _HEADER.size else 0
                    if code and code != errno.EINTR:
                        raise KernelError("conntrack -L", self._ns.name, code)
                    return
                yield data[begin + _FAMILY.size : offset + length]
                offset += (length + 3) & ~3


def decode(body: bytes) -> Entry | None:
    """The entry of one message; None when it is not about addresses and ports that we know.

    Both tuples come first and always look the same where there are ports and no zones, which is nearly all there is:
    those are read in one go.
    """
    for first, second, layout in _USUAL:
        if body.startswith(first) and body.startswith(second, 4 + layout.size):
            source, destination, number, source_port, destination_port = layout.unpack_from(body, 4)
            original = Direction(source, destination, source_port, destination_port)
            source, destination, _, source_port, destination_port = layout.unpack_from(body, layout.size + 8)
            return Entry(
                number, original, Direction(source, destination, source_port, destination_port), body
            )
    attributes = _attributes(body)
    try:
        number, original = _direction(attributes[_TUPLE_ORIG])
        _, reply = _direction(attributes[_TUPLE_REPLY])
    except KeyError:
        return None
    return Entry(number, original, reply, body)


def _naming(entry: Entry) -> bytes:
    """The attributes by which the kernel finds exactly this entry.

    It is looked up by where its answers come from, and held against its id, which is made of the original tuple: so
    a younger flow of the same client, which today's rules lead elsewhere, is not taken for this one.
    """
    attributes = _attributes(entry.message)
    name = _attribute(_TUPLE_REPLY | _NESTED, attributes[_TUPLE_REPLY])
    return name + b"".join(_attribute(kind, attributes[kind]) for kind in (_ZONE, _ID) if kind in attributes)


def _direction(data: bytes) -> tuple[int, Direction]:
    """Protocol number and direction of a tuple. Raises KeyError when something is missing."""
    parts = _attributes(data)
    addresses, ports = _attributes(parts[_IP]), _attributes(parts[_PROTO])
    source = addresses.get(_V4_SRC) or addresses[_V6_SRC]
    destination = addresses.get(_V4_DST) or addresses[_V6_DST]
    source_port, destination_port = ports.get(_SRC_PORT, b"\0\0"), ports.get(_DST_PORT, b"\0\0")
    direction = Direction(
        source, destination, _PORT.unpack(source_port)[0], _PORT.unpack(destination_port)[0]
    )
    return ports[_NUMBER][0], direction


def _delete_batch(netlink: socket.socket, batch: Sequence[Entry]) -> dict[int, int]:
    """Errno by position of those that were not deleted.

    Failures are answered in any case, success only where it was asked for: by the last.
    """
    parts = []
    for number, entry in enumerate(batch):
        family = socket.AF_INET if entry.version == 4 else socket.AF_INET6
        body = _FAMILY.pack(family, 0, 0) + _naming(entry)
        flags = _REQUEST | (_ACK if number == len(batch) - 1 else 0)
        parts.append(_HEADER.pack(_HEADER.size + len(body), _DELETE, flags, number, 0) + body)
    netlink.send(b"".join(parts))
    codes: dict[int, int] = {}
    answered = False
    while not answered:
        data = netlink.recv(_RECEIVE)
        offset = 0
        while offset < len(data):
            length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
            if kind == _ERROR:
                if code := -_ERRNO.unpack_from(data, offset + _HEADER.size)[0]:
                    codes[number] = code
                answered |= number == len(batch) - 1
            offset += (length + 3) & ~3
    return codes


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
