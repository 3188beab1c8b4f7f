"""Objects that live for a time after their last write, as under a lease of etcd: Events.

The registry runs one for each such kind. It follows the kind's changes and deletes what is due; it costs what is
written and what expires, never a scan. After a restart the server's own timestamps in the objects tell how old they
are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from controlplane.apiserver.registry.storage import Storage
from controlplane.errors import Object, StatusError
from controlplane.meta.timestamps import parse
from controlplane.resources.kind import Kind
from controlplane.store.cache import Watcher
from controlplane.store.events import FrameType, WatchFrame
from controlplane.store.protocol import RevisionMismatch, StoreClosed, StoreError

log = logging.getLogger(__name__)

_AT_ONCE = 256
"""Objects that are deleted at the same time; their commits share flushes."""
_LONGEST_PAUSE = 60.0
_RETRY_SECONDS = 1.0


class Expiry:
    """Deletes objects of `kind` that nobody has written for `seconds`. `clock` gives the present, aware."""

    def __init__(self, storage: Storage, kind: Kind, seconds: float, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._kind = kind
        self._seconds = seconds
        self._clock = clock
        self._due: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        """Moment and revision by namespace and name, what is due first at the front."""
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many objects are known to expire some time."""
        return len(self._due)

    async def run(self) -> None:
        """Until cancelled, or until the store is closed."""
        is_over = False
        while not is_over:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow())
                    group.create_task(self._sweep_for_ever())
            except* StoreClosed:
                is_over = True
            except* (StoreError, StatusError) as faults:
                log.warning("%s: expiry: %s", self._kind.plural, faults.exceptions[0])
                await asyncio.sleep(_RETRY_SECONDS)

    async def begin(self) -> Watcher:
        """Take over what is there; the watcher tells what changes from here on."""
        await self._storage.ready(self._kind)
        cache = self._storage.cache(self._kind)
        watcher = cache.watch(cache.revision)
        now = self._clock().timestamp()
        found = sorted(
            (min(_written(stored.object), now) + self._seconds, stored.revision, key)
            for key, stored in cache.scan()
        )
        self._due.clear()
        for moment, revision, key in found:
            namespace, _, name = key.rpartition("/")
            self._due[namespace, name] = (moment, revision)
        self._changed.set()
        return watcher

    def note(self, frame: WatchFrame) -> None:
        """A change: what was written lives on, what was deleted needs no care."""
        if frame.stored is None:
            return
        metadata = frame.stored.object["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        self._due.pop(key, None)
        if frame.type is not FrameType.DELETED:
            self._due[key] = (self._clock().timestamp() + self._seconds, frame.revision)
            if len(self._due) == 1:
                self._changed.set()

    async def sweep(self) -> int:
        """Delete what is due now; returns how many objects went."""
        now = self._clock().timestamp()
        gone = 0
        while True:
            batch: list[tuple[str, str, int]] = []
            for (namespace, name), (moment, revision) in self._due.items():
                if moment > now or len(batch) == _AT_ONCE:
                    break
                batch.append((namespace, name, revision))
            if not batch:
                return gone
            for namespace, name, _ in batch:
                del self._due[namespace, name]
            results = await asyncio.gather(*(self._remove(*each) for each in batch))
            gone += sum(results)

    async def _remove(self, namespace: str, name: str, revision: int) -> bool:
        cache = self._storage.cache(self._kind)
        stored = cache.get(namespace, name)
        if stored is None or stored.revision != revision:
            return False
        with suppress(RevisionMismatch):
            await self._storage.remove(self._kind, self._kind.key(namespace, name), stored.object, revision)
            return True
        return False

    async def _follow(self) -> None:
        watcher = await self.begin()
        try:
            async for frame in watcher:
                self.note(frame)
        finally:
            watcher.close()
        raise StoreClosed("the watch of what expires has ended")

    async def _sweep_for_ever(self) -> None:
        while True:
            pause = _LONGEST_PAUSE
            if self._due:
                first = next(iter(self._due.values()))[0]
                pause = min(max(first - self._clock().timestamp(), 0.0), _LONGEST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()
            await self.sweep()


def _written(obj: Object) -> float:
    """When the object was last written, as well as it can be told."""
    metadata = obj["metadata"]
    series = obj.get("series") or {}
    told = [
        metadata.get("creationTimestamp"),
        obj.get("lastTimestamp"),
        series.get("lastObservedTime"),
        *(entry.get("time") for entry in metadata.get("managedFields") or ()),
    ]
    moments = [0.0]
    for text in told:
        if text:
            with suppress(ValueError):
                moments.append(parse(text).timestamp())
    return max(moments)
