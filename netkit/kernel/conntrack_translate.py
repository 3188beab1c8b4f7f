"""Connections that something else translates, handed over to connection tracking's own NAT while they go on.

Called by the proxy's IPVS mode before it takes its virtual servers away. IPVS translates by its own table and tells
connection tracking only what answers look like; once its virtual server is gone it drops the packets of a connection.
An entry made anew with the same tuples and with NAT goes on to translate as IPVS did, without it.

The kernel adds NAT to no entry that stands, so the old one is deleted and the new one made, in one send. A packet that
comes just between makes an entry of its own, which is found out (EEXIST) and done again.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final, Protocol

from netkit.kernel.conntrack import Conntrack, Direction, Entry
from netkit.kernel.errors import KernelError
from netkit.kernel.netlink import Attributes, Message, NetlinkSocket, attribute, attributes, nested
from netkit.kernel.netns import Namespace

_NETFILTER: Final = 12
_NEW, _DELETE = 1 << 8, 1 << 8 | 2
_EXCLUSIVE: Final = 0x200 | 0x400
_FAMILY = struct.Struct("=BBH")

# Numbers of nfnetlink_conntrack.h and nf_conntrack_common.h.
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _NAT_SOURCE, _TIMEOUT, _NAT_DESTINATION, _ZONE = (
    1,
    2,
    3,
    4,
    6,
    7,
    13,
    18,
)
_IP, _PROTO, _NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 1, 2, 3
_TCP, _TCP_STATE, _TCP_FLAGS = 1, 1, (4, 5)
_NAT_PROTO, _PORT_MIN, _PORT_MAX = 3, 1, 2
_SEEN_REPLY, _ASSURED, _CONFIRMED, _TRANSLATED = 0x2, 0x4, 0x8, 0x20
_LIBERAL: Final = 0x08
_ESTABLISHED, _ENDED = 3, (7, 8)
"""States of TCP. After TIME_WAIT and CLOSE nothing follows."""

_AT_ONCE: Final = 64
_TRIES: Final = 5


class Translations(Protocol):
    """Driver interface: `ConntrackTranslations` or a fake. Blocks; raises KernelError."""

    def untranslated(self, version: int, protocol: int) -> list[Entry]:
        """Entries whose answers come from elsewhere than was called, though conntrack translates nothing."""

    def translate(self, entries: Sequence[Entry]) -> None:
        """Let connection tracking translate these from now on, as their tuples say."""


class ConntrackTranslations:
    """Those of one namespace."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns

    def untranslated(self, version: int, protocol: int) -> list[Entry]:
        """See `Translations`. Connections that have ended are left out."""
        return [entry for entry in Conntrack(self._ns).dump(version, protocol) if _goes_on_by_others(entry)]

    def translate(self, entries: Sequence[Entry]) -> None:
        """See `Translations`. Raises KernelError for the first that was refused, after having tried all."""
        refused: list[KernelError] = []
        with NetlinkSocket(self._ns, _NETFILTER) as netlink:
            for start in range(0, len(entries), _AT_ONCE):
                try:
                    _translate(netlink, entries[start : start + _AT_ONCE])
                except KernelError as error:
                    refused.append(error)
        if refused:
            raise refused[0]


def _translate(netlink: NetlinkSocket, entries: Sequence[Entry]) -> None:
    """A second try is for all: to make anew what was made just now harms nobody."""
    for left in reversed(range(_TRIES)):
        try:
            netlink.apply(*(message for entry in entries for message in messages(entry)))
        except KernelError as error:
            if not left or error.errno != errno.EEXIST:
                raise
        else:
            return


def messages(entry: Entry) -> tuple[Message, ...]:
    """What makes an entry anew with NAT: whatever has one of its tuples is deleted first."""
    found = attributes(entry.message)
    zone = attribute(_ZONE, found[_ZONE]) if _ZONE in found else b""
    gone = tuple(
        _message(entry, _DELETE, 0, _tuple(_ORIGINAL, entry.protocol, direction) + zone, "-D").allowing(
            errno.ENOENT
        )
        for direction in (entry.original, entry.reply)
    )
    here, there = entry.original, entry.reply
    plain = Direction(here.destination, here.source, here.destination_port, here.source_port)
    status = _status(found) & (_SEEN_REPLY | _ASSURED) | _CONFIRMED
    contents = _tuple(_ORIGINAL, entry.protocol, here) + _tuple(_REPLY, entry.protocol, plain)
    contents += zone + attribute(_STATUS, struct.pack("!I", status)) + attribute(_TIMEOUT, found[_TIMEOUT])
    contents += _range(_NAT_DESTINATION, there.source, there.source_port)
    if (there.destination, there.destination_port) != (here.source, here.source_port):
        contents += _range(_NAT_SOURCE, there.destination, there.destination_port)
    if state := _state(entry, found):
        contents += state
    return *gone, _message(entry, _NEW, _EXCLUSIVE, contents, "-I")


def _goes_on_by_others(entry: Entry) -> bool:
    here, there = entry.original, entry.reply
    if (there.source, there.source_port) == (here.destination, here.destination_port):
        return False
    found = attributes(entry.message)
    if _status(found) & _TRANSLATED or _TIMEOUT not in found:
        return False
    return entry.protocol != socket.IPPROTO_TCP or _tcp_state(found) not in _ENDED


def _status(found: Attributes) -> int:
    return int.from_bytes(found.get(_STATUS, b""), "big")


def _tcp_state(found: Attributes) -> int:
    inner = attributes(attributes(found.get(_PROTOINFO, b"")).get(_TCP, b""))
    return inner[_TCP_STATE][0] if _TCP_STATE in inner else 0


def _state(entry: Entry, found: Attributes) -> bytes:
    """The connection's state. Where TCP's windows are nobody knows any more: any sequence number is right.

    A connection being made may be further on than when it was read, and would be out of order in an earlier state.
    """
    if _PROTOINFO not in found:
        return b""
    if entry.protocol != socket.IPPROTO_TCP:
        return nested(_PROTOINFO, found[_PROTOINFO])
    inner = attribute(_TCP_STATE, bytes([max(_tcp_state(found), _ESTABLISHED)]))
    inner += b"".join(attribute(kind, bytes([_LIBERAL, _LIBERAL])) for kind in _TCP_FLAGS)
    return nested(_PROTOINFO, nested(_TCP, inner))


def _tuple(kind: int, protocol: int, direction: Direction) -> bytes:
    first = 1 if len(direction.source) == 4 else 3
    addresses = attribute(first, direction.source) + attribute(first + 1, direction.destination)
    ports = attribute(_NUMBER, bytes([protocol]))
    ports += attribute(_SRC_PORT, direction.source_port.to_bytes(2, "big"))
    ports += attribute(_DST_PORT, direction.destination_port.to_bytes(2, "big"))
    return nested(kind, nested(_IP, addresses) + nested(_PROTO, ports))


def _range(kind: int, address: bytes, port: int) -> bytes:
    """To exactly this address and port."""
    lowest, highest = (1, 2) if len(address) == 4 else (4, 5)
    number = port.to_bytes(2, "big")
    ports = nested(_NAT_PROTO, attribute(_PORT_MIN, number) + attribute(_PORT_MAX, number))
    return nested(kind, attribute(lowest, address) + attribute(highest, address) + ports)


def _message(entry: Entry, kind: int, flags: int, contents: bytes, option: str) -> Message:
    family = socket.AF_INET if entry.version == 4 else socket.AF_INET6
    return Message(kind, flags, _FAMILY.pack(family, 0, 0) + contents, f"conntrack {option} {entry}")
