"""Two-way byte streams over what HTTP leaves us: an upgraded connection, or a WebSocket used as a tunnel."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web

_HIGH_WATER = 256 * 1024


class ByteStream(Protocol):
    """Bytes both ways. `read` gives b"" at the end; `write` raises ConnectionError when the peer is gone."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class UpgradedConnection(asyncio.Protocol):
    """The client's connection after a 101, taken away from the HTTP server. Make it with `take_over`."""

    def __init__(self, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._before = before
        self._received = bytearray()
        self._ended = False
        self._paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    def take_over(cls, request: web.Request, headers: dict[str, str]) -> UpgradedConnection:
        """Answer 101 with `headers` and own the connection from now on. Raises ConnectionError."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        connection = cls(transport, transport.get_protocol())
        transport.set_protocol(connection)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        transport.write(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode("latin-1"))
        return connection

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
        # The HTTP server counts its connections: it must hear of the end of this one.
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read(self) -> bytes:
        while not self._received and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._received)
        self._received.clear()
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if self._ended or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()

    async def close(self) -> None:
        self._transport.close()

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()
        self._writable.set()


class WebSocketBytes:
    """A WebSocket whose binary messages are slices of one byte stream; empty messages mean nothing."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return b""
            data: bytes = message.data.encode() if isinstance(message.data, str) else message.data
            if data:
                return data

    async def write(self, data: bytes) -> None:
        if self._socket.closed:
            raise ConnectionResetError("the client has gone")
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()
