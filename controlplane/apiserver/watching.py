"""Watch frames -> the bytes of a watch's body.

A frame is encoded once per representation and shared by all watchers through `FrameCache`; `WatchStream` joins the
frames that are ready at one moment into one piece, so that a burst costs one write. Called by the read handlers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from controlplane.apiserver.answers import Clock, utc_now
from controlplane.apiserver.negotiation import Representation, Shape
from controlplane.apiserver.registry.requests import FrameType, WatchFrame
from controlplane.errors import Gone, InternalError, Object, StatusError
from controlplane.resources.kind import Kind
from controlplane.resources.table import partial_metadata, table

log = logging.getLogger(__name__)

_PIECE_BYTES = 256 * 1024
_FIRST_TURNS = 5
"""How many turns of the loop a watch gets to refuse its options before its headers are sent."""

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_Key = tuple[str, str, int, str, str, bool, int]


class FrameCache:
    """The encoded frames of the latest events, least recently used ones dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int = 8 * 1024 * 1024, clock: Clock = utc_now) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._frames: OrderedDict[_Key, bytes] = OrderedDict()

    def encode(
        self, kind: Kind, frame: WatchFrame, wanted: Representation, include: str, *, with_columns: bool
    ) -> bytes:
        """One line. A table's cells hold ages, so tables are shared within one second only."""
        now = self._clock()
        second = int(now.timestamp()) if wanted.shape is Shape.TABLE else 0
        key = (
            kind.prefix, frame.type.value, frame.revision, f"{kind.version}/{wanted.shape}/{wanted.version}",
            include, with_columns, second,
        )  # fmt: skip
        shared = frame.type is not FrameType.BOOKMARK
        if shared:
            found = self._frames.get(key)
            if found is not None:
                self._frames.move_to_end(key)
                return found
        line = b"".join(
            (
                b'{"type":"', frame.type.value.encode(), b'","object":',
                self._object(kind, frame, wanted, include, with_columns), b"}\n",
            )
        )  # fmt: skip
        if shared:
            self._keep(key, line)
        return line

    def _keep(self, key: _Key, line: bytes) -> None:
        self._frames[key] = line
        self._bytes += len(line)
        while self._bytes > self._max_bytes:
            _, dropped = self._frames.popitem(last=False)
            self._bytes -= len(dropped)

    def _object(
        self, kind: Kind, frame: WatchFrame, wanted: Representation, include: str, with_columns: bool
    ) -> bytes:
        if frame.stored is None:
            return orjson.dumps(_bookmark(kind, frame, wanted))
        if wanted.shape is Shape.OBJECT:
            return frame.stored.encoded
        obj = frame.stored.object
        if wanted.shape is Shape.METADATA:
            shaped = partial_metadata(obj)
        else:
            shaped = table(
                kind, [obj], self._clock(), include, str(frame.revision), with_columns=with_columns
            )
        shaped["apiVersion"] = f"meta.k8s.io/{wanted.version}"
        return orjson.dumps(shaped)


def _bookmark(kind: Kind, frame: WatchFrame, wanted: Representation) -> Object:
    metadata: Object = {"resourceVersion": str(frame.revision), "creationTimestamp": None}
    if frame.initial_events_end:
        metadata["annotations"] = {_INITIAL_EVENTS_END: "true"}
    if wanted.shape is Shape.TABLE:
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{wanted.version}",
            "metadata": {"resourceVersion": str(frame.revision)},
            "columnDefinitions": None,
            "rows": [],
        }
    if wanted.shape is Shape.METADATA:
        api_version, name = f"meta.k8s.io/{wanted.version}", "PartialObjectMetadata"
    else:
        api_version, name = kind.api_version, kind.kind
    return {"kind": name, "apiVersion": api_version, "metadata": metadata}


def error_line(error: StatusError) -> bytes:
    return b'{"type":"ERROR","object":' + orjson.dumps(error.status()) + b"}\n"


class WatchStream(AsyncGenerator[bytes, None]):
    """The body of one watch: pieces of encoded frames until the watch ends.

    `open` it first. A generator in form only, so that `aclose` ends the watch even when nothing was read yet.
    """

    def __init__(
        self,
        kind: Kind,
        frames: AsyncIterator[WatchFrame],
        wanted: Representation,
        include: str,
        cache: FrameCache,
    ) -> None:
        self._kind = kind
        self._frames = frames
        self._wanted = wanted
        self._include = include
        self._cache = cache
        self._columns_sent = False
        self._ended = False
        self._step = self._next()

    async def open(self) -> None:
        """Begin; raises the StatusError with which the registry refuses the watch's options.

        A revision that is too old is no refusal: as upstream, it is told by an ERROR event inside the stream.
        """
        for _ in range(_FIRST_TURNS):
            await asyncio.sleep(0)
            if self._step.done():
                break
        else:
            return
        error = self._step.exception()
        if isinstance(error, StatusError) and not isinstance(error, Gone):
            await self._end()
            raise error

    async def asend(self, value: None) -> bytes:
        """The next piece: all frames that are there, at least one."""
        if self._ended:
            raise StopAsyncIteration
        await asyncio.wait((self._step,))
        lines: list[bytes] = []
        size = 0
        more = True
        while more and self._step.done() and size < _PIECE_BYTES:
            line, more = await self._take()
            if line:
                lines.append(line)
                size += len(line)
        if not lines:
            raise StopAsyncIteration
        return b"".join(lines)

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> bytes:
        await self._end()
        raise typ if val is None else val

    async def _take(self) -> tuple[bytes, bool]:
        """The line of the frame that is ready, and whether more may come; ends the watch at its end."""
        try:
            frame = self._step.result()
        except StatusError as error:
            await self._end()
            return error_line(error), False
        except Exception:
            log.exception("%s: watch failed", self._kind.plural)
            await self._end()
            return error_line(InternalError("the watch failed inside the server")), False
        if frame is None:
            await self._end()
            return b"", False
        with_columns = not self._columns_sent
        self._columns_sent = self._columns_sent or frame.type is not FrameType.BOOKMARK
        line = self._cache.encode(self._kind, frame, self._wanted, self._include, with_columns=with_columns)
        self._step = self._next()
        await asyncio.sleep(0)
        return line, True

    def _next(self) -> asyncio.Task[WatchFrame | None]:
        async def step() -> WatchFrame | None:
            return await anext(self._frames, None)

        return asyncio.create_task(step())

    async def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._step.done():
            self._step.cancel()
            await asyncio.wait((self._step,))
        if not self._step.cancelled():
            self._step.exception()  # told already, or of no interest to a client that is gone
        if isinstance(self._frames, AsyncGenerator):
            await self._frames.aclose()
