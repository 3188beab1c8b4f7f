"""Requests that the API server passes on: to a node's kubelet, or to a pod's or Service's own server.

Called by `handlers/connect.py`. The way into the cluster's network is the injected `Dial`; nothing here knows how
it gets there. An upgrade (WebSocket, SPDY) is accepted by the far side and becomes the answer's tunnel.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from multidict import CIMultiDict

from controlplane.apiserver.http1 import Exchange, Http1Error
from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.errors import (
    BadRequest,
    InternalError,
    NotFound,
    Object,
    ServiceUnavailable,
    StatusError,
    Unclassified,
)
from controlplane.meta.objects import dig

Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Address and port -> a connected, non-blocking socket. Raises OSError."""

CONNECT_SECONDS = 10.0
_NOT_CONNECTED = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET}
)
_ERROR_TEXT = 10_240
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", "authorization", "accept-encoding"}
_SEPARATE_LINES = frozenset({"x-stream-protocol-version"})
"""Headers that are sent as one line per value, as SPDY clients do and servers expect."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a request goes. `tls` None = plain HTTP; `server_name` is what the far certificate must name."""

    address: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


KUBELET_PORT = 10250
_ADDRESS_TYPES = ("InternalIP", "ExternalIP", "Hostname")


def kubelet_backend(node: Object, tls: ssl.SSLContext | None) -> Backend:
    """Where a node's kubelet listens. Raises Unclassified when the node does not say."""
    listed = dig(node, "status", "addresses", default=())
    addresses = {entry.get("type", ""): entry.get("address", "") for entry in listed}
    address = next((addresses[kind] for kind in _ADDRESS_TYPES if addresses.get(kind)), "")
    if not address:
        known = " ".join(f"{{{kind} {value}}}" for kind, value in addresses.items())
        raise Unclassified(f"no preferred addresses found; known addresses: [{known}]")
    port = dig(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port", default=0) or KUBELET_PORT
    return Backend(address, port, tls)


def is_upgrade(headers: Mapping[str, str]) -> bool:
    tokens = headers.get("connection", "").lower().replace(" ", "").split(",")
    return "upgrade" in tokens and bool(headers.get("upgrade"))


async def exchange(
    dial: Dial, backend: Backend, request: ApiRequest, target: str, more: Sequence[tuple[str, str]] = ()
) -> Exchange:
    """Send `request` to the backend as `target` (path and query) and wait for the answer's head.

    `more` are further headers. Raises OSError or Http1Error.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        sock = await dial(backend.address, backend.port)
        far = await Exchange.open(sock, backend.tls, backend.server_name or backend.address)
    try:
        lines = [*_forwarded(request, backend), *more]
        await far.send(request.method, target, lines, request.body)
        await far.read_head()
    except BaseException:
        await far.close()
        raise
    return far


def _forwarded(request: ApiRequest, backend: Backend) -> list[tuple[str, str]]:
    lines = [("Host", str(backend))]
    for name, value in request.headers.items():
        if name in _NOT_FORWARDED or name.startswith("impersonate-"):
            continue
        values = [part.strip() for part in value.split(",")] if name in _SEPARATE_LINES else [value]
        lines += [(name, one) for one in values]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(("Content-Length", str(len(request.body))))
    if is_upgrade(request.headers):
        lines += [("Connection", "Upgrade"), ("Upgrade", request.headers["upgrade"])]
    else:
        lines.append(("Connection", "close"))
    return lines


def answer(far: Exchange) -> ApiResponse:
    """What the far side said, as it said it: a tunnel after a 101, else status, headers and the body as it comes."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in far.headers:
        if name not in _HOP_BY_HOP and (name != "content-length" or far.status != 101):
            headers.add(name.title(), value)
    if far.status == 101:
        headers["Connection"] = "Upgrade"
        headers["Upgrade"] = far.header("upgrade")
        return ApiResponse(101, headers, tunnel=far)
    return ApiResponse(far.status, headers, far.body())


async def kubelet_answer(
    dial: Dial, backend: Backend, request: ApiRequest, target: str, *, content_type: str = ""
) -> ApiResponse:
    """Pass a request to a kubelet. Its errors become Status errors, as upstream does it.

    `content_type` replaces the Content-Type of a good answer (logs are text/plain whatever they hold).
    """
    try:
        far = await exchange(dial, backend, request, target)
    except (OSError, Http1Error) as error:  # TimeoutError is an OSError
        raise InternalError(f"error dialing backend: {_reason(error, backend)}") from error
    if far.status != 101 and not 200 <= far.status <= 206:
        raise await _refusal(far)
    response = answer(far)
    if not content_type or isinstance(response.body, bytes):
        return response
    return ApiResponse(response.status, {"Content-Type": content_type}, response.body)


async def upgrade_answer(dial: Dial, backend: Backend, request: ApiRequest, target: str) -> ApiResponse:
    """Pass a request for an upgrade to a kubelet. Unlike elsewhere its refusal is handed on as it is, text and all:
    that is what clients of streams read.
    """
    try:
        far = await exchange(dial, backend, request, target)
    except (OSError, Http1Error) as error:
        raise Unclassified(f"error dialing backend: {_reason(error, backend)}") from error
    if far.status != 101 and far.status < 400:
        await far.close()
        raise InternalError(f"invalid upgrade response: status code {far.status}")
    return answer(far)


def _reason(error: Exception, backend: Backend | None = None) -> str:
    """As Go says it. Without `backend` the connection stood already."""
    if backend is not None and isinstance(error, TimeoutError) and not error.errno:
        return f"dial tcp {backend}: i/o timeout"
    if backend is not None and isinstance(error, OSError) and error.errno in _NOT_CONNECTED:
        return f"dial tcp {backend}: connect: {os.strerror(error.errno).lower()}"
    text = str(error) or ("i/o timeout" if isinstance(error, TimeoutError) else type(error).__name__)
    return f"{backend}: {text}" if backend is not None else text


async def _refusal(far: Exchange) -> StatusError:
    text = b""
    body = far.body()
    try:
        async for piece in body:
            text += piece
            if len(text) >= _ERROR_TEXT:
                break
    except (OSError, Http1Error) as error:
        return InternalError(f"the kubelet's answer broke off: {_reason(error)}")
    finally:
        await body.aclose()
    message = text[:_ERROR_TEXT].decode("utf-8", "replace").strip() or f"the kubelet answered {far.status}"
    match far.status:
        case 400:
            return BadRequest(message)
        case 404:
            return NotFound(f"the server could not find the requested resource ({message})")
        case 503:
            return ServiceUnavailable(message)
        case _:
            return InternalError(f"Internal error occurred: {message}")


async def proxied_answer(
    dial: Dial, backend: Backend, request: ApiRequest, target: str, prefix: str
) -> ApiResponse:
    """Pass a request to a pod's or Service's own server; its answer is handed on unchanged, errors included.

    `prefix` is the path of the proxy subresource, put before absolute paths in redirects.
    """
    try:
        uri = prefix + target.partition("?")[0]
        far = await exchange(dial, backend, request, target, [("X-Forwarded-Uri", uri)])
    except (OSError, Http1Error) as error:
        raise ServiceUnavailable(f"error trying to reach service: {_reason(error, backend)}") from error
    far.headers = [
        (name, prefix + value if name == "location" and value.startswith("/") else value)
        for name, value in far.headers
    ]
    return answer(far)
