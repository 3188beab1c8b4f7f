"""How a request reaches an API server: the small interface the client stands on.

`https.HttpsTransport` goes over the network, `local.LocalTransport` calls a server in the same process; tests
have a third one in memory. A transport knows nothing of Kubernetes but its bytes: no decoding, no errors by
status code.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

Query = Sequence[tuple[str, str]]
"""Query parameters in order; a name may occur more than once."""


class ConnectionFailed(Exception):
    """The server could not be reached or went away in the middle of an answer. Trying again later may help.

    For a request that writes, nothing is known about whether the server did it.
    """


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body is read while it comes. `chunks` has no framing of its own."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Transport(Protocol):
    """Safe to use from many tasks of one loop."""

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Send one request and read the whole answer. Raises ConnectionFailed."""

    def stream(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> AbstractAsyncContextManager[Stream]:
        """Send one request; the answer's body is read inside the context. Raises ConnectionFailed, also
        later.
        """

    async def close(self) -> None:
        """Drop all connections. The transport cannot be used afterwards."""


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a stream of chunks, without their ends, of any length; an unfinished last line is dropped.

    A watch that is cut in the middle of a frame ends there: the frame comes again on the next watch.
    """
    rest: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if not others:
            continue
        line = b"".join(rest)
        if line:
            yield line
        for line in others[:-1]:
            if line:
                yield line
        rest = [others[-1]]
