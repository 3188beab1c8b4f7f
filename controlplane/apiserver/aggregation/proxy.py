"""Hands requests for a version that another server serves on to it, and its answers back.

Called by the core when nothing of its own is at a path, after authorization. Who asks is told in the front proxy's
headers; what the client authenticated with stays here. Upgrades become tunnels.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import urlencode

from multidict import CIMultiDict

from controlplane.apiserver.aggregation.gateway import Gateway, NotReached, NotResolved, identity_headers
from controlplane.apiserver.aggregation.registrations import Registration, Registrations
from controlplane.apiserver.authn.settings import STANDARD_NAMES
from controlplane.apiserver.http1 import Body, Exchange, Http1Error
from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.apiserver.passage import Passage
from controlplane.apiserver.routing import split
from controlplane.apiserver.streams import answer, is_upgrade

TEXT = "text/plain; charset=utf-8"
UNAVAILABLE = "service unavailable"
_WHOLE = 1024 * 1024
"""Bytes of an answer that are waited for, within the request's time; longer ones are handed on as they come."""

_NOT_FORWARDED = frozenset(
    {
        "accept-encoding", "authorization", "connection", "content-length", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NEVER_FORWARDED = ("impersonate-", "x-forwarded-")
_SEPARATE_LINES = frozenset({"x-stream-protocol-version"})


class Proxy:
    """See the module."""

    def __init__(self, registrations: Registrations, gateway: Gateway) -> None:
        self._registrations = registrations
        self._gateway = gateway

    def find(self, passage: Passage) -> Registration | None:
        """Whose the path is, when it is below `/apis/GROUP/VERSION`."""
        info = passage.info
        if info.is_resource:
            return self._registrations.find(info.group, info.version) if info.group else None
        parts = info.path.split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        return self._registrations.find(parts[2], parts[3])

    async def answer(self, passage: Passage, one: Registration) -> ApiResponse:
        """What its server says; 503 where it cannot be asked. Raises BadRequest for paths with `..` in them."""
        request = passage.request
        if passage.info.rest:
            # Passed on unread elsewhere; here it must not lead to what was not authorized.
            split(request.path)
        if not one.is_available:
            return refusal(UNAVAILABLE)
        try:
            where = await self._gateway.locate(one)
        except NotResolved:
            return refusal(UNAVAILABLE)
        target = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        try:
            far = await self._gateway.send(
                one, where, request.method, target, forwarded(request), request.body
            )
        except NotReached as fault:
            return refusal(f"error trying to reach service: {fault}")
        if far.status == 101 or passage.is_long_running:
            response = answer(far)
            return ApiResponse(
                response.status,
                response.headers,
                response.body,
                response.tunnel,
                passage.info.verb == "watch",
            )
        return await _whole(far)


def refusal(text: str) -> ApiResponse:
    headers = {"Content-Type": TEXT, "X-Content-Type-Options": "nosniff"}
    return ApiResponse(503, headers, f"{text}\n".encode())


async def _whole(far: Exchange) -> ApiResponse:
    """The answer with its body, when that is not very long. A body that breaks off must not look complete."""
    response = answer(far)
    pieces = response.body
    assert isinstance(pieces, Body)
    found = bytearray()
    try:
        async for piece in pieces:
            found += piece
            if len(found) > _WHOLE:
                return ApiResponse(response.status, response.headers, _rest(bytes(found), pieces))
    except (OSError, Http1Error):
        await far.close()
        return refusal("error trying to reach service: unexpected EOF")
    except BaseException:
        await far.close()
        raise
    headers: CIMultiDict[str] = CIMultiDict(response.headers)
    headers.popall("Content-Length", None)
    return ApiResponse(response.status, headers, bytes(found))


async def _rest(begun: bytes, pieces: Body) -> AsyncGenerator[bytes, None]:
    try:
        yield begun
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()


def forwarded(request: ApiRequest) -> list[tuple[str, str]]:
    """The client's headers without those for this server alone, and who asks."""
    lines: list[tuple[str, str]] = []
    for name, value in request.headers.items():
        if name in _NOT_FORWARDED or name.startswith(_NEVER_FORWARDED) or STANDARD_NAMES.covers(name):
            continue
        values = [part.strip() for part in value.split(",")] if name in _SEPARATE_LINES else [value]
        lines += [(name, one) for one in values]
    lines += identity_headers(request.user)
    if request.remote:
        lines.append(("X-Forwarded-For", request.remote))
    if "host" in request.headers:
        lines.append(("X-Forwarded-Host", request.headers["host"]))
    lines += [("X-Forwarded-Proto", "https"), ("X-Forwarded-Uri", request.path)]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(("Content-Length", str(len(request.body))))
    if is_upgrade(request.headers):
        return [*lines, ("Connection", "Upgrade"), ("Upgrade", request.headers["upgrade"])]
    return [*lines, ("Connection", "close")]
