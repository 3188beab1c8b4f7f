"""Serves one builtin container's HTTP ports on sockets that already listen (loop and sockets only).

Used by `builtin`. What is answered comes from `behaviours`; static files from a `Files` lookup.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from netkit.node.runtime.behaviours import Answer, Endpoint, Facts, Response
from netkit.node.runtime.http_parser import BadHttp, Request, RequestParser
from netkit.node.runtime.meter import Spent

AccessLog = Callable[[str], None]
Files = Callable[[Request], Response | None]
"""Gives the answer a file of the container stands for, or None."""

_PAUSE_BYTES = 1 << 20


class HttpServer:
    """All ports of one container: connections are counted so that a stop can drain them."""

    def __init__(
        self,
        answer: Answer,
        facts: Facts,
        log: AccessLog,
        files: Files | None = None,
        spent: Spent | None = None,
    ) -> None:
        self.spent = spent or Spent()
        self.answer = answer
        self.facts = facts
        self.log = log
        self.files = files
        self.connections: set[_Connection] = set()
        self.closing = False
        self._servers: list[asyncio.Server] = []

    async def serve(self, listener: socket.socket) -> None:
        """Take connections from a bound socket from now on."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: _Connection(self), sock=listener, backlog=1024))

    def respond(self, request: Request, client: Endpoint, own: Endpoint) -> Response:
        """The answer to one request."""
        if self.files is not None and (found := self.files(request)) is not None:
            return found
        return self.answer(request, self.facts, client, own)

    def close_listeners(self) -> None:
        """Refuse new connections; those that wait for a next request are closed."""
        self.closing = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self.connections):
            connection.close_if_idle()

    async def drained(self) -> None:
        """Return when the last connection has ended."""
        while self.connections:
            await asyncio.wait([connection.ended for connection in self.connections])

    def abort(self) -> None:
        """Cut all connections."""
        self.close_listeners()
        for connection in list(self.connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._client = self._own = Endpoint("", 0)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client = _endpoint(transport.get_extra_info("peername"))
        self._own = _endpoint(transport.get_extra_info("sockname"))
        self._transport.set_write_buffer_limits(high=_PAUSE_BYTES)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        with self._server.spent:
            self._take(data)

    def _take(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        try:
            for request in self._parser.feed(data):
                if not self._answer(request, transport):
                    transport.close()
                    return
        except BadHttp as error:
            transport.write(_head(Response(error.status, b""), 0, keep_alive=False))
            transport.close()
            return
        if self._parser.take_continue():
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def eof_received(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        if self._transport is not None and self._parser.idle:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, request: Request, transport: asyncio.Transport) -> bool:
        response = self._server.respond(request, self._client, self._own)
        keep_alive = request.keep_alive and not self._server.closing
        head = _head(response, len(response.body), keep_alive=keep_alive)
        transport.write(head if request.method == "HEAD" else head + response.body)
        self._server.log(_access_line(request, response, self._client))
        return keep_alive


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int] | None) -> Endpoint:
    if not name:
        return Endpoint("", 0)
    return Endpoint(name[0].removeprefix("::ffff:"), name[1])


def _head(response: Response, length: int, *, keep_alive: bool) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    if response.server:
        lines.append(f"Server: {response.server}")
    lines += [
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _access_line(request: Request, response: Response, client: Endpoint) -> str:
    moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    return (
        f'{client.address} - - [{moment}] "{request.method} {request.target} HTTP/{request.version}" '
        f'{response.status} {len(response.body)} "{request.header("referer", "-")}" '
        f'"{request.header("user-agent", "-")}" "{request.header("x-forwarded-for", "-")}"'
    )
