"""Transport into an API server of the same process: no sockets, no TLS, no HTTP parsing.

The server's `handle` takes a request value and answers with status, headers and a body. This module does not
import the server; what it needs of it is written down as protocols, and the composing code passes both
callables in.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from controlplane.client.transport import Query, Response, Stream


class Answer(Protocol):
    """What the server's `handle` returns."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes | AsyncIterator[bytes]: ...


class RequestFactory(Protocol):
    """Makes the server's request value. `user` is whoever the server takes for authenticated."""

    def __call__(
        self, *, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes, user: Any
    ) -> Any: ...


class LocalTransport:
    """Calls `handle(make_request(...))` as `user`."""

    def __init__(
        self, handle: Callable[[Any], Awaitable[Answer]], user: Any, make_request: RequestFactory
    ) -> None:
        self._handle = handle
        self._user = user
        self._make_request = make_request

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        answer = await self._answer(method, path, query, headers, body)
        if isinstance(answer.body, bytes):
            return Response(answer.status, _lower(answer.headers), answer.body)
        return Response(
            answer.status, _lower(answer.headers), b"".join([chunk async for chunk in answer.body])
        )

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AsyncIterator[Stream]:
        answer = await self._answer(method, path, query, headers, body)
        if isinstance(answer.body, bytes):
            yield Stream(answer.status, _lower(answer.headers), _once(answer.body))
            return
        chunks = answer.body
        if isinstance(chunks, AsyncGenerator):
            async with aclosing(chunks):
                yield Stream(answer.status, _lower(answer.headers), chunks)
        else:
            yield Stream(answer.status, _lower(answer.headers), chunks)

    async def close(self) -> None:
        """Nothing is held open."""

    async def _answer(
        self, method: str, path: str, query: Query, headers: Mapping[str, str] | None, body: bytes
    ) -> Answer:
        request = self._make_request(
            method=method, path=path, query=query, headers=headers or {}, body=body, user=self._user
        )
        return await self._handle(request)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}
