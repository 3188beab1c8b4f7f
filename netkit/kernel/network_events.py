"""What happens to the links, IPv4 routes, neighbours and forwarding entries of a namespace, told as it happens.

Called by whoever keeps such entries and wants to know at once when others change them. Tells of everybody's changes,
also the caller's own.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.kernel.netlink import attributes
from netkit.kernel.netns import Namespace
from netkit.kernel.route_listener import RouteListener

_NEWLINK, _DELLINK, _NEWROUTE, _DELROUTE, _NEWNEIGH, _DELNEIGH = 16, 17, 24, 25, 28, 29
_GROUPS: Final = 0x1 | 0x4 | 0x40
"""Links, neighbours (of bridges too), IPv4 routes."""

_LINK, _ROUTE, _NEIGHBOUR = struct.Struct("=BxHiII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=BxxxiHBB")
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_MAIN_TABLE: Final = 254


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link that came, changed (`there`) or went. `mtu` in bytes."""

    there: bool
    name: str
    up: bool
    mtu: int


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A route of the main table that came, was replaced (`there`) or went."""

    there: bool
    target: IPv4Network
    index: int
    via: IPv4Address | None
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class NeighbourEvent:
    """A neighbour, or with `forwarding` a tunnel's forwarding entry, that came, changed (`there`) or went.

    `address` is the neighbour's, or the tunnel end's; None for an entry that has none.
    """

    there: bool
    forwarding: bool
    index: int
    mac: str
    address: IPv4Address | None


Event = LinkEvent | RouteEvent | NeighbourEvent


class NetworkEvents(RouteListener[Event]):
    """A listening socket in one namespace; see `RouteListener`."""

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, _GROUPS, "ip monitor link neigh route")

    def event(self, kind: int, body: bytes) -> Event | None:
        """See `RouteListener`."""
        if kind in (_NEWLINK, _DELLINK):
            family, _, _, flags, _ = _LINK.unpack_from(body)
            contents = attributes(body, _LINK.size)
            # A bridge tells of its ports in its own family, also when one has left it but lives on.
            if family != socket.AF_UNSPEC:
                return None
            name = contents.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
            return LinkEvent(kind == _NEWLINK, name, bool(flags & 1), _number(contents, _IFLA_MTU))
        if kind in (_NEWROUTE, _DELROUTE):
            _, length, _, _, _, protocol, *_ = _ROUTE.unpack_from(body)
            contents = attributes(body, _ROUTE.size)
            if _number(contents, _RTA_TABLE) != _MAIN_TABLE:
                return None
            target = IPv4Network((contents.get(_RTA_DST, bytes(4)), length))
            return RouteEvent(
                kind == _NEWROUTE,
                target,
                _number(contents, _RTA_OIF),
                _ipv4(contents, _RTA_GATEWAY),
                protocol,
            )
        if kind in (_NEWNEIGH, _DELNEIGH):
            family, index, *_ = _NEIGHBOUR.unpack_from(body)
            contents = attributes(body, _NEIGHBOUR.size)
            mac = contents.get(_NDA_LLADDR, b"").hex(":")
            return NeighbourEvent(
                kind == _NEWNEIGH, family == socket.AF_BRIDGE, index, mac, _ipv4(contents, _NDA_DST)
            )
        return None


def _number(contents: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(contents.get(kind, b""), sys.byteorder)


def _ipv4(contents: dict[int, bytes], kind: int) -> IPv4Address | None:
    packed = contents.get(kind, b"")
    return IPv4Address(packed) if len(packed) == 4 else None
