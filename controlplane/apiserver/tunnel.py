"""Joining a client's connection to the far side of an accepted upgrade, byte by byte, in both directions.

Called by the HTTP shell after a 101. From then on the connection is no HTTP any more: its transport is given to a
protocol of our own, and what happens to the connection is still told to the one before, which counts connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from controlplane.apiserver.http1 import Http1Error
from controlplane.apiserver.messages import Tunnel

log = logging.getLogger(__name__)

_HIGH_WATER = 256 * 1024


class _ClientSide(asyncio.Protocol):
    """Buffers what the client sends; stops reading while the far side is slow, waits while the client is."""

    def __init__(self, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._before = before
        self._received = bytearray()
        self._ended = False
        self._paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._arrived.set()
        if len(self._received) > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._before.connection_lost(exc)

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read(self) -> bytes:
        """What has come from the client; empty when it is gone."""
        while not self._received and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._received)
        self._received.clear()
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> bool:
        """Send to the client; False when it is gone."""
        if self._ended or self._transport.is_closing():
            return False
        self._transport.write(data)
        await self._writable.wait()
        return not self._ended


async def join(transport: asyncio.Transport, headers: Mapping[str, str], tunnel: Tunnel) -> None:
    """Tell the client of the switch, then carry bytes until either side ends. Both sides are closed afterwards."""
    client = _ClientSide(transport, transport.get_protocol())
    transport.set_protocol(client)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    transport.write(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode("latin-1", "replace"))
    directions = (
        asyncio.create_task(_outwards(client, tunnel)),
        asyncio.create_task(_inwards(client, tunnel)),
    )
    try:
        done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except (OSError, Http1Error) as error:
        log.debug("tunnel broke: %s", error)
    finally:
        for task in directions:
            task.cancel()
        transport.close()
        try:
            await asyncio.wait(directions)
        finally:  # the end of the client's connection cancels us a second time
            await tunnel.close()


async def _outwards(client: _ClientSide, tunnel: Tunnel) -> None:
    while data := await client.read():
        await tunnel.write(data)


async def _inwards(client: _ClientSide, tunnel: Tunnel) -> None:
    while data := await tunnel.read():
        if not await client.write(data):
            return
