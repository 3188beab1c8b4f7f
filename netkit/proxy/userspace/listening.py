"""Sockets of the userspace proxy inside a node's namespace: those it listens on, and those that only hold a port.

Called by `proxies`, `tcp` and `udp`. All are non-blocking, and bound to all addresses of one family or to one.
"""

from __future__ import annotations

import socket

from netkit.kernel import netns
from netkit.kernel.errors import from_os_error
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address, Family
from netkit.proxy.services import Protocol

IP_PKTINFO = 8
"""Not in Python's socket module before 3.12; Linux, all architectures."""

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def family_of(family: Family) -> socket.AddressFamily:
    """The kernel's word for an address family."""
    return socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET


def proxy_socket(
    ns: Namespace, family: Family, protocol: Protocol, port: int, address: Address | None = None
) -> socket.socket:
    """A socket that receives what rules send to `port` of `address` (None: of all); 0 is any free port.

    Raises KernelError. Connections of an earlier process on the same port do not stand in its way.
    """
    sock = _socket(ns, family, protocol)
    if protocol is Protocol.TCP:
        return _bound(sock, ns, family, protocol, port, address)
    if family is Family.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return _bound(sock, ns, family, protocol, port, address)


def held_port(ns: Namespace, family: Family, protocol: Protocol, port: int) -> socket.socket:
    """A socket that keeps others from `port` while rules redirect it. Raises KernelError if somebody has it.

    Nobody accepts on it. It listens all the same: only that keeps others out who allow addresses to be reused.
    """
    sock = _bound(_socket(ns, family, protocol), ns, family, protocol, port)
    if protocol is Protocol.TCP:
        sock.listen(1)
    return sock


def port_of(sock: socket.socket) -> int:
    """The port a socket is bound to."""
    port: int = sock.getsockname()[1]
    return port


def _socket(ns: Namespace, family: Family, protocol: Protocol) -> socket.socket:
    sock = netns.socket_in(ns, family_of(family), _KINDS[protocol])
    sock.setblocking(False)
    if family is Family.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _bound(
    sock: socket.socket,
    ns: Namespace,
    family: Family,
    protocol: Protocol,
    port: int,
    address: Address | None = None,
) -> socket.socket:
    # With it the kernel looks for a free port in half of its range only, and for ever longer as that fills.
    if protocol is Protocol.TCP and port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((str(address or ("::" if family is Family.IPV6 else "0.0.0.0")), port))
    except OSError as error:
        sock.close()
        where = f"{address or family} {protocol} port {port}"
        raise from_os_error(error, f"bind({where})", ns.name) from error
    return sock
