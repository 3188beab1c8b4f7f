"""Carries datagrams between clients of a service port and its endpoints.

Made by `proxies`. Works in the running loop; the sockets live in the node's namespace. Each client gets a socket of
its own towards one endpoint, which is given up when nothing has passed for a while.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Family
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePortName
from netkit.proxy.userspace.listening import IP_PKTINFO, family_of, port_of
from netkit.proxy.userspace.roundrobin import RoundRobin

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.25
"""Until a silent client is forgotten: kube-proxy's default of `udpIdleTimeout`."""

_DATAGRAM = 1 << 16
_AT_ONCE = 64
"""Datagrams read before others get their turn."""

_PKTINFO_V4 = struct.Struct("=i4s4s")
_PKTINFO_V6 = struct.Struct("=16sI")

Peer = tuple[Any, ...]
"""A client as the socket module names it."""


@dataclass(slots=True)
class _Client:
    """A client, the address of the node it called, its endpoint, and the socket between the two."""

    peer: Peer
    called: bytes
    endpoint: Endpoint
    sock: socket.socket
    last_used: float
    timer: asyncio.TimerHandle | None = None


class UDPProxy:
    """The datagrams of one service port. `sock` is bound; `start` makes it receive."""

    def __init__(
        self,
        name: ServicePortName,
        ns: Namespace,
        family: Family,
        sock: socket.socket,
        choice: RoundRobin,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._name = name
        self._ns = ns
        self._family = family
        self._sock = sock
        self._choice = choice
        self._idle_seconds = idle_seconds
        self._clients: dict[tuple[Peer, bytes], _Client] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = port_of(sock)

    @property
    def busy(self) -> bool:
        """Whether clients are remembered."""
        return bool(self._clients)

    def start(self) -> None:
        """Receive datagrams from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._from_clients)

    def endpoints_gone(self, gone: frozenset[Endpoint]) -> None:
        """Give the clients of endpoints that are no longer chosen another one: UDP has no end to wait for."""
        targets = {endpoint.target for endpoint in gone}
        for client in list(self._clients.values()):
            if client.endpoint.target in targets:
                self._forget(client)

    def close(self) -> None:
        """Receive nothing more, and forget all clients. Safe to repeat."""
        if self._sock.fileno() < 0:
            return
        for client in list(self._clients.values()):
            self._forget(client)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    async def stop(self) -> None:
        """The same as `close`: there are no connections that could go on."""
        self.close()

    def _from_clients(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, peer = self._sock.recvmsg(_DATAGRAM, 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("%s: cannot receive: %s", self._name, error)
                return
            called = self._called(ancillary)
            client = self._clients.get((peer, called)) or self._new_client(peer, called)
            if client is not None:
                self._send(client, data)

    def _new_client(self, peer: Peer, called: bytes) -> _Client | None:
        """A client with its endpoint; None if there is none, or the kernel knows no way to it."""
        assert self._loop is not None
        now = time.monotonic()
        address = ip_address(peer[0].partition("%")[0])
        endpoint = self._choice.choose(address, now)
        if endpoint is None:
            log.debug("%s: no endpoint for %s", self._name, address)
            return None
        try:
            sock = netns.socket_in(self._ns, family_of(self._family), socket.SOCK_DGRAM)
        except KernelError as error:
            log.warning("%s: datagram of %s dropped: %s", self._name, address, error)
            return None
        try:
            sock.setblocking(False)
            sock.connect((str(endpoint.address), endpoint.port))
        except OSError as error:
            log.debug("%s: no way to %s: %s", self._name, endpoint.target, error)
            sock.close()
            return None
        client = _Client(peer, called, endpoint, sock, now)
        self._clients[peer, called] = client
        self._loop.add_reader(sock.fileno(), self._from_endpoint, client)
        client.timer = self._loop.call_later(self._idle_seconds, self._look_at, client)
        return client

    def _send(self, client: _Client, data: bytes) -> None:
        client.last_used = time.monotonic()
        try:
            client.sock.send(data)
        except BlockingIOError:
            return  # datagrams may be lost
        except OSError as error:
            self._broken(client, error)

    def _from_endpoint(self, client: _Client) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = client.sock.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(client, error)
                return
            client.last_used = time.monotonic()
            try:
                self._sock.sendmsg([data], [self._answer_from(client.called)], 0, client.peer)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("%s: no way back to %s: %s", self._name, client.peer[0], error)

    def _broken(self, client: _Client, error: OSError) -> None:
        """The endpoint has refused a datagram, or there is no way to it: the next one is given another chance."""
        log.debug("%s: %s: %s", self._name, client.endpoint.target, errno.errorcode.get(error.errno or 0))
        self._forget(client)

    def _look_at(self, client: _Client) -> None:
        """Forget a client that has been idle for long enough, or look again when it would be."""
        assert self._loop is not None
        left = client.last_used + self._idle_seconds - time.monotonic()
        if left <= 0:
            self._forget(client)
        else:
            client.timer = self._loop.call_later(left, self._look_at, client)

    def _forget(self, client: _Client) -> None:
        if self._clients.pop((client.peer, client.called), None) is None:
            return
        assert self._loop is not None
        if client.timer is not None:
            client.timer.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(client.sock.fileno())
        client.sock.close()

    def _called(self, ancillary: list[tuple[int, int, bytes]]) -> bytes:
        """The node's address that a datagram came to, packed; its answer must come from there."""
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                address: bytes = _PKTINFO_V4.unpack_from(data)[1]
                return address
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                address = _PKTINFO_V6.unpack_from(data)[0]
                return address
        return b""

    def _answer_from(self, called: bytes) -> tuple[int, int, bytes]:
        if self._family is Family.IPV6:
            return (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO_V6.pack(called, 0))
        return (socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO_V4.pack(0, called, bytes(4)))
