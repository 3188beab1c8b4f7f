"""Values of the watch cache: served objects, events about them, frames for one watcher.

The cache makes them, the registry and the HTTP layer read them; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import orjson

from controlplane.errors import Object
from controlplane.meta.managed.sets import shared
from controlplane.store.protocol import Record, StoreError


class FrameType(StrEnum):
    """`type` of a watch frame. There is no ERROR: a watch that fails raises."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as served: parsed (read-only) and as JSON bytes, both with metadata.resourceVersion set."""

    object: Object
    encoded: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class WatchFrame:
    """One event for a watcher; `revision` is its resourceVersion. BOOKMARK frames have no `stored`."""

    type: FrameType
    stored: Stored | None
    revision: int
    initial_events_end: bool = False


class CacheEvent:
    """One change of one object.

    `current` is the new state, None after a deletion; `previous` the state before, None for a new object.
    Those for whom the object went away see its last state with the revision of this event.
    """

    __slots__ = ("_frames", "current", "key", "name", "namespace", "previous", "revision")

    def __init__(self, revision: int, key: str, current: Stored | None, previous: Stored | None) -> None:
        self.revision = revision
        self.key = key
        self.namespace, self.name = split(key)
        self.current = current
        self.previous = previous
        self._frames: dict[FrameType, WatchFrame] = {}

    def frame(self, type_: FrameType) -> WatchFrame:
        """The event as ADDED, MODIFIED or DELETED; one frame for all watchers that see it so."""
        found = self._frames.get(type_)
        if found is None:
            stored = self._gone() if type_ is FrameType.DELETED else self.current
            found = self._frames[type_] = WatchFrame(type_, stored, self.revision)
        return found

    def _gone(self) -> Stored:
        if self.previous is None:
            raise ValueError(f"{self.key}: nothing went away at revision {self.revision}")
        return stamped(self.previous.object, self.revision)


def split(key: str) -> tuple[str, str]:
    """Namespace ("" if there is none) and name of a relative key."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def decoded(record: Record) -> Stored:
    """A store's record as served object. Raises StoreError when it holds no object with metadata."""
    try:
        obj = orjson.loads(record.value)
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(record.mod_revision)
        for entry in metadata.get("managedFields") or ():
            entry["fieldsV1"] = shared(entry.get("fieldsV1"))
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise StoreError(f"{record.key}: the stored value is no object: {fault}") from fault
    return Stored(obj, encoded(obj), record.mod_revision)


def stamped(obj: Object, revision: int) -> Stored:
    """The object with that resourceVersion; `obj` itself stays as it is."""
    copy = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}
    return Stored(copy, encoded(copy), revision)


def encoded(obj: Object) -> bytes:
    """JSON that is going to be kept: cut to size, as what orjson returns holds a buffer of 4 KB and more."""
    return bytes(memoryview(orjson.dumps(obj)))
