"""Carries TCP connections from clients of a service port to its endpoints.

Made by `proxies`. Works in the running loop; the sockets live in the node's namespace. Both directions of a
connection end on their own, so that a client may say that it has sent everything and still get its answer; a reset
of one side resets the other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Iterable
from ipaddress import ip_address

from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address, Family
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePortName
from netkit.proxy.userspace.listening import family_of, port_of
from netkit.proxy.userspace.roundrobin import RoundRobin

log = logging.getLogger(__name__)

DIAL_SECONDS = (0.25, 0.5, 1.0, 2.0)
"""How long each attempt may take; every attempt asks for an endpoint anew (Kubernetes' figures)."""

_BACKLOG = 4096
_AT_ONCE = 64
"""Connections accepted before others get their turn."""
_PAUSE_SECONDS = 1.0
_CHUNK = 1 << 16
_KEEPALIVE_SECONDS = 15
"""Between probes of silent peers, as Go's net package has it. Else a peer that vanished would stay for ever."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TCPProxy:
    """The connections of one service port. `listener` is bound; `start` makes it listen."""

    def __init__(
        self,
        name: ServicePortName,
        ns: Namespace,
        family: Family,
        listener: socket.socket,
        choice: RoundRobin,
    ) -> None:
        self._name = name
        self._ns = ns
        self._family = family
        self._listener = listener
        self._choice = choice
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = port_of(listener)

    @property
    def busy(self) -> bool:
        """Whether connections are open."""
        return bool(self._connections)

    def start(self) -> None:
        """Accept connections from now on, in the running loop. Raises OSError."""
        self._listener.listen(_BACKLOG)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def endpoints_gone(self, gone: frozenset[Endpoint]) -> None:
        """Connections to endpoints that are no longer chosen go on until they end."""

    def close(self) -> None:
        """Accept no more connections. Those that are open go on. Safe to repeat."""
        if self._listener.fileno() < 0:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    async def stop(self) -> None:
        """Close, and end all connections."""
        self.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("%s: cannot accept connections: %s", self._name, error)
                self._pause()
                return
            sock.setblocking(False)
            task = asyncio.create_task(self._serve(sock, peer[0]), name=f"proxy {self._name}")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    def _pause(self) -> None:
        """Accept nothing for a while: there are no descriptors left, and the listener stays ready."""
        assert self._loop is not None
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            assert self._loop is not None
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def _serve(self, accepted: socket.socket, peer: str) -> None:
        """One connection, from its acceptance to its end."""
        opened = [await asyncio.open_connection(sock=accepted)]
        try:
            _keep_alive(opened[0])
            endpoint = await self._dial(ip_address(peer.partition("%")[0]))
            if endpoint is not None:
                opened.append(endpoint)
                await _carry(*opened)
        except* OSError as group:
            log.debug("%s: connection broken: %s", self._name, group.exceptions[0])
            for _, writer in opened:
                _reset(writer)
        except* asyncio.CancelledError:
            for _, writer in opened:
                writer.transport.abort()
            raise
        finally:
            await _closed(writer for _, writer in opened)

    async def _dial(self, client: Address) -> Streams | None:
        """A connection to an endpoint for `client`; None if there is none, or none that answers."""
        afresh = False
        for seconds in DIAL_SECONDS:
            endpoint = self._choice.choose(client, time.monotonic(), afresh=afresh)
            if endpoint is None:
                log.debug("%s: no endpoint for %s", self._name, client)
                return None
            try:
                return await self._connect(endpoint, seconds)
            except (OSError, KernelError) as error:
                log.debug("%s: %s does not answer: %r", self._name, endpoint.target, error)
                afresh = True
        log.warning("%s: no endpoint answers %s", self._name, client)
        return None

    async def _connect(self, endpoint: Endpoint, seconds: float) -> Streams:
        sock = netns.socket_in(self._ns, family_of(self._family), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await _establish(sock, (str(endpoint.address), endpoint.port), seconds)
            streams = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        _keep_alive(streams)
        return streams


async def _establish(sock: socket.socket, address: tuple[str, int], seconds: float) -> None:
    """Connect. Raises OSError, TimeoutError if there is no connection after so long.

    What counts is the kernel's state: a loop that had other things to do may see both the connection and the end of
    the time at once, and to drop the connection then would take an endpoint's turn away.
    """
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except TimeoutError:
        try:
            sock.getpeername()
        except OSError:
            raise TimeoutError from None


async def _carry(client: Streams, endpoint: Streams) -> None:
    """Copy both ways until both have ended. An ExceptionGroup of OSError if one side breaks off."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_copy(client[0], endpoint[1]))
        group.create_task(_copy(endpoint[0], client[1]))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


def _keep_alive(streams: Streams) -> None:
    sock = streams[1].get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)


async def _closed(writers: Iterable[asyncio.StreamWriter]) -> None:
    """Close, and return when what was written has gone out. How a connection ended is asked of each one: an error
    nobody asks for would be reported by asyncio.
    """
    found = list(writers)
    for writer in found:
        writer.close()
    try:
        await asyncio.gather(*(writer.wait_closed() for writer in found), return_exceptions=True)
    except asyncio.CancelledError:
        for writer in found:
            writer.transport.abort()
        raise


def _reset(writer: asyncio.StreamWriter) -> None:
    """Have the peer told that the connection broke instead of that it ended."""
    if not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
