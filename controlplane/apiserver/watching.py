"""Watch frames -> the bytes of a watch's body.

A frame is encoded once per representation and shared by all watchers through `FrameCache`; `WatchStream` joins the
frames that are ready at one moment into one piece, so that a burst costs one write. Called by the read handlers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import orjson

from controlplane.apiserver.answers import Clock
from controlplane.apiserver.negotiation import Representation, Shape
from controlplane.apiserver.registry.requests import FrameType, WatchFrame
from controlplane.errors import Gone, InternalError, Object, StatusError
from controlplane.meta.timestamps import utc_now
from controlplane.resources.kind import Kind
from controlplane.resources.table import partial_metadata, table

log = logging.getLogger(__name__)

_PIECE_BYTES = 256 * 1024

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_Key = tuple[str, str, int, str, str, bool, int]


class FrameCache:
    """The encoded frames of the latest events, least recently used ones dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int = 8 * 1024 * 1024, clock: Clock = utc_now) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._frames: OrderedDict[_Key, bytes] = OrderedDict()
        self.events: dict[tuple[str, ...], float] = {}

    def encode(
        self, kind: Kind, frame: WatchFrame, wanted: Representation, include: str, *, with_columns: bool
    ) -> bytes:
        """One line. A table's cells hold ages, so tables are shared within one second only."""
        second = int(self._clock().timestamp()) if wanted.shape is Shape.TABLE else 0
        key = (
            kind.prefix, frame.type.value, frame.revision, f"{kind.api_version}/{wanted.shape}/{wanted.version}",
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

    def count(self, kind: Kind, events: int) -> None:
        """So many events were sent to a watcher."""
        key = kind.group, kind.version, kind.kind
        self.events[key] = self.events.get(key, 0.0) + events

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


class Frames(Protocol):
    """What a stream is made of; see `registry.watching.ObjectWatch`."""

    async def begin(self) -> None: ...

    def ready(self) -> WatchFrame | None: ...

    async def __anext__(self) -> WatchFrame: ...

    async def aclose(self) -> None: ...


class WatchStream(AsyncGenerator[bytes, None]):
    """The body of one watch: pieces of encoded frames until the watch ends.

    `open` it first. A generator in form only, so that `aclose` ends the watch even when nothing was read yet.
    """

    def __init__(
        self, kind: Kind, frames: Frames, wanted: Representation, include: str, cache: FrameCache
    ) -> None:
        self._kind = kind
        self._frames = frames
        self._wanted = wanted
        self._include = include
        self._cache = cache
        self._columns_sent = False
        self._ended = False

    async def open(self) -> None:
        """Begin; raises the StatusError with which the registry refuses the watch's options."""
        try:
            await self._frames.begin()
        except Gone:
            # The first step raises it again: as upstream, a revision that is too old is told inside the stream.
            return
        except StatusError:
            await self._end()
            raise

    async def asend(self, value: None) -> bytes:
        """The next piece: all frames that are there, at least one."""
        if self._ended:
            raise StopAsyncIteration
        lines: list[bytes] = []
        try:
            await self._collect(lines)
        except StopAsyncIteration:
            await self._end()
        except StatusError as error:
            await self._end()
            lines.append(error_line(error))
        except Exception:
            log.exception("%s: watch failed", self._kind.plural)
            await self._end()
            lines.append(error_line(InternalError("the watch failed inside the server")))
        if not lines:
            raise StopAsyncIteration
        return b"".join(lines)

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> bytes:
        await self._end()
        raise typ if val is None else val

    async def _collect(self, lines: list[bytes]) -> None:
        frame = self._frames.ready()
        if frame is None:
            frame = await anext(self._frames)
        else:
            await asyncio.sleep(0)  # With many frames waiting, others get their turn between two pieces.
        size = 0
        while frame is not None:
            line = self._line(frame)
            lines.append(line)
            size += len(line)
            frame = self._frames.ready() if size < _PIECE_BYTES else None
        self._cache.count(self._kind, len(lines))

    def _line(self, frame: WatchFrame) -> bytes:
        with_columns = not self._columns_sent
        self._columns_sent = self._columns_sent or frame.type is not FrameType.BOOKMARK
        return self._cache.encode(self._kind, frame, self._wanted, self._include, with_columns=with_columns)

    async def _end(self) -> None:
        self._ended = True
        await self._frames.aclose()
