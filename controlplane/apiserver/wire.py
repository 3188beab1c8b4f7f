"""Requests' bodies off the wire, answers onto it: whole, compressed when asked and large, as a stream, or as a tunnel.

The half of the HTTP shell that knows aiohttp's requests and answers but not who asks or what.
"""

from __future__ import annotations

import asyncio
import logging
import zlib

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.apiserver.core import MAX_BODY, too_large
from controlplane.apiserver.http1 import Http1Error
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.tunnel import join
from controlplane.errors import BadRequest

log = logging.getLogger(__name__)

_WireHeaders = CIMultiDict[str] | CIMultiDictProxy[str]
_GZIP_FROM = 128 * 1024
_GZIP_LEVEL = 1
_BODY_SECONDS = 60.0
"""How long a client may take to send a request's body."""


class _WithoutBytes(logging.Filter):
    """Requests that are not HTTP are worth a line, but not their bytes: there may be a token among them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            record.exc_info = None
        return True


def wire_log() -> logging.Logger:
    """Where aiohttp tells of connections' faults."""
    faults = log.getChild("faults")
    if not any(isinstance(each, _WithoutBytes) for each in faults.filters):
        faults.addFilter(_WithoutBytes())
    return faults


class Detached(web.StreamResponse):
    """Stands for an answer that has been written past aiohttp; nothing is left to do but to close."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self.force_close()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def readable(headers: _WireHeaders) -> _WireHeaders:
    """`headers` as text that can be written down again: what is not UTF-8 becomes U+FFFD, as in Go's JSON."""
    if all(value.isascii() for value in headers.values()):
        return headers
    made: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        made.add(name, value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return made


async def read_body(request: web.BaseRequest) -> bytes:
    """Raises BadRequest when the body breaks off or its chunks make no sense, RequestEntityTooLarge for one of too many
    bytes, TimeoutError for a client that takes too long.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > MAX_BODY:
                    raise too_large()
                pieces.append(piece)
    except (web.PayloadAccessError, web.RequestPayloadError, HttpProcessingError) as error:
        raise BadRequest("the body of the request is broken") from error
    return b"".join(pieces)


async def complete(request: web.BaseRequest, response: ApiResponse, body: bytes) -> web.Response:
    headers: CIMultiDict[str] = CIMultiDict(response.headers)
    if len(body) >= _GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(_gzip, body)
        headers["Content-Encoding"] = "gzip"
        headers.add("Vary", "Accept-Encoding")
    return web.Response(status=response.status, headers=headers, body=body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


async def endless(request: web.BaseRequest, response: ApiResponse) -> web.StreamResponse:
    """Carry a tunnel or a stream to its end."""
    tunnel, transport = response.tunnel, request.transport
    if tunnel is None:
        return await _streamed(request, response)
    if transport is None:
        await tunnel.close()
    else:
        await join(transport, response.headers, tunnel)
    return Detached()


async def _streamed(request: web.BaseRequest, response: ApiResponse) -> web.StreamResponse:
    """Send pieces as they come. A far side that breaks off leaves the answer visibly unfinished."""
    stream = web.StreamResponse(status=response.status, headers=CIMultiDict(response.headers))
    pieces = response.body
    assert not isinstance(pieces, bytes)
    try:
        if "Content-Length" not in stream.headers:
            stream.enable_chunked_encoding()
        await stream.prepare(request)
        if request.method != "HEAD":
            async for piece in pieces:
                await stream.write(piece)
        await stream.write_eof()
    except (OSError, Http1Error) as error:
        log.debug("%s %s: broke off: %s", request.method, request.raw_path, error)
        if request.transport is not None:
            request.transport.close()
    finally:
        await pieces.aclose()
    return stream
