"""Changing links, addresses, routes, neighbours and forwarding entries by rtnetlink, many in one send.

Called by `netkit.fabric` and `netkit.podnet`. The functions that return a `Message` are pure encoders; `Rtnl`
sends them in one namespace. A `Message` prints as the ip(8) command it stands for, which is what errors and
fakes show. Only what the sandbox and fabric need is encoded here; reading is in `rtnl_read`.

Messages name links by name or by index. A link made in a batch can be used by name later in the same batch,
but not as a master or as the device of an address, route or neighbour: those take an index
(`Rtnl.link_index`).
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Final, Protocol

from netkit.kernel.errors import KernelError
from netkit.kernel.netlink import Message as Message
from netkit.kernel.netlink import NetlinkSocket
from netkit.kernel.netlink import attribute as _attr
from netkit.kernel.netlink import text as _text
from netkit.kernel.netlink import u32 as _u32
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl_read import Link, link_of

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE = 24, 25
_NEWNEIGH, _DELNEIGH = 28, 29
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_NESTED: Final = 0x8000
_UP: Final = 1
_ROUTE_PROTOCOL: Final = 0
_STATIC: Final = 4
_UNREACHABLE: Final = 7

_LINK = struct.Struct("=BxHiII")


class Netlink(Protocol):
    """What changes one namespace: `Rtnl`, or a fake that can be printed (`fake.FakeRtnl`)."""

    def apply(self, *messages: Message) -> None: ...

    def link_index(self, name: str) -> int | None: ...


class Rtnl(NetlinkSocket):
    """A netlink socket of one namespace; usable from any thread. Close it, or use it in a `with`."""

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, _ROUTE_PROTOCOL)

    def link_index(self, name: str) -> int | None:
        """Index of the link, None when there is none of that name (about 20 us)."""
        answer = self._ask_for(name)
        if answer is None:
            return None
        index: int = struct.unpack_from("=i", answer, 4)[0]
        return index

    def link(self, name: str) -> Link | None:
        """All of the link, None when there is none of that name."""
        answer = self._ask_for(name)
        return link_of(answer) if answer is not None else None

    def _ask_for(self, name: str) -> bytes | None:
        request = Message(_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(3, name), f"ip link show {name}")
        try:
            return self.ask(request)
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return None
            raise


def mac_of(address: IPv4Address, prefix: str = "0a:58") -> str:
    """The hardware address CNI plug-ins give to an IPv4 address: 0a:58 and its four bytes."""
    return prefix + "".join(f":{byte:02x}" for byte in address.packed)


def link_up(link: str | int, *, mtu: int = 0) -> Message:
    """Set a link up, and its MTU (bytes) if given."""
    body, name = _link_ref(link, _UP, _UP)
    what = f"ip link set {name} up" + (f" mtu {mtu}" if mtu else "")
    return Message(_SETLINK, 0, body + (_u32(4, mtu) if mtu else b""), what)


def link_down(link: str | int) -> Message:
    """Set a link down."""
    body, name = _link_ref(link, 0, _UP)
    return Message(_SETLINK, 0, body, f"ip link set {name} down")


def link_delete(link: str | int) -> Message:
    """Delete a link (and a veth's other end); 13-20 ms, so prefer to let a namespace take its links with it."""
    body, name = _link_ref(link)
    return Message(_DELLINK, 0, body, f"ip link delete {name}")


def link_master(link: str | int, master: int) -> Message:
    """Make a link a port of the bridge with index `master`; 0 takes it out."""
    body, name = _link_ref(link)
    return Message(_SETLINK, 0, body + _u32(10, master), f"ip link set {name} master {master}")


def link_address(link: str | int, mac: str) -> Message:
    """Set a link's hardware address."""
    body, name = _link_ref(link)
    return Message(_SETLINK, 0, body + _attr(1, _mac(mac)), f"ip link set {name} address {mac}")


def no_ipv6_addresses(link: str | int) -> Message:
    """Keep the kernel from giving the link an IPv6 address when it comes up (`addrgenmode none`)."""
    body, name = _link_ref(link)
    family = _attr(26 | _NESTED, _attr(10 | _NESTED, _attr(8, b"\x01")))
    return Message(_SETLINK, 0, body + family, f"ip link set {name} addrgenmode none")


def veth(
    name: str, peer: str, peer_ns: Namespace | None = None, *, mac: str = "", peer_mac: str = "", mtu: int =
    1500, master: int = 0, up: bool = True,
) -> Message:  # fmt: skip
    """A veth pair: `name` here, `peer` in `peer_ns` (None: here too). `master` is the index of a bridge for
    `name`.

    The peer is always down: the kernel refuses one that is created up.
    """
    other = _LINK.pack(0, 0, 0, 0, 0) + _text(3, peer) + _u32(4, mtu)
    if peer_mac:
        other += _attr(1, _mac(peer_mac))
    if peer_ns is not None:
        other += _u32(28, peer_ns.fd)
    options = _u32(4, mtu) + (_attr(1, _mac(mac)) if mac else b"") + (_u32(10, master) if master else b"")
    what = f"ip link add {name} mtu {mtu} type veth peer name {peer}"
    if peer_ns is not None:
        what += f" netns {peer_ns.name or 'HOST'}"
    return _new_link(name, "veth", _attr(1, other), options, up, what)


def bridge(name: str, *, mac: str = "", mtu: int = 1500, ageing: int | None = None) -> Message:
    """A bridge, up. A fixed `mac` keeps it from changing with its ports. `ageing` in seconds."""
    options = _u32(4, mtu) + (_attr(1, _mac(mac)) if mac else b"")
    data = _u32(4, ageing * 100) if ageing is not None else b""
    return _new_link(name, "bridge", data, options, True, f"ip link add {name} mtu {mtu} type bridge")


def vxlan(
    name: str, *, vni: int, local: IPv4Address, device: int, port: int = 8472, mac: str = "", mtu: int = 1450
) -> Message:
    """A VXLAN device, up, without learning (its FDB is ours). `device` is the index of the underlay link."""
    data = _u32(1, vni) + _attr(4, local.packed) + _u32(3, device) + _attr(7, b"\x00")
    data += _attr(15, struct.pack("!H", port))
    options = _u32(4, mtu) + (_attr(1, _mac(mac)) if mac else b"")
    what = f"ip link add {name} mtu {mtu} type vxlan id {vni} local {local} dstport {port} nolearning"
    return _new_link(name, "vxlan", data, options, True, what)


def plain_link(name: str, kind: str, *, up: bool = False) -> Message:
    """A link of a kind that needs no options (`dummy`, `ifb`, `wireguard`, ...)."""
    return _new_link(name, kind, b"", b"", up, f"ip link add {name} type {kind}")


def hairpin(name: str) -> Message:
    """Let a bridge port send frames back where they came from: a pod that reaches itself through its Service."""
    slave = _text(4, "bridge") + _attr(5 | _NESTED, _attr(4, b"\x01"))
    body = _link_ref(name)[0] + _attr(18 | _NESTED, slave)
    return Message(_NEWLINK, 0, body, f"ip link set {name} type bridge_slave hairpin on")


def bridge_calls_iptables(name: str, *, on: bool = True) -> Message:
    """Have a bridge show the IPv4 packets that cross it to its namespace's iptables, or not (`nf_call_iptables`)."""
    info = _text(1, "bridge") + _attr(2 | _NESTED, _attr(36, bytes([on])))
    body = _link_ref(name)[0] + _attr(18 | _NESTED, info)
    return Message(_NEWLINK, 0, body, f"ip link set {name} type bridge nf_call_iptables {int(on)}")


def address_add(address: IPv4Interface | IPv6Interface, index: int) -> Message:
    """Give the link an address; fine when it has it already."""
    body, what = _address(address, index)
    return Message(_NEWADDR, _CREATE | _REPLACE, body, f"ip address replace {what}")


def address_delete(address: IPv4Interface | IPv6Interface, index: int) -> Message:
    """Take an address from the link; fine when it is gone."""
    body, what = _address(address, index)
    return Message(_DELADDR, 0, body, f"ip address delete {what}", frozenset({errno.EADDRNOTAVAIL}))


def route_replace(
    target: IPv4Network, index: int, *, via: IPv4Address | None = None, onlink: bool = False, mtu: int = 0
) -> Message:
    """Make the route to `target` this one. `onlink`: do not ask whether `via` is reachable through the link."""
    body, what = _route(target, index, via, onlink)
    if mtu:
        body += _attr(8 | _NESTED, _u32(2, mtu))
    return Message(_NEWROUTE, _CREATE | _REPLACE, body, f"ip route replace {what}")


def route_delete(target: IPv4Network, index: int) -> Message:
    """Remove the route to `target` through the link; fine when it is gone."""
    # Scope "nowhere" and protocol 0 match a route of any scope, whoever made it.
    body, what = _route(target, index, None, False, scope=255, protocol=0)
    return Message(_DELROUTE, 0, body, f"ip route delete {what}", frozenset({errno.ESRCH}))


def unreachable_replace(target: IPv4Network) -> Message:
    """Answer "host unreachable" to packets for `target` that no longer route is for, instead of passing them on."""
    body, what = _unreachable(target, _STATIC)
    return Message(_NEWROUTE, _CREATE | _REPLACE, body, f"ip route replace {what}")


def unreachable_delete(target: IPv4Network) -> Message:
    """Remove the unreachable route to `target`; fine when it is gone."""
    body, what = _unreachable(target, 0)
    return Message(_DELROUTE, 0, body, f"ip route delete {what}", frozenset({errno.ESRCH}))


def neighbour_replace(address: IPv4Address, mac: str, index: int) -> Message:
    """A permanent neighbour; such entries do not count against the kernel's neighbour table limit."""
    body = struct.pack("=BxxxiHBB", socket.AF_INET, index, 0x80, 0, 0) + _attr(1, address.packed)
    what = f"ip neighbour replace {address} lladdr {mac} dev {index} nud permanent"
    return Message(_NEWNEIGH, _CREATE | _REPLACE, body + _attr(2, _mac(mac)), what)


def neighbour_delete(address: IPv4Address, index: int) -> Message:
    """Remove a neighbour; fine when it is gone."""
    body = struct.pack("=BxxxiHBB", socket.AF_INET, index, 0, 0, 0) + _attr(1, address.packed)
    return Message(
        _DELNEIGH,
        0,
        body,
        f"ip neighbour delete {address} dev {index}",
        frozenset({errno.ENOENT, errno.ESRCH}),
    )


def fdb_replace(mac: str, remote: IPv4Address, index: int) -> Message:
    """Send frames for `mac` to the tunnel end `remote`; replaces where they went before."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, 0xC0, 2, 0) + _attr(2, _mac(mac))
    what = f"bridge fdb replace {mac} dev {index} dst {remote} self permanent"
    return Message(_NEWNEIGH, _CREATE | _REPLACE, body + _attr(1, remote.packed), what)


def fdb_delete(mac: str, index: int) -> Message:
    """Remove a tunnel forwarding entry; fine when it is gone."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, 0, 2, 0) + _attr(2, _mac(mac))
    return Message(_DELNEIGH, 0, body, f"bridge fdb delete {mac} dev {index} self", frozenset({errno.ENOENT}))


def _new_link(name: str, kind: str, data: bytes, options: bytes, up: bool, what: str) -> Message:
    info = _text(1, kind) + (_attr(2 | _NESTED, data) if data else b"")
    flag = _UP if up else 0
    body = _LINK.pack(0, 0, 0, flag, flag) + _text(3, name) + options + _attr(18 | _NESTED, info)
    return Message(_NEWLINK, _CREATE | _EXCL, body, what)


def _link_ref(link: str | int, flags: int = 0, change: int = 0) -> tuple[bytes, str]:
    if isinstance(link, int):
        return _LINK.pack(0, 0, link, flags, change), f"#{link}"
    return _LINK.pack(0, 0, 0, flags, change) + _text(3, link), link


def _address(address: IPv4Interface | IPv6Interface, index: int) -> tuple[bytes, str]:
    packed = address.ip.packed
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, address.network.prefixlen, 0, 0, index)
    body += _attr(2, packed) + _attr(1, packed)
    if address.version == 4 and address.network.prefixlen < 31:
        body += _attr(4, address.network.broadcast_address.packed)
    return body, f"{address} dev {index}"


def _route(
    target: IPv4Network,
    index: int,
    via: IPv4Address | None,
    onlink: bool,
    scope: int | None = None,
    protocol: int = _STATIC,
) -> tuple[bytes, str]:
    if scope is None:
        scope = 0 if via is not None else 253
    body = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, target.prefixlen, 0, 0, 254, protocol, scope, 1, 4 if onlink else 0
    )
    what = "default" if target.prefixlen == 0 else str(target)
    if target.prefixlen:
        body += _attr(1, target.network_address.packed)
    body += _u32(4, index)
    if via is not None:
        body += _attr(5, via.packed)
        what += f" via {via}"
    return body, f"{what} dev {index}" + (" onlink" if onlink else "")


def _unreachable(target: IPv4Network, protocol: int) -> tuple[bytes, str]:
    body = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, target.prefixlen, 0, 0, 254, protocol, 0, _UNREACHABLE, 0
    )
    return body + _attr(1, target.network_address.packed), f"unreachable {target}"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
