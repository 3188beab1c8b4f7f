"""Sockets of the userspace proxy inside a node's namespace: those it listens on, and those that only hold a port.

Called by `proxies`, `tcp` and `udp`. All are non-blocking, and bound to all addresses of one family or to one.
"""

from __future__ import annotations

import socket
from typing import Protocol as Interface

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


class Sockets(Interface):
    """Driver interface of `proxies`; `NodeSockets` is the real one. Every method raises KernelError."""

    def proxy(self, protocol: Protocol, port: int, address: Address | None) -> socket.socket:
        """A socket that receives what rules send to `port` of `address` (None: of all); 0 is any free port.

        Connections of an earlier process on the same port do not stand in its way.
        """

    def held(self, protocol: Protocol, port: int) -> socket.socket:
        """A socket that keeps others from `port` while rules redirect it; it is an error if somebody has it.

        Nobody accepts on it. It listens all the same: only that keeps others out who allow addresses to be reused.
        """


class NodeSockets:
    """Sockets of one family in the namespace `ns`."""

    def __init__(self, ns: Namespace, family: Family) -> None:
        self._ns = ns
        self._family = family

    def proxy(self, protocol: Protocol, port: int, address: Address | None) -> socket.socket:
        """See `Sockets`."""
        sock = self._socket(protocol)
        if protocol is Protocol.UDP:
            if self._family is Family.IPV6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        return self._bound(sock, protocol, port, address)

    def held(self, protocol: Protocol, port: int) -> socket.socket:
        """See `Sockets`."""
        sock = self._bound(self._socket(protocol), protocol, port)
        if protocol is Protocol.TCP:
            sock.listen(1)
        return sock

    def _socket(self, protocol: Protocol) -> socket.socket:
        sock = netns.socket_in(self._ns, family_of(self._family), _KINDS[protocol])
        sock.setblocking(False)
        if self._family is Family.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return sock

    def _bound(
        self, sock: socket.socket, protocol: Protocol, port: int, address: Address | None = None
    ) -> socket.socket:
        # With it the kernel looks for a free port in half of its range only, and for ever longer as that fills.
        if protocol is Protocol.TCP and port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((str(address or ("::" if self._family is Family.IPV6 else "0.0.0.0")), port))
        except OSError as error:
            sock.close()
            where = f"{address or self._family} {protocol} port {port}"
            raise from_os_error(error, f"bind({where})", self._ns.name) from error
        return sock


def port_of(sock: socket.socket) -> int:
    """The port a socket is bound to."""
    port: int = sock.getsockname()[1]
    return port
