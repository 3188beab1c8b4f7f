"""Constant traffic for tests that change rules under it: connections that live long, and new ones all the time.

Every byte is answered by an echo server; what does not come back, or only after a packet was sent twice, is counted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from netkit.kernel import netns
from netkit.kernel.netns import Namespace

_TOTAL_RETRANSMITS_OFFSET = 100
_PATIENCE = 10.0


@dataclass(frozen=True)
class Way:
    """From a namespace to an address and port. `kept`: also by a connection that lives long."""

    name: str
    space: Namespace
    address: str
    port: int
    kept: bool = True

    async def connect(self) -> socket.socket:
        sock = netns.socket_in(self.space, socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, (self.address, self.port))
        except BaseException:
            sock.close()
            raise
        return sock


@dataclass
class Traffic:
    """What came of it so far. `failures` name the way and the fault."""

    answers: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    async def more(self, number: int = 20) -> None:
        """Return when each way has been made `number` times more, and each long connection been answered as often."""
        made, answers = self.made.copy(), self.answers.copy()
        async with asyncio.timeout(60):
            while any(now[way] < before[way] + number for now, before in ((self.made, made), (self.answers, answers))
                      for way in before):  # fmt: skip
                assert self.failures == [], self.failures
                await asyncio.sleep(0.01)


@asynccontextmanager
async def traffic(*ways: Way, resent: bool = False) -> AsyncIterator[Traffic]:
    """One long connection on each way that wants it, and one new connection after the other, until the block ends.

    `resent`: that a packet is sent twice is no failure, as where a kernel may stand still for longer than TCP waits.
    """
    told = Traffic()
    tasks = []
    for way in ways:
        if way.kept:
            sock = await way.connect()
            await _ask(sock, b"first")
            told.answers[way.name] = 0
            tasks.append(asyncio.create_task(_long(way, sock, told)))
        told.made[way.name] = 0
        tasks.append(asyncio.create_task(_anew(way, told, resent=resent)))
    try:
        yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _long(way: Way, sock: socket.socket, told: Traffic) -> None:
    number = 0
    with sock:
        while True:
            number += 1
            try:
                await _ask(sock, b"%d" % number)
            except (OSError, TimeoutError, AssertionError) as error:
                told.failures.append(f"{way.name}, established, after {number} answers: {error!r}")
                return
            told.answers[way.name] += 1
            await asyncio.sleep(0.001)


async def _anew(way: Way, told: Traffic, *, resent: bool) -> None:
    while True:
        try:
            with await way.connect() as sock:
                await _ask(sock, b"new")
                if (again := _retransmits(sock)) and not resent:
                    told.failures.append(f"{way.name}, new: {again} packets were sent twice")
        except (OSError, TimeoutError, AssertionError) as error:
            told.failures.append(f"{way.name}, new: {error!r}")
        told.made[way.name] += 1
        await asyncio.sleep(0.001)


async def _ask(sock: socket.socket, text: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE):
        await loop.sock_sendall(sock, text)
        answer = await loop.sock_recv(sock, 100)
    assert answer == text, answer


def _retransmits(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("=I", info, _TOTAL_RETRANSMITS_OFFSET)[0])


@asynccontextmanager
async def echo_server(space: Namespace, address: str, port: int) -> AsyncIterator[None]:
    """Sends back what it gets."""
    listener = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, sock=listener, backlog=1024)
    try:
        yield
    finally:
        server.close()
