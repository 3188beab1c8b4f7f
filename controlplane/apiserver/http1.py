"""The little of an HTTP/1.1 client that forwarding needs: one request over a socket that is connected already.

Called by `streams.py`. It hands out what the far server says as it comes, upgrades included, which is why no
pooling client library serves: after a 101 the very same byte stream is needed, without a byte lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from controlplane.connecting import open_stream

_HEAD_LIMIT = 64 * 1024
_CHUNK = 64 * 1024

Headers = Sequence[tuple[str, str]]


class Http1Error(Exception):
    """The far server said something that is not HTTP/1.1, or left in the middle."""


class Exchange:
    """One request and its answer. `status` and `headers` (names lower case) are there after `read_head`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: list[tuple[str, str]] = []

    @classmethod
    async def open(
        cls, sock: socket.socket, tls: ssl.SSLContext | None = None, server_name: str = ""
    ) -> Exchange:
        """Over a connected socket, which belongs to the exchange from now on. Raises OSError (TLS faults too)."""
        reader, writer = await open_stream(sock, tls, server_name, _HEAD_LIMIT)
        return cls(reader, writer)

    async def send(self, method: str, target: str, headers: Headers, body: bytes = b"") -> None:
        """`target` is path and query as they go on the wire."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        if any("\r" in line or "\n" in line for line in lines):
            raise Http1Error("a line break inside a request's head")
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._writer.write(head.encode("utf-8", "surrogateescape") + body)
        await self._writer.drain()

    async def read_head(self) -> None:
        """Read the answer's status line and headers (interim answers but 101 are skipped)."""
        while True:
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise Http1Error("the connection was closed before an answer came") from error
            except asyncio.LimitOverrunError as error:
                raise Http1Error("the answer's head is too long") from error
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            version, _, rest = first.partition(" ")
            code = rest[:3]
            if not version.startswith("HTTP/1.") or not code.isdigit():
                raise Http1Error(f"no HTTP answer: {first[:80]!r}")
            self.status = int(code)
            self.headers = [_header(line) for line in lines]
            if self.status >= 200 or self.status == 101:
                return

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    def body(self) -> Body:
        """The answer's body without its transfer coding, in pieces as they come; its end closes the exchange."""
        if self.status in (204, 304):
            return Body(self, self._plain(0))
        if "chunked" in self.header("transfer-encoding").lower():
            return Body(self, self._chunks())
        length = self.header("content-length")
        return Body(self, self._plain(int(length) if length.isdigit() else None))

    async def _plain(self, length: int | None) -> AsyncGenerator[bytes, None]:
        left = length
        while left is None or left > 0:
            piece = await self._reader.read(_CHUNK if left is None else min(_CHUNK, left))
            if not piece:
                if left is not None:
                    raise Http1Error("the connection was closed in the middle of an answer")
                return
            left = None if left is None else left - len(piece)
            yield piece

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                line = await self._reader.readuntil(b"\r\n")
                size = int(line.partition(b";")[0], 16)
                if not size:
                    return
                while size:
                    piece = await self._reader.read(min(size, _CHUNK))
                    if not piece:
                        raise Http1Error("the connection was closed in the middle of an answer")
                    size -= len(piece)
                    yield piece
                await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise Http1Error("the answer's chunks are broken") from error

    async def read(self) -> bytes:
        """Raw bytes after a 101; empty at the end."""
        return await self._reader.read(_CHUNK)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):  # the far side may be gone already, which is what closing wants
            await self._writer.wait_closed()


class Body(AsyncGenerator[bytes, None]):
    """Pieces of a body. A generator in form only: `aclose` closes the exchange even when nothing was read yet."""

    def __init__(self, exchange: Exchange, pieces: AsyncGenerator[bytes, None]) -> None:
        self._exchange = exchange
        self._pieces = pieces

    async def asend(self, value: None) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException:  # the end (StopAsyncIteration) is one of them
            await self._exchange.close()
            raise

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> bytes:
        await self._pieces.aclose()
        await self._exchange.close()
        raise typ if val is None else val


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()
