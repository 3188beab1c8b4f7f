"""rtnetlink requests of both address families for the rows' network. Pure encoders, sent by `Rtnl`."""

from __future__ import annotations

import socket
import struct

from netkit.kernel.rtnl import Message
from netkit.proxy.addresses import Address, Network

_NEWADDR, _NEWROUTE, _DELROUTE, _NEWNEIGH, _NEWRULE, _DELRULE = 20, 24, 25, 28, 32, 33
_REPLACE, _CREATE = 0x100, 0x400
_NODAD, _NO_PREFIX_ROUTE = 0x02, 0x200
_PERMANENT = 0x80
MAIN, LOCAL = 254, 255
_SCOPE_HOST, _SCOPE_LINK = 254, 253
_UNICAST, _LOCAL = 1, 2
_ONLINK = 4
_TO_TABLE = 1
_LOOPBACK = 1
"""The index of lo in every namespace."""


def address(owner: Address, index: int, *, chosen: bool = True) -> Message:
    """Give a link an address. One that is not `chosen` is never taken as a source unless somebody asks for it."""
    scope = 0 if chosen or owner.version == 6 else _SCOPE_HOST
    length = owner.max_prefixlen
    body = struct.pack("=BBBBI", _family(owner), length, _NODAD, scope, index)
    body += _attribute(2, owner.packed) + _attribute(1, owner.packed)
    # No route comes with the address: it would stand before that of local addresses where rules are turned round.
    body += _attribute(8, struct.pack("=I", _NODAD | _NO_PREFIX_ROUTE))
    return Message(_NEWADDR, _CREATE | _REPLACE, body, f"ip address replace {owner}/{length} dev {index}")


def route(
    target: Network | Address,
    index: int,
    *,
    via: Address | None = None,
    source: Address | None = None,
    table: int = MAIN,
) -> Message:
    """Lead to `target` through a link."""
    scope = _SCOPE_LINK if via is None and _version(target) == 4 else 0
    body, what = _route(target, index, scope, _UNICAST, _ONLINK if via is not None else 0, table)
    if via is not None:
        body += _attribute(5, via.packed)
        what += f" via {via} onlink"
    if source is not None:
        body += _attribute(7, source.packed)
    return Message(_NEWROUTE, _CREATE | _REPLACE, body, f"ip route replace {what}")


def no_route(target: Network | Address, index: int, table: int = MAIN) -> Message:
    """Take back what `route` made; fine where there is none."""
    body, what = _route(target, index, 255 if _version(target) == 4 else 0, _UNICAST, table=table)
    return Message(_DELROUTE, 0, body, f"ip route delete {what}").allowing(3)


def local_route(target: Network) -> Message:
    """Take every address of `target` for one's own."""
    body, what = _route(target, _LOOPBACK, _SCOPE_HOST if target.version == 4 else 0, _LOCAL, table=LOCAL)
    return Message(_NEWROUTE, _CREATE | _REPLACE, body, f"ip route replace local {what} table local")


def rule(version: int, priority: int, table: int, *, interface: str = "") -> Message:
    """Look routes up in a table: those of all packets, or of those from one interface (lo: what is sent from here)."""
    body, what = _rule(version, priority, table)
    if interface:
        body += _attribute(3, interface.encode() + b"\0")
        what += f" iif {interface}"
    return Message(_NEWRULE, _CREATE, body, f"ip -{version} rule add {what}")


def no_rule(version: int, priority: int, table: int) -> Message:
    """Take a rule away."""
    body, what = _rule(version, priority, table)
    return Message(_DELRULE, 0, body, f"ip -{version} rule delete {what}")


def neighbour(owner: Address, mac: str, index: int) -> Message:
    """A permanent neighbour."""
    body = struct.pack("=BxxxiHBB", _family(owner), index, _PERMANENT, 0, 0)
    body += _attribute(1, owner.packed) + _attribute(2, bytes.fromhex(mac.replace(":", "")))
    return Message(
        _NEWNEIGH, _CREATE | _REPLACE, body, f"ip neighbour replace {owner} lladdr {mac} dev {index}"
    )


def _route(
    target: Network | Address, index: int, scope: int, kind: int, flags: int = 0, table: int = MAIN
) -> tuple[bytes, str]:
    packed, length = _target(target)
    family = socket.AF_INET if _version(target) == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, length, 0, 0, table, 4, scope, kind, flags)
    if length:
        body += _attribute(1, packed)
    return body + _attribute(4, struct.pack("=I", index)), f"{target} dev {index}"


def _rule(version: int, priority: int, table: int) -> tuple[bytes, str]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, table, 0, 0, _TO_TABLE, 0)
    return body + _attribute(6, struct.pack("=I", priority)), f"priority {priority} lookup {table}"


def _target(target: Network | Address) -> tuple[bytes, int]:
    if hasattr(target, "prefixlen"):
        return target.network_address.packed, target.prefixlen
    return target.packed, target.max_prefixlen


def _version(target: Network | Address) -> int:
    return int(target.version)


def _family(owner: Address) -> int:
    return socket.AF_INET if owner.version == 4 else socket.AF_INET6


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + b"\0" * (-length % 4)
