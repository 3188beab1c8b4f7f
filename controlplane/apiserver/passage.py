"""One request on its way through the server, as those see it who count, log and limit requests.

Made by the core for each request and shown to its observers; handlers do not know of it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from multidict import CIMultiDict

from controlplane.apiserver.admission.plugin import Remarks
from controlplane.apiserver.messages import ApiRequest, ApiResponse, Tunnel
from controlplane.apiserver.options import Query
from controlplane.apiserver.routing import RequestInfo, resolve
from controlplane.errors import BadRequest, StatusError

AUDIT_ID = "Audit-Id"
_LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "log", "portforward", "proxy"})


@dataclass(slots=True)
class Passage:
    """`received` is the wall clock's time in seconds, `started` the monotonic one's; `waited` the seconds in a queue.

    `code` and `size` (bytes of the body) are known once the request is over, `panic` is the failure inside the
    server that ended it. `headers` are put on the answer. `fault`
    is what made the path or query unreadable; `info` then only says the method. `remarks.annotations` go to the audit
    log.
    """

    request: ApiRequest
    query: Query
    info: RequestInfo
    id: str
    received: float
    started: float
    fault: StatusError | None = None
    remarks: Remarks = field(default_factory=Remarks)
    headers: Mapping[str, str] = field(default_factory=dict)
    seat: Seat | None = None
    waited: float = 0.0
    code: int = 0
    size: int = 0
    panic: str = ""

    def leave_seat(self) -> None:
        """Let the next one in. May be called more than once."""
        seat, self.seat = self.seat, None
        if seat is not None:
            seat.leave()

    @property
    def is_long_running(self) -> bool:
        """Whether the answer goes on for as long as the client wants: watches, streams, tunnels."""
        return self.info.verb == "watch" or (
            self.info.is_resource and self.info.subresource in _LONG_RUNNING_SUBRESOURCES
        )

    @property
    def seconds(self) -> float:
        """Since the request arrived."""
        return time.perf_counter() - self.started


_SHORT_PATH = 200
_resolve_again = functools.lru_cache(maxsize=1024)(resolve)
"""Controllers and watchers ask for the same paths again and again."""


class Seat(Protocol):
    """A request's place among those that are in work."""

    def leave(self) -> None:
        """The request is done."""


class Observer(Protocol):
    """Sees requests come and go. Must be quick, and must not raise."""

    def received(self, passage: Passage) -> None:
        """The request is there; nothing was decided yet."""

    def begun(self, passage: Passage) -> None:
        """A long-running answer starts; `ended` follows when it is over."""

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        """The answer is complete; `passage.code` and `passage.size` are set."""


def begin(request: ApiRequest) -> Passage:
    """The passage of a request that just arrived. Never raises: a fault of the path is kept for the answer."""
    query = Query(request.query)
    fault: StatusError | None = None
    try:
        find = _resolve_again if len(request.path) <= _SHORT_PATH else resolve
        info = find(request.method, request.path, watch=query.flag("watch"))
    except BadRequest as error:
        fault, info = error, RequestInfo(request.method.lower(), request.path)
    audit_id = request.headers.get("audit-id", "")[:64] or _new_id()
    return Passage(request, query, info, audit_id, time.time(), time.perf_counter(), fault)


def _new_id() -> str:
    """A random (version 4) UUID, as text."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class ObservedStream(AsyncGenerator[bytes, None]):
    """A body that goes on, counted; `on_end` is called once, when it is exhausted or closed."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], on_end: Callable[[int], None]) -> None:
        self._pieces = pieces
        self._on_end: Callable[[int], None] | None = on_end
        self._size = 0

    async def asend(self, value: None) -> bytes:
        try:
            piece = await self._pieces.asend(value)
        except BaseException:
            self._end()
            raise
        self._size += len(piece)
        return piece

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> bytes:
        self._end()
        return await self._pieces.athrow(typ, val, tb)

    async def aclose(self) -> None:
        self._end()
        await self._pieces.aclose()

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self._size)


class ObservedTunnel:
    """An accepted upgrade, counted; `on_end` is called once, when it is closed."""

    def __init__(self, far: Tunnel, on_end: Callable[[int], None]) -> None:
        self._far = far
        self._on_end: Callable[[int], None] | None = on_end
        self._size = 0

    async def read(self) -> bytes:
        data = await self._far.read()
        self._size += len(data)
        return data

    async def write(self, data: bytes) -> None:
        await self._far.write(data)

    async def close(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self._size)
        await self._far.close()


def observed(passage: Passage, response: ApiResponse, observers: Sequence[Observer]) -> ApiResponse:
    """`response` with the passage's headers and Audit-Id.

    The observers are told of its end, at once or when its stream is over.
    """
    passage.code = response.status
    body, tunnel = response.body, response.tunnel
    if isinstance(body, bytes) and tunnel is None:
        passage.size = len(body)
        for observer in observers:
            observer.ended(passage, response)
        return ApiResponse(response.status, _headers(passage, response), body, on_sent=passage.leave_seat)
    passage.leave_seat()
    for observer in observers:
        observer.begun(passage)

    def end(size: int) -> None:
        passage.size = size
        for observer in observers:
            observer.ended(passage, response)

    headers = _headers(passage, response)
    if tunnel is not None:
        return ApiResponse(response.status, headers, body, ObservedTunnel(tunnel, end))
    assert not isinstance(body, bytes)
    return ApiResponse(response.status, headers, ObservedStream(body, end), is_watch=response.is_watch)


def _headers(passage: Passage, response: ApiResponse) -> Mapping[str, str]:
    if isinstance(response.headers, dict):
        return {**response.headers, **passage.headers, AUDIT_ID: passage.id}
    headers = CIMultiDict(response.headers)
    headers.update(passage.headers)
    headers[AUDIT_ID] = passage.id
    return headers
