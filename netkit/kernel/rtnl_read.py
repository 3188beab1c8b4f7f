"""Reading links, addresses, routes, neighbours and forwarding entries of one namespace as plain values.

Called when something is adopted, compared or shown; never on a hot path (pyroute2 decodes, about 0.3 ms an
object, and its import costs 0.2 s once, which is why it is imported inside). Changes nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Any, Final

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace

_GETLINK, _GETADDR, _GETROUTE, _GETNEIGH = 18, 22, 26, 30
_DUMP_REQUEST: Final = 0x301
_DONE, _ERROR = 3, 2
_MAIN_TABLE: Final = 254
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
    index.
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
    vxlan: Vxlan | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a link."""

    index: int
    address: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast IPv4 route of the main table."""

    target: IPv4Network
    index: int
    via: IPv4Address | None
    protocol: int
    onlink: bool


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
    return {
        link.name: link for link in map(_link, _dump(ns, _GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)))
    }


def addresses(ns: Namespace, index: int = 0) -> list[Address]:
    """IPv4 and IPv6 addresses, of one link if `index` is given."""
    found = []
    for message in _dump(ns, _GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        kind = IPv4Interface if message["family"] == socket.AF_INET else IPv6Interface
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append(Address(message["index"], kind(f"{text}/{message['prefixlen']}")))
    return [address for address in found if index in (0, address.index)]


def routes(ns: Namespace, index: int = 0) -> list[Route]:
    """Unicast IPv4 routes of the main table, of one link if `index` is given. Multipath routes have index 0."""
    found = []
    for message in _dump(ns, _GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        if message.get_attr("RTA_TABLE") != _MAIN_TABLE or message["type"] != 1:
            continue
        target = IPv4Network(f"{message.get_attr('RTA_DST') or '0.0.0.0'}/{message['dst_len']}")
        via = message.get_attr("RTA_GATEWAY")
        found.append(
            Route(
                target,
                message.get_attr("RTA_OIF") or 0,
                IPv4Address(via) if via else None,
                message["proto"],
                bool(message["flags"] & 4),
            )
        )
    return [route for route in found if index in (0, route.index)]


def neighbours(ns: Namespace, index: int = 0) -> list[Neighbour]:
    """IPv4 neighbours, of one link if `index` is given."""
    found = []
    for message in _dump(ns, _GETNEIGH, struct.pack("=BxxxiHBB", socket.AF_INET, 0, 0, 0, 0)):
        mac = message.get_attr("NDA_LLADDR") or ""
        address = IPv4Address(message.get_attr("NDA_DST"))
        found.append(Neighbour(message["ifindex"], address, mac, message["state"]))
    return [neighbour for neighbour in found if index in (0, neighbour.index)]


def fdb(ns: Namespace, index: int = 0) -> list[FdbEntry]:
    """Bridge and VXLAN forwarding entries, of one link if `index` is given."""
    found = []
    for message in _dump(ns, _GETNEIGH, struct.pack("=BxxxiHBB", socket.AF_BRIDGE, 0, 0, 0, 0)):
        remote = message.get_attr("NDA_DST")
        found.append(
            FdbEntry(
                message["ifindex"],
                message.get_attr("NDA_LLADDR") or "",
                IPv4Address(remote) if remote else None,
                message["state"],
            )
        )
    return [entry for entry in found if index in (0, entry.index)]


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    hairpin = False
    if port is not None and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge":
        hairpin = bool(port.get_attr("IFLA_BRPORT_MODE"))
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & 1),
        master=message.get_attr("IFLA_MASTER") or 0,
        peer=(message.get_attr("IFLA_LINK") or 0) if kind == "veth" else 0,
        hairpin=hairpin,
        vxlan=_vxlan(data) if kind == "vxlan" and data is not None else None,
    )


def _vxlan(data: Any) -> Vxlan:
    local = data.get_attr("IFLA_VXLAN_LOCAL")
    return Vxlan(
        vni=data.get_attr("IFLA_VXLAN_ID") or 0,
        local=IPv4Address(local) if local else None,
        port=data.get_attr("IFLA_VXLAN_PORT") or 0,
        device=data.get_attr("IFLA_VXLAN_LINK") or 0,
        learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
    )


def _dump(ns: Namespace, kind: int, body: bytes) -> Iterator[Any]:
    """All messages of one dump, decoded by pyroute2; the socket is ours, since its own ones fork or run a
    loop.
    """
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    marshal = MarshalRtnl()
    request = struct.pack("=IHHII", 16 + len(body), kind, _DUMP_REQUEST, 1, 0) + body
    with netns.socket_in(ns, socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as dump:
        dump.bind((0, 0))
        dump.send(request)
        while True:
            data = dump.recv(1 << 16)
            _, answer, *_ = struct.unpack_from("=IHHII", data)
            if answer == _ERROR:
                raise KernelError("netlink dump", ns.name, -struct.unpack_from("=i", data, 16)[0])
            if answer == _DONE:
                return
            for message in marshal.parse(data):
                if message["header"]["type"] == _DONE:
                    return
                yield message
