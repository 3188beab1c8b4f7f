"""Connections through one TCP proxy, on loopback: what becomes of those that break, and of a dial in a late loop."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from netkit.kernel.netns import HOST
from netkit.proxy.addresses import Family
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.userspace import tcp
from netkit.proxy.userspace.roundrobin import RoundRobin

LOOPBACK = "127.0.0.1"
NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)


@pytest.fixture(autouse=True)
def sockets_of_this_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp.netns, "socket_in", lambda ns, *kind: socket.socket(*kind))


@dataclass
class Served:
    """A proxy and the listeners of its endpoints, in the order of their turns."""

    proxy: tcp.TCPProxy
    endpoints: list[socket.socket]

    async def call(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, self.proxy.port))
        return sock


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind((LOOPBACK, 0))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def served(count: int) -> AsyncIterator[Served]:
    listeners = [listening() for _ in range(count)]
    choice = RoundRobin(shuffle=lambda endpoints: None)
    choice.update(Endpoint(ip_address(LOOPBACK), sock.getsockname()[1]) for sock in listeners)
    proxy = tcp.TCPProxy(NAME, HOST, Family.IPV4, listening(), choice)
    for sock in listeners:
        sock.listen()
    proxy.start()
    try:
        yield Served(proxy, listeners)
    finally:
        await proxy.stop()
        for sock in listeners:
            sock.close()


async def accepted(listener: socket.socket) -> socket.socket:
    async with asyncio.timeout(10):
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    return sock


async def received(sock: socket.socket) -> bytes:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(sock, 100)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_reset_is_nothing_that_the_loop_complains_of(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collected as part of a cycle, a stream's future may go before the protocol that would have asked it."""
    monkeypatch.delattr(asyncio.StreamReaderProtocol, "__del__")
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with served(1) as made:
        for _ in range(20):
            client = await made.call()
            endpoint = await accepted(made.endpoints[0])
            await asyncio.get_running_loop().sock_sendall(client, b"hello")
            assert await received(endpoint) == b"hello"
            broken, other = (client, endpoint) if who == "client" else (endpoint, client)
            reset(broken)
            with closing(other), pytest.raises(ConnectionResetError):
                await received(other)
    gc.collect()
    assert complaints == []


async def test_a_connection_that_is_there_counts_however_late_the_loop_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The handshake is the kernel's; that this process had no time to look is no reason to skip an endpoint's turn."""
    monkeypatch.setattr(tcp, "DIAL_SECONDS", (0.0,) * 4)
    async with served(3) as made:
        for listener in (*made.endpoints, *made.endpoints):
            with closing(await made.call()) as client, closing(await accepted(listener)) as endpoint:
                await asyncio.get_running_loop().sock_sendall(endpoint, b"first")
                assert await received(client) == b"first"


async def test_an_endpoint_that_refuses_is_passed_over_even_if_the_loop_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "DIAL_SECONDS", (0.0,) * 4)
    async with served(2) as made:
        made.endpoints[0].close()
        with closing(await made.call()), closing(await accepted(made.endpoints[1])):
            pass


async def test_stopping_ends_connections_whose_client_reads_nothing() -> None:
    async with served(1) as made:
        client = await made.call()
        endpoint = await accepted(made.endpoints[0])
        endpoint.setblocking(False)
        loop = asyncio.get_running_loop()
        sender = asyncio.create_task(loop.sock_sendall(endpoint, bytes(64 << 20)))
        async with asyncio.timeout(10):
            await made.proxy.stop()
        assert not made.proxy.busy
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await sender
        client.close()
        endpoint.close()
