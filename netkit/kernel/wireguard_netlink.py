"""WireGuard as the kernel has it: the device is a link, its keys and peers are set by generic netlink.

Messages and attributes are those of `linux/wireguard.h`. A peer with many allowed addresses is told of in several
parts of a dump.
"""

from __future__ import annotations

import base64
import errno
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.kernel import generic_netlink, rtnl, rtnl_read
from netkit.kernel.errors import Unsupported
from netkit.kernel.generic_netlink import COMMAND
from netkit.kernel.netlink import (
    Attributes,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    each_attribute,
    nested,
    text,
    u16,
    u32,
)
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.wireguard_values import GREETING_SECONDS, KERNEL, Change, Peer, Program, State

FAMILY: Final = "wireguard"
_GET_DEVICE, _SET_DEVICE = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _PEERS = 2, 3, 4, 6, 8
_P_PUBLIC_KEY, _P_FLAGS, _P_ENDPOINT, _P_KEEPALIVE, _P_HANDSHAKE, _P_ALLOWED = 1, 3, 4, 5, 6, 9
_A_FAMILY, _A_ADDRESS, _A_MASK = 1, 2, 3
_REMOVE_ME, _REPLACE_ALLOWED, _UPDATE_ONLY = 1, 2, 4
_ENDPOINT = struct.Struct("=H2s4s8x")
_PEERS_AT_ONCE: Final = 200
"""A nest of peers must not be larger than the 64 KiB an attribute can be."""


class KernelWireGuard:
    """`device` in `ns`. Raises Unsupported where the kernel has no WireGuard."""

    def __init__(self, ns: Namespace, device: str) -> None:
        self._ns = ns
        self._device = device

    @property
    def implementation(self) -> str:
        return KERNEL

    @property
    def program(self) -> Program | None:
        return None

    def ensure(self) -> bool:
        link = rtnl_read.links(self._ns).get(self._device)
        if link is not None and link.kind == FAMILY:
            if not link.up:
                with Rtnl(self._ns) as links:
                    links.apply(rtnl.link_up(self._device))
            return False
        with Rtnl(self._ns) as links:
            if link is not None:
                links.apply(rtnl.link_delete(self._device).allowing(errno.ENODEV))
            links.apply(rtnl.plain_link(self._device, FAMILY, up=True))
        return True

    def apply(self, change: Change) -> None:
        requests = set_messages(self._device, change) if change.settings else []
        if change.greeted:
            requests += keepalive_messages(self._device, change.greeted, GREETING_SECONDS)
            requests += keepalive_messages(self._device, change.greeted)
        with _Socket(self._ns) as sock:
            sock.apply(*(sock.addressed(request) for request in requests))

    def read(self) -> State:
        what = f"wg show {self._device}"
        request = Message(0, 0, COMMAND.pack(_GET_DEVICE, 1, 0) + text(_IFNAME, self._device), what)
        with _Socket(self._ns) as sock:
            return state_in(sock.dump(sock.addressed(request)))

    def remove(self) -> bool:
        link = rtnl_read.links(self._ns).get(self._device)
        if link is None or link.kind != FAMILY:
            return False
        with Rtnl(self._ns) as links:
            links.apply(rtnl.link_delete(self._device).allowing(errno.ENODEV))
        return True

    def close(self) -> None:
        """Nothing is open between requests."""


def available(ns: Namespace) -> bool:
    """Whether this kernel has WireGuard; asking loads its module, where that may be. Raises KernelError."""
    with NetlinkSocket(ns, generic_netlink.PROTOCOL) as sock:
        return generic_netlink.family(sock, FAMILY) is not None


class _Socket(NetlinkSocket):
    """A netlink socket that knows the number this kernel gave to WireGuard."""

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns, generic_netlink.PROTOCOL)
        number = generic_netlink.family(self, FAMILY)
        if number is None:
            self.close()
            raise Unsupported(FAMILY, ns.name, errno.ENOENT, "the kernel has no module wireguard")
        self._family = number

    def addressed(self, message: Message) -> Message:
        return Message(self._family, message.flags, message.body, message.what, message.allowed)


