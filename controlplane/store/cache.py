"""The watch cache: all objects of one kind, parsed and encoded once, and the latest events about them.

The API server reads, lists and watches here; the store is asked for revisions the cache no longer knows. One
cache follows one prefix of the store; watchers never hold it up. Of Kubernetes it knows `metadata` only.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from bisect import bisect_left, bisect_right, insort
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from controlplane.errors import Object
from controlplane.store.events import CacheEvent, FrameType, Stored, WatchFrame, decoded, encoded, split
from controlplane.store.history import HISTORY_EVENTS, History
from controlplane.store.protocol import Change, Compacted, Record, Store, StoreClosed, StoreError, Watch
from controlplane.store.watcher import WATCHER_LIMIT, Predicate, Watcher, WatcherTooSlow

__all__ = ["FrameType", "Stored", "WatchCache", "WatchFrame", "Watcher", "WatcherTooSlow"]

log = logging.getLogger(__name__)

Convert = Callable[[Sequence[Object]], Awaitable[Sequence[Object]]]
"""Objects as stored -> as this cache serves them, in the same order. Raises Unconvertible."""


class Unconvertible(StoreError):
    """What is stored cannot be had in the wanted version; the text says why."""


@dataclass(slots=True)
class _Space:
    """The objects of one namespace ("" for cluster-scoped kinds), by name, and the names in order."""

    objects: dict[str, Stored] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


class WatchCache:
    """Keys are relative to `prefix`: `namespace/name`, or `name` for cluster-scoped kinds.

    With `convert` it holds another version of the objects than the store. A fault of it ends the cache.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        convert: Convert | None = None,
        history: int = HISTORY_EVENTS,
        watcher_limit: int = WATCHER_LIMIT,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._convert = convert
        self._watcher_limit = watcher_limit
        self._spaces: dict[str, _Space] = {}
        self._order: list[str] = []
        self._history = History(history)
        self._revision = 0
        self._watchers: dict[str, set[Watcher]] = {}
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waits = 0
        self._follow: Watch | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken: StoreError | None = None
        self._closing = False

    @property
    def revision(self) -> int:
        """The cache holds everything up to this revision."""
        return self._revision

    @property
    def floor(self) -> int:
        """Events after this revision are known."""
        return self._history.floor

    @property
    def is_broken(self) -> bool:
        """Whether it follows the store no more."""
        return self._broken is not None

    def __len__(self) -> int:
        return sum(len(space.objects) for space in self._spaces.values())

    async def start(self) -> None:
        """Read everything and follow the store from there on. Raises StoreError."""
        await self._load()
        self._task = asyncio.create_task(self._run(), name=f"cache of {self._prefix}")

    async def close(self) -> None:
        """End all watchers and stop following. The store stays open."""
        self._closing = True
        if self._follow is not None:
            self._follow.close()
        if self._task is not None:
            await self._task
        self._end(StoreClosed("the cache was closed"))

    def get(self, namespace: str, name: str) -> Stored | None:
        space = self._spaces.get(namespace)
        return space.objects.get(name) if space else None

    def events_after(self, revision: int) -> Sequence[CacheEvent]:
        """What changed since the cache held `revision`. Raises Compacted when that is too long ago."""
        if revision < self.floor:
            raise Compacted(revision, self.floor)
        return self._history.after(revision)

    async def wait_for(self, revision: int) -> None:
        """Return when the cache holds that revision, which the store must have reached already."""
        if self._revision >= revision:
            return
        if self._broken is not None:
            raise self._broken
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits += 1
        heapq.heappush(self._waiting, (revision, self._waits, arrived))
        if self._follow is not None:
            self._follow.request_progress()
        await arrived

    async def catch_up(self) -> int:
        """Wait until the cache holds all that was acknowledged before this call; returns its revision."""
        await self.wait_for(await self._store.revision())
        return self._revision

    def scan(
        self, namespace: str = "", *, after: str = "", revision: int = 0
    ) -> Iterator[tuple[str, Stored]]:
        """Keys and objects in key order, as they were at `revision` (0 = now), behind the key `after`.

        Take all you need before you await. Raises Compacted when the cache does not reach back that far.
        """
        undone = self._undone(revision, namespace) if revision and revision < self._revision else {}
        if not undone:
            return self._present(namespace, after)
        return self._past(namespace, after, undone)

    def count(self, namespace: str = "") -> int:
        """How many objects there are now."""
        if not namespace:
            return len(self)
        space = self._spaces.get(namespace)
        return len(space.objects) if space else 0

    async def read(self, namespace: str, revision: int) -> list[tuple[str, Stored]]:
        """`scan` of a past revision, from the store when the cache does not reach back. Raises Compacted."""
        if revision >= self.floor:
            return list(self.scan(namespace, revision=revision))
        prefix = f"{self._prefix}{namespace}/" if namespace else self._prefix
        page = await self._store.range(prefix, revision=revision)
        served = await self._served(page.records)
        return [
            (record.key[len(self._prefix) :], stored)
            for record, stored in zip(page.records, served, strict=True)
        ]

    def watch(
        self,
        after: int | None,
        namespace: str = "",
        predicate: Predicate | None = None,
        *,
        name: str = "",
    ) -> Watcher:
        """Events after revision `after`, or (None) ADDED for all that is there and then events.

        Raises Compacted when events after `after` are gone already.
        """
        initial: list[Stored] = []
        past: Sequence[CacheEvent] = ()
        if after is None:
            initial = [stored for key, stored in self.scan(namespace) if not name or split(key)[1] == name]
        elif after < self.floor:
            raise Compacted(after, self.floor)
        else:
            past = self._history.after(after)
        watcher = Watcher(
            after=self._revision if after is None else after,
            namespace=namespace,
            name=name,
            predicate=predicate,
            initial=initial,
            limit=self._watcher_limit,
            on_close=self._forget,
        )
        if self._broken is not None:
            raise self._broken
        self._watchers.setdefault(namespace, set()).add(watcher)
        for event in past:
            if not namespace or event.namespace == namespace:
                watcher.offer(event)
        return watcher

    async def _run(self) -> None:
        try:
            while self._follow is not None and not self._closing:
                try:
                    async for changes in self._follow:
                        revision = self._follow.revision
                        served = await self._served([each.record for each in changes if each.record])
                        self._take(changes, served, revision)
                    return
                except Compacted as fault:
                    log.warning("%s: %s, reading everything again", self._prefix, fault)
                    self._finish_watchers(WatcherTooSlow(str(fault)))
                    self._follow.close()
                    await self._load()
        except StoreError as fault:
            if not isinstance(fault, StoreClosed):
                log.error("%s: cannot follow the store any more: %s", self._prefix, fault)
            self._end(fault)

    async def _load(self) -> None:
        page = await self._store.range(self._prefix)
        served = await self._served(page.records)
        self._spaces.clear()
        self._order.clear()
        for record, stored in zip(page.records, served, strict=True):
            self._place(record.key[len(self._prefix) :], stored)
        self._history.begin(page.revision)
        self._follow = self._store.watch(self._prefix, page.revision)
        self._advance(page.revision)

    async def _served(self, records: Sequence[Record]) -> list[Stored]:
        """The records as this cache serves them."""
        found = [decoded(record) for record in records]
        if self._convert is None or not found:
            return found
        converted = await self._convert([stored.object for stored in found])
        return [
            stored if obj is stored.object else Stored(obj, encoded(obj), stored.revision)
            for stored, obj in zip(found, converted, strict=True)
        ]

    def _take(self, changes: Sequence[Change], served: Sequence[Stored], revision: int) -> None:
        states = iter(served)
        for change in changes:
            key = change.key[len(self._prefix) :]
            stored = next(states) if change.record is not None else None
            previous = self._place(key, stored)
            if stored is None and previous is None:
                continue
            event = CacheEvent(change.revision, key, stored, previous)
            self._history.add(event)
            for space in {event.namespace, ""}:
                for watcher in tuple(self._watchers.get(space, ())):
                    watcher.offer(event)
        self._history.trim()
        self._advance(revision)

    def _place(self, key: str, stored: Stored | None) -> Stored | None:
        """Put or remove (None) an object; returns what was there before."""
        namespace, name = split(key)
        space = self._spaces.get(namespace)
        if stored is None:
            previous = space.objects.pop(name, None) if space else None
            if space is not None and previous is not None:
                del space.names[bisect_left(space.names, name)]
                if not space.objects:
                    del self._spaces[namespace]
                    self._order.remove(namespace + "/")
            return previous
        if space is None:
            space = self._spaces[namespace] = _Space()
            insort(self._order, namespace + "/")
        previous = space.objects.get(name)
        if previous is None:
            insort(space.names, name)
        space.objects[name] = stored
        return previous

    def _present(self, namespace: str, after: str) -> Iterator[tuple[str, Stored]]:
        for slashed in (f"{namespace}/",) if namespace else self._order:
            space = self._spaces.get(slashed[:-1])
            if space is None:
                continue
            start = "" if slashed == "/" else slashed
            first = 0
            if after and after >= start:
                if not after.startswith(start):
                    continue
                first = bisect_right(space.names, after[len(start) :])
            for name in space.names[first:]:
                yield start + name, space.objects[name]

    def _past(
        self, namespace: str, after: str, undone: dict[str, Stored | None]
    ) -> Iterator[tuple[str, Stored]]:
        state: dict[str, Stored | None] = dict(self._present(namespace, after))
        state.update((key, stored) for key, stored in undone.items() if key > after)
        for key in sorted(state):
            stored = state[key]
            if stored is not None:
                yield key, stored

    def _undone(self, revision: int, namespace: str) -> dict[str, Stored | None]:
        """What the objects changed after `revision` were at it."""
        if revision < self.floor:
            raise Compacted(revision, self.floor)
        return {
            event.key: event.previous
            for event in reversed(self._history.after(revision))
            if not namespace or event.namespace == namespace
        }

    def _advance(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        while self._waiting and self._waiting[0][0] <= self._revision:
            arrived = heapq.heappop(self._waiting)[2]
            if not arrived.done():
                arrived.set_result(None)

    def _forget(self, watcher: Watcher) -> None:
        self._watchers.get(watcher.namespace, set()).discard(watcher)

    def _finish_watchers(self, fault: StoreError | None) -> None:
        for watcher in [watcher for watchers in self._watchers.values() for watcher in watchers]:
            watcher.finish(fault)

    def _end(self, fault: StoreError) -> None:
        self._broken = fault
        self._finish_watchers(None if isinstance(fault, StoreClosed) else fault)
        for _, _, arrived in self._waiting:
            if not arrived.done():
                arrived.set_exception(fault)
        self._waiting.clear()
