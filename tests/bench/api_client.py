"""A client for `api.py` that costs as little as Python allows, so that the server is what is measured.

Raw HTTP/1.1 over TLS with keep-alive: requests are prepared bytes; of an answer only the status and the length are
looked at.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

HEAD_END = b"\r\n\r\n"
EVENT_END = b"}\n"
"""Ends an event of a watch: inside of JSON a newline is escaped, and framing has a carriage return before it."""


def request(
    method: str,
    path: str,
    body: bytes = b"",
    accept: str = "application/json",
    encoding: str = "identity",
    content_type: str = "application/json",
    token: str = "",
) -> bytes:
    """One request as it goes over the wire."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAccept-Encoding: {encoding}\r\n"
    )
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """One connection with at most one request under way. `on_events` makes it a watch: it is called with the number
    of events whenever some have arrived."""

    def __init__(self, on_events: Callable[[int], None] | None = None) -> None:
        self._on_events = on_events
        self._answer: asyncio.Future[bytes] | None = None
        self._pieces: list[bytes] = []
        self._missing = -1
        self._last = b""
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls, port: int, tls: ssl.SSLContext, on_events: Callable[[int], None] | None = None
    ) -> Self:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(on_events), "127.0.0.1", port, ssl=tls, server_hostname="localhost"
        )
        return connection

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ask(self, data: bytes) -> bytes:
        """The body of the answer, nothing for a watch. Raises RuntimeError for a status that is none of success."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            head, found, data = b"".join((*self._pieces, data)).partition(HEAD_END)
            if not found:
                self._pieces = [head]
                return
            self._pieces = []
            self._begin(head)
        if self._on_events is None:
            self._take(data)
        else:
            count = (self._last + data).count(EVENT_END)
            self._last = data[-1:]
            if count:
                self._on_events(count)

    def _begin(self, head: bytes) -> None:
        assert self._answer is not None
        status = int(head[9:12])
        if status >= 300:
            self._answer.set_exception(RuntimeError(head.decode()))
        if self._on_events is not None:
            self._missing = 0
            self._answer.set_result(b"")
            return
        start = head.lower().index(b"content-length:") + 15
        self._missing = int(head[start:].partition(b"\r\n")[0])

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing == 0:
            body, self._pieces, self._missing = b"".join(self._pieces), [], -1
            assert self._answer is not None
            if not self._answer.done():
                self._answer.set_result(body)


async def load(connections: Sequence[Connection], requests: Iterator[bytes]) -> float:
    """Send all of `requests`, each connection one after the other; seconds it took."""

    async def drive(connection: Connection) -> None:
        for data in requests:
            await connection.ask(data)

    begin = time.perf_counter()
    await asyncio.gather(*map(drive, connections))
    return time.perf_counter() - begin