def set_messages(device: str, change: Change) -> list[Message]:
    """The requests for a change, but for its greetings; the family's number is 0 in them."""
    settings = b""
    if change.private_key:
        settings += attribute(_PRIVATE_KEY, _raw(change.private_key))
    if change.port:
        settings += u16(_LISTEN_PORT, change.port)
    peers = [_peer(key, _REMOVE_ME | _UPDATE_ONLY) for key in change.removed]
    peers += [
        _peer(
            peer.public_key,
            _REPLACE_ALLOWED,
            attribute(_P_ENDPOINT, _endpoint(peer))
            + u16(_P_KEEPALIVE, peer.keepalive)
            + nested(_P_ALLOWED, b"".join(map(_allowed, peer.allowed))),
        )
        for peer in change.peers
    ]
    return _messages(device, settings, peers, f"wg set {device} {change}")


def keepalive_messages(device: str, peers: tuple[Peer, ...], seconds: int | None = None) -> list[Message]:
    """The requests that change nothing but peers' keepalive: to `seconds`, or to what it shall be."""
    found = [
        _peer(
            peer.public_key,
            _UPDATE_ONLY,
            u16(_P_KEEPALIVE, peer.keepalive if seconds is None else seconds),
        )
        for peer in peers
    ]
    return _messages(device, b"", found, f"wg set {device}: greeting {len(peers)} peers")


def state_in(parts: list[bytes]) -> State:
    """What the parts of a dump tell."""
    key, port, found = b"", 0, dict[bytes, Attributes]()
    allowed: dict[bytes, list[IPv4Network]] = {}
    for part in parts:
        device = attributes(part, COMMAND.size)
        key = device.get(_PUBLIC_KEY, key)
        port = int.from_bytes(device.get(_LISTEN_PORT, b""), sys.byteorder) or port
        for _, contents in each_attribute(device.get(_PEERS, b"")):
            peer = attributes(contents)
            whose = peer[_P_PUBLIC_KEY]
            found[whose] = found.get(whose, {}) | peer
            allowed.setdefault(whose, []).extend(_networks(peer.get(_P_ALLOWED, b"")))
    peers = [_peer_in(peer, allowed[whose]) for whose, peer in found.items()]
    public = base64.b64encode(key).decode() if any(key) else ""
    agreed = (
        peer.public_key
        for peer, contents in zip(peers, found.values(), strict=True)
        if any(contents.get(_P_HANDSHAKE, b""))
    )
    return State(public, port, {peer.public_key: peer for peer in peers}, frozenset(agreed))


def _messages(device: str, settings: bytes, peers: list[bytes], what: str) -> list[Message]:
    groups = [peers[start : start + _PEERS_AT_ONCE] for start in range(0, len(peers), _PEERS_AT_ONCE)] or [[]]
    return [
        Message(
            0,
            0,
            COMMAND.pack(_SET_DEVICE, 1, 0)
            + text(_IFNAME, device)
            + (settings if number == 0 else b"")
            + (nested(_PEERS, b"".join(group)) if group else b""),
            what,
        )
        for number, group in enumerate(groups)
    ]


def _peer(key: str, flags: int, contents: bytes = b"") -> bytes:
    return nested(0, attribute(_P_PUBLIC_KEY, _raw(key)) + u32(_P_FLAGS, flags) + contents)


def _endpoint(peer: Peer) -> bytes:
    return _ENDPOINT.pack(socket.AF_INET, struct.pack("!H", peer.port), peer.endpoint.packed)


def _allowed(network: IPv4Network) -> bytes:
    address = attribute(_A_ADDRESS, network.network_address.packed)
    mask = attribute(_A_MASK, bytes((network.prefixlen,)))
    return nested(0, u16(_A_FAMILY, socket.AF_INET) + address + mask)


def _networks(contents: bytes) -> Iterator[IPv4Network]:
    for _, each in each_attribute(contents):
        found = attributes(each)
        if int.from_bytes(found[_A_FAMILY], sys.byteorder) == socket.AF_INET:
            yield IPv4Network((found[_A_ADDRESS], found[_A_MASK][0]))


def _peer_in(found: Attributes, allowed: list[IPv4Network]) -> Peer:
    address, port = IPv4Address(0), 0
    endpoint = found.get(_P_ENDPOINT, b"")
    if len(endpoint) == _ENDPOINT.size:
        _, raw_port, raw_address = _ENDPOINT.unpack(endpoint)
        address, port = IPv4Address(raw_address), int.from_bytes(raw_port, "big")
    return Peer(
        public_key=base64.b64encode(found[_P_PUBLIC_KEY]).decode(),
        endpoint=address,
        port=port,
        allowed=tuple(sorted(allowed)),
        keepalive=int.from_bytes(found.get(_P_KEEPALIVE, b""), sys.byteorder),
    )


def _raw(key: str) -> bytes:
    return base64.b64decode(key, validate=True)
