"""Transport over HTTPS on aiohttp: certificates from PEM text or files, and sockets from wherever the caller
says.

Used by every part that runs outside the API server's process. It opens no connection before the first
request.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from controlplane.client.transport import ConnectionFailed, Query, Response, Stream

Pem = str | bytes | Path
"""PEM text, or the path of a file that holds it."""

SocketFactory = Callable[[int, int, int], socket.socket]
"""Makes an unconnected socket from family, type and protocol, e.g. inside a network namespace. Must not
block.
"""

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 60.0
_STREAM_SILENCE_SECONDS = 660.0
_DEAD_PEER_MILLISECONDS = 20_000
_TOKEN_SECONDS = 60.0


class HttpsTransport:
    """Connections to `server_url` (`https://ADDRESS:PORT`).

    `ca` verifies the server ("": the machine's own authorities do, `insecure`: nobody does); `certificate` with
    `key` identify the client by TLS, or `token` by a bearer header, or what `token_file` holds, which is read anew
    every minute. `socket_factory` makes the sockets. A silent death of the peer is noticed after 20 s, as
    keep-alives are sent.
    """

    def __init__(
        self,
        server_url: str,
        *,
        ca: Pem,
        certificate: Pem | None = None,
        key: Pem | None = None,
        token: str = "",
        token_file: Path | None = None,
        insecure: bool = False,
        socket_factory: SocketFactory | None = None,
        request_timeout: float = _REQUEST_SECONDS,
    ) -> None:
        self._server_url = server_url.rstrip("/")
        self._tls = tls_context(ca, certificate, key, insecure=insecure)
        self._token = _TokenFile(token_file) if token_file else None
        self._headers = {"accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._socket_factory: SocketFactory = socket_factory or socket.socket
        self._request_timeout = aiohttp.ClientTimeout(total=request_timeout, sock_connect=_CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        try:
            async with self._open().request(
                method,
                self._url(path, query),
                headers=self._with_token(headers),
                data=body or None,
                timeout=self._request_timeout,
            ) as answer:
                return Response(answer.status, _lower(answer.headers), await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(error) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AsyncIterator[Stream]:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=_STREAM_SILENCE_SECONDS
        )
        try:
            async with self._open().request(
                method,
                self._url(path, query),
                headers=self._with_token(headers),
                data=body or None,
                timeout=timeout,
            ) as answer:
                yield Stream(answer.status, _lower(answer.headers), answer.content.iter_any())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=0, socket_factory=self._make_socket, keepalive_timeout=90
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, auto_decompress=False, trust_env=False
            )
        return self._session

    def _with_token(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if self._token is None:
            return headers
        return {**(headers or {}), "authorization": f"Bearer {self._token.read()}"}

    def _make_socket(self, address: tuple[int, int, int, str, object]) -> socket.socket:
        family, type_, protocol = address[:3]
        sock = self._socket_factory(family, type_, protocol)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MILLISECONDS)
        return sock

    def _url(self, path: str, query: Query) -> URL:
        return URL(self._server_url + path).with_query(list(query))

    def _failed(self, error: BaseException) -> ConnectionFailed:
        if isinstance(error, asyncio.TimeoutError):
            return ConnectionFailed(f"{self._server_url}: no answer in time")
        return ConnectionFailed(f"{self._server_url}: {error}")


class _TokenFile:
    """A token that is replaced in its file before it expires, as a pod's is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at = 0.0

    def read(self) -> str:
        """The token. OSError if there is no file; a file that went away leaves the last token."""
        if not self._token or time.monotonic() - self._read_at > _TOKEN_SECONDS:
            try:
                self._token = self._path.read_text().strip()
            except OSError:
                if not self._token:
                    raise
            self._read_at = time.monotonic()
        return self._token


def tls_context(
    ca: Pem, certificate: Pem | None = None, key: Pem | None = None, *, insecure: bool = False
) -> ssl.SSLContext:
    """A client's TLS context that trusts `ca` alone, or without one whom the machine trusts.

    `insecure` takes any server for the right one. Key material given as text never touches a disk.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif text := _text(ca):
        context.load_verify_locations(cadata=text)
    else:
        context.load_default_certs()
    if certificate is not None:
        if key is None:
            raise ValueError("a client certificate needs its key")
        # The ssl module reads certificate chains from files only: an anonymous one in memory will do.
        fd = os.memfd_create("client-certificate")
        try:
            os.write(fd, (_text(certificate).rstrip() + "\n" + _text(key)).encode())
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    return context


def _text(pem: Pem) -> str:
    if isinstance(pem, Path):
        return pem.read_text()
    return pem.decode() if isinstance(pem, bytes) else pem


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}
