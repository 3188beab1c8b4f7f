"""One request and one answer, free of any transport.

Made by the aiohttp shell (`shell.py`) and by the in-process client; consumed and produced by `ApiServer.handle`.
Must not know of sockets.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from controlplane.apiserver.user import ANONYMOUS, UserInfo
from controlplane.errors import Object, StatusError

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What a client asks.

    `path` is the path as it was sent, still percent-encoded, without the query. `query` holds decoded pairs in order
    (names may repeat). `headers` have lower-case names. `user` is who asks; authentication is done by then.
    `impersonator` is who really asks when `user` is impersonated, `remote` the client's address ("" = this process).
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: UserInfo = ANONYMOUS
    impersonator: UserInfo | None = None
    remote: str = ""


class Tunnel(Protocol):
    """The far side of an accepted upgrade (101): a byte stream that the shell joins to the client's connection."""

    async def read(self) -> bytes:
        """Bytes from the far side; empty at its end."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the far side; waits while it cannot take more."""

    async def close(self) -> None:
        """Close the far side; may be called twice."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """What the server answers.

    `body` is either complete or a stream of pieces to be sent as they come; who consumes a stream must close it
    (`aclose`) when it stops early. With status 101 `tunnel` is set and there is no body. `is_watch` marks streams that
    end by themselves, with a last line, when the server stops. `on_sent` is called once, when a complete body is on its
    way to the client or nobody wants it any more: until then the request keeps its seat.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | AsyncGenerator[bytes, None] = b""
    tunnel: Tunnel | None = None
    is_watch: bool = False
    on_sent: Callable[[], None] | None = None

    def sent(self) -> None:
        """The answer is done with."""
        if self.on_sent is not None:
            self.on_sent()


def typed(status: int, body: bytes, content_type: str = JSON_TYPE) -> ApiResponse:
    return ApiResponse(status, {"Content-Type": content_type}, body)


def json_response(status: int, obj: Object) -> ApiResponse:
    return typed(status, orjson.dumps(obj))


def error_response(error: StatusError) -> ApiResponse:
    """The `Status` body of `error`, with `Retry-After` where it says when to come again."""
    headers = {"Content-Type": JSON_TYPE}
    if error.retry_after:
        headers["Retry-After"] = str(error.retry_after)
    return ApiResponse(error.code, headers, orjson.dumps(error.status()))
