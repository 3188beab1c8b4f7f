"""Reading links, addresses, routes, neighbours and forwarding entries of one namespace as plain values.

Called when something is adopted, compared or shown, which is at every start of a cluster and of an agent. It decodes
the few attributes it needs itself: loading pyroute2 for them cost 0.25 s of each `up` and 13 MB. The tests hold its
answers against pyroute2's. Changes nothing.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Final

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace

_GETLINK, _GETADDR, _GETROUTE, _GETNEIGH = 18, 22, 26, 30
_DUMP_REQUEST: Final = 0x301
_DONE, _ERROR = 3, 2
_MAIN_TABLE: Final = 254
_UNICAST, _UNREACHABLE = 1, 7
_TYPE_MASK: Final = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")

# Attribute numbers of the kernel's headers (if_link.h, if_addr.h, rtnetlink.h, neighbour.h).
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_OPERSTATE, _OPERATIONAL = 16, 6
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BRPORT_STATE, _BRPORT_HAIRPIN, _FORWARDING = 1, 4, 3
_VXLAN_ID, _VXLAN_LINK, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 3, 4, 7, 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_NDA_DST, _NDA_LLADDR = 1, 2

Attributes = dict[int, bytes]
BIRD: Final = 12
"""`Route.protocol` of the routes that a BIRD daemon makes."""

PERMANENT: Final = 0x80
"""`Neighbour.state` of an entry that never expires."""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """What a VXLAN device is set to. `device` is the index of its underlay link, 0 for none."""

    vni: int
    local: IPv4Address | None
    port: int
    device: int
    learning: bool


@dataclass(frozen=True, slots=True)
class Link:
    """One link. `kind` is "" for hardware, `master` the bridge's index (0: none), `peer` a veth's other
    index. `forwards`: it sends and receives, which it begins to do some time after it was set up; it makes no link
    unequal to what it was before.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: int = 0
    peer: int = 0
    hairpin: bool = False
    forwards: bool = field(default=False, compare=False)
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a link."""

    index: int
    address: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast IPv4 route of the main table. `hops` are a multipath route's next hops: (via, index)."""

    target: IPv4Network
    index: int
    via: IPv4Address | None
    protocol: int
    onlink: bool
    metric: int = 0
    hops: tuple[tuple[IPv4Address | None, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One ARP entry; `state` in the kernel's NUD bits, `mac` "" while unknown."""

    index: int
    address: IPv4Address
    mac: str
    state: int


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One forwarding entry. `remote` is the tunnel end of a VXLAN device's own entries, None for bridge
    ports'.
    """

    index: int
    mac: str
    remote: IPv4Address | None
    state: int


def links(ns: Namespace) -> dict[str, Link]:
    """All links by name."""
    found = (link_of(body) for body in _dump(ns, _GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
    return {link.name: link for link in found}


def addresses(ns: Namespace, index: int = 0) -> list[Address]:
    """IPv4 and IPv6 addresses, of one link if `index` is given."""
    found = []
    for body in _dump(ns, _GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, length, _, _, link = _ADDRESS.unpack_from(body)
        attributes = _attributes(body, _ADDRESS.size)
        raw = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
        kind = IPv4Interface if family == socket.AF_INET else IPv6Interface
        found.append(Address(link, kind((raw, length))))
    return [address for address in found if index in (0, address.index)]


def routes(ns: Namespace, index: int = 0) -> list[Route]:
    """Unicast IPv4 routes of the main table, of one link if `index` is given. Multipath routes have index 0."""
    found = []
    for body in _dump(ns, _GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, _, protocol, _, kind, flags = _ROUTE.unpack_from(body)
        attributes = _attributes(body, _ROUTE.size)
        if _number(attributes, _RTA_TABLE) != _MAIN_TABLE or kind != _UNICAST:
            continue
        target = IPv4Network((attributes.get(_RTA_DST, bytes(4)), length))
        device = _number(attributes, _RTA_OIF)
        metric, hops = _number(attributes, _RTA_PRIORITY), tuple(_hops(attributes.get(_RTA_MULTIPATH, b"")))
        via = _ipv4(attributes, _RTA_GATEWAY)
        found.append(Route(target, device, via, protocol, bool(flags & 4), metric, hops))
    return [route for route in found if index in (0, route.index)]


def unreachable(ns: Namespace) -> list[IPv4Network]:
    """Targets of the unreachable routes of the main table."""
    found = []
    for body in _dump(ns, _GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        _, length, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
        attributes = _attributes(body, _ROUTE.size)
        if kind == _UNREACHABLE and _number(attributes, _RTA_TABLE) == _MAIN_TABLE:
            found.append(IPv4Network((attributes.get(_RTA_DST, bytes(4)), length)))
    return found


def _hops(data: bytes) -> Iterator[tuple[IPv4Address | None, int]]:
    """The next hops of a multipath route: each is a header (length, flags, weight, link) with attributes behind."""
    offset = 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        if length < 8:
            break
        yield _ipv4(_attributes(data[offset : offset + length], 8), _RTA_GATEWAY), index
        offset += (length + 3) & ~3


def neighbours(ns: Namespace, index: int = 0) -> list[Neighbour]:
    """IPv4 neighbours, of one link if `index` is given."""
    found = []
    for body in _dump(ns, _GETNEIGH, _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, link, state, _, _ = _NEIGHBOUR.unpack_from(body)
        attributes = _attributes(body, _NEIGHBOUR.size)
        found.append(Neighbour(link, IPv4Address(attributes[_NDA_DST]), _mac(attributes, _NDA_LLADDR), state))
    return [neighbour for neighbour in found if index in (0, neighbour.index)]


def fdb(ns: Namespace, index: int = 0) -> list[FdbEntry]:
    """Bridge and VXLAN forwarding entries, of one link if `index` is given."""
    found = []
    for body in _dump(ns, _GETNEIGH, _NEIGHBOUR.pack(socket.AF_BRIDGE, 0, 0, 0, 0)):
        _, link, state, _, _ = _NEIGHBOUR.unpack_from(body)
        attributes = _attributes(body, _NEIGHBOUR.size)
        found.append(FdbEntry(link, _mac(attributes, _NDA_LLADDR), _ipv4(attributes, _NDA_DST), state))
    return [entry for entry in found if index in (0, entry.index)]


def link_of(body: bytes) -> Link:
    """The link that a message about links tells of."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body, _LINK.size)
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = _text(info, _INFO_KIND)
    hairpin, forwards = False, _number(attributes, _IFLA_OPERSTATE) == _OPERATIONAL
    if _text(info, _INFO_SLAVE_KIND) == "bridge":
        port = _attributes(info.get(_INFO_SLAVE_DATA, b""))
        hairpin = bool(_number(port, _BRPORT_HAIRPIN))
        forwards = forwards and _number(port, _BRPORT_STATE) == _FORWARDING
    return Link(
        index=index,
        name=_text(attributes, _IFLA_IFNAME),
        kind=kind,
        mac=_mac(attributes, _IFLA_ADDRESS),
        mtu=_number(attributes, _IFLA_MTU),
        up=bool(flags & 1),
        master=_number(attributes, _IFLA_MASTER),
        peer=_number(attributes, _IFLA_LINK) if kind == "veth" else 0,
        hairpin=hairpin,
        forwards=forwards,
        vxlan=_vxlan(_attributes(info[_INFO_DATA])) if kind == "vxlan" and _INFO_DATA in info else None,
    )


def _vxlan(data: Attributes) -> Vxlan:
    return Vxlan(
        vni=_number(data, _VXLAN_ID),
        local=_ipv4(data, _VXLAN_LOCAL),
        port=int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
        device=_number(data, _VXLAN_LINK),
        learning=bool(_number(data, _VXLAN_LEARNING)),
    )


def _attributes(data: bytes, offset: int = 0) -> Attributes:
    """The attributes of a message's body behind its fixed part, or of a nest; of equal ones the last."""
    found: Attributes = {}
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _number(attributes: Attributes, kind: int) -> int:
    """An integer of any width in the machine's byte order, 0 when absent."""
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)


def _text(attributes: Attributes, kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode()


def _mac(attributes: Attributes, kind: int) -> str:
    return attributes.get(kind, b"").hex(":")


def _ipv4(attributes: Attributes, kind: int) -> IPv4Address | None:
    raw = attributes.get(kind, b"")
    return IPv4Address(raw) if len(raw) == 4 else None


def _dump(ns: Namespace, kind: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all messages of one dump."""
    request = _HEADER.pack(_HEADER.size + len(body), kind, _DUMP_REQUEST, 1, 0) + body
    with netns.socket_in(ns, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as dump:
        dump.bind((0, 0))
        dump.send(request)
        while True:
            data = dump.recv(1 << 16)
            offset = 0
            while offset < len(data):
                length, answer, *_ = _HEADER.unpack_from(data, offset)
                message = data[offset + _HEADER.size : offset + length]
                if answer == _ERROR:
                    raise KernelError("netlink dump", ns.name, -struct.unpack_from("=i", message)[0])
                if answer == _DONE:
                    return
                yield message
                offset += (length + 3) & ~3
