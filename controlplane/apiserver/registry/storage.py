"""Objects of kinds <-> records of the store: encoding, conversion, watch caches, commits with their reservations.

Every verb reads and writes through it. A kind's cache is made when the kind is first asked for (`ready`), and each
served version has its own, so that objects are converted once and not for every reader. After a write it waits for the
cache, so that whoever was answered finds what it wrote. Faults of the store leave it as StatusErrors, lost races as
RevisionMismatch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence

import orjson

from controlplane.apiserver.allocation.allocator import Allocator, Reservation
from controlplane.errors import InternalError, NotFound, Object, ServiceUnavailable, Unclassified
from controlplane.resources.kind import Conversion, ConversionFault, Kind
from controlplane.store.cache import Convert, Unconvertible, WatchCache
from controlplane.store.events import Stored, encoded, split, stamped
from controlplane.store.protocol import (
    Change,
    Compacted,
    Delete,
    Put,
    RevisionMismatch,
    Store,
    StoreClosed,
    StoreError,
    Write,
)


@contextlib.contextmanager
def store_faults() -> Iterator[None]:
    """Faults of the store as answers; RevisionMismatch and Compacted are the caller's to judge."""
    try:
        yield
    except (RevisionMismatch, Compacted):
        raise
    except StoreClosed as fault:
        raise ServiceUnavailable("the API server is shutting down") from fault
    except Unconvertible as fault:
        raise Unclassified(str(fault)) from fault
    except StoreError as fault:
        raise InternalError(f"Internal error occurred: {fault}") from fault


_CHANGED = "the definition of the resource has changed, please try again"

_Place = tuple[str, str]
"""A folder of the store, and the apiVersion its objects are served in."""


class Storage:
    """`kinds` is the live set of served kinds; the allocators' kinds are read at the start."""

    def __init__(self, store: Store, kinds: Iterable[Kind], allocators: Sequence[Allocator]) -> None:
        self._store = store
        self._kinds = kinds
        self._allocators = allocators
        self._caches: dict[_Place, WatchCache] = {}
        self._versions: dict[str, int] = {}
        self._starting: dict[_Place, asyncio.Task[None]] = {}
        self._commits: set[asyncio.Task[Sequence[Change]]] = set()
        self._closed = False

    async def start(self) -> None:
        """Let the allocators take over what is stored, and store what makes it whole."""
        repairs: list[Write] = []
        for allocator in self._allocators:
            held: list[Object] = []
            for kind in self._kinds:
                if kind.convert is None and allocator.applies_to(kind):
                    await self.ready(kind)
                    held.extend(stored.object for _, stored in self.cache(kind).scan())
            repairs += allocator.rebuild(held)
        if repairs:
            await self._see(await self._store.commit(repairs))

    async def close(self) -> None:
        self._closed = True
        for task in self._starting.values():
            task.cancel()
        pending = [*self._commits, *self._starting.values()]
        if pending:
            await asyncio.wait(pending)
        for cache in self._caches.values():
            await cache.close()

    async def ready(self, kind: Kind) -> None:
        """Make sure of the kind's cache before it is used. Raises Unclassified when its objects cannot be converted.

        Where several versions of one kind are in use, it also holds everything acknowledged so far.
        """
        cache = self._caches.get(_place(kind))
        if cache is None or cache.is_broken:
            await self._begin(kind)
        elif self._versions[kind.prefix] > 1:
            with store_faults():
                await cache.catch_up()

    def cache(self, kind: Kind) -> WatchCache:
        """The cache of a kind that `ready` was called for. Raises NotFound when the kind was taken away since."""
        found = self._caches.get(_place(kind))
        if found is None:
            raise NotFound("the server could not find the requested resource")
        return found

    def count(self, kind: Kind, namespace: str = "") -> int:
        """How many objects the cache of a kind holds; 0 when there is none yet."""
        found = self._caches.get(_place(kind))
        return 0 if found is None else found.count(namespace)

    async def drop(self, prefix: str) -> None:
        """Forget the caches of a folder: what its objects mean has changed, or it is gone. Their watches end."""
        starting = [task for (folder, _), task in self._starting.items() if folder == prefix]
        for task in starting:
            task.cancel()  # It may wait for a webhook that nobody wants any more.
        if starting:
            await asyncio.wait(starting)
        dropped = [self._remove(place) for place in list(self._caches) if place[0] == prefix]
        for cache in dropped:
            await cache.close()

    async def _begin(self, kind: Kind) -> None:
        """Start the cache, once for all who wait for it."""
        if self._closed:
            raise ServiceUnavailable("the API server is shutting down")
        place = _place(kind)
        task = self._starting.get(place)
        if task is None:
            task = self._starting[place] = asyncio.create_task(
                self._start_cache(kind), name=f"cache of {kind.prefix}"
            )
            task.add_done_callback(lambda done: self._started(place, done))
        try:
            with store_faults():
                await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not task.cancelled() or (current is not None and current.cancelling()):
                raise
            raise ServiceUnavailable(_CHANGED, retry_after=1) from None

    async def _start_cache(self, kind: Kind) -> None:
        place = _place(kind)
        if place in self._caches:
            await self._remove(place).close()
        cache = WatchCache(self._store, kind.prefix, convert=_reading(kind))
        await cache.start()
        self._caches[place] = cache
        self._versions[kind.prefix] = self._versions.get(kind.prefix, 0) + 1

    def _started(self, place: _Place, done: asyncio.Task[None]) -> None:
        del self._starting[place]
        if not done.cancelled():
            done.exception()  # Those who wait have it; nobody else needs to be told.

    def _remove(self, place: _Place) -> WatchCache:
        self._versions[place[0]] -= 1
        return self._caches.pop(place)

    async def revision(self) -> int:
        with store_faults():
            return await self._store.revision()

    async def newest(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        """The state after everything acknowledged so far."""
        await self.ready(kind)
        with store_faults():
            await self.cache(kind).catch_up()
        return self.cache(kind).get(namespace, name)

    def reserve(self, kind: Kind, new: Object, old: Object | None) -> list[Reservation]:
        """What the allocators hold for this write; they may edit `new`. Raises their StatusErrors."""
        reservations: list[Reservation] = []
        try:
            for allocator in self._allocators:
                if allocator.applies_to(kind):
                    reservations.append(allocator.reserve(kind, new, old))
        except BaseException:
            for reservation in reservations:
                reservation.roll_back()
            raise
        return reservations

    async def put(
        self, kind: Kind, key: str, obj: Object, expect: int, reservations: Sequence[Reservation] = ()
    ) -> Stored:
        """Store `obj` (its metadata gets the new resourceVersion). Raises RevisionMismatch."""
        metadata = obj["metadata"]
        metadata.pop("resourceVersion", None)
        form = obj if kind.convert is None else await _written(kind.convert, obj)
        change = await self._commit(kind, Put(key, encoded(form), expect), reservations)
        for allocator in self._allocators:
            if allocator.applies_to(kind):
                allocator.stored(kind, obj)
        # The cache has it by now, encoded; nobody encodes it again unless another writer was faster still.
        found = self.cache(kind).get(*split(key.removeprefix(kind.prefix)))
        if found is not None and found.revision == change.revision:
            return found
        metadata["resourceVersion"] = str(change.revision)
        return Stored(obj, orjson.dumps(obj), change.revision)

    async def put_all(self, writes: Sequence[tuple[Kind, str, Object, int]]) -> None:
        """Store objects in one commit, without reservations: kind, key, object and expected revision of each.

        Raises RevisionMismatch, and then has stored none.
        """
        puts: list[Write] = []
        for _, key, obj, expect in writes:
            obj["metadata"].pop("resourceVersion", None)
            puts.append(Put(key, encoded(obj), expect))
        with store_faults():
            changes = await self._store.commit(puts)
            for (kind, _, obj, _), change in zip(writes, changes, strict=True):
                for allocator in self._allocators:
                    if allocator.applies_to(kind):
                        allocator.stored(kind, obj)
                await self.cache(kind).wait_for(change.revision)

    async def remove(self, kind: Kind, key: str, obj: Object, expect: int) -> Stored:
        """Delete; `obj` is the last state, returned with the deletion's revision. Raises RevisionMismatch."""
        removals = [
            allocator.removal(kind, obj) for allocator in self._allocators if allocator.applies_to(kind)
        ]
        change = await self._commit(kind, Delete(key, expect), removals)
        return stamped(obj, change.revision)

    async def _commit(self, kind: Kind, write: Write, reservations: Sequence[Reservation]) -> Change:
        """Commit one write, with what its reservations add, and settle them by the outcome, even if the caller is
        cancelled.
        """
        await self.ready(kind)
        cache = self.cache(kind)
        with store_faults():
            if reservations:
                writes = (write, *(more for reservation in reservations for more in reservation.writes))
                task = asyncio.ensure_future(self._store_all(writes))
                self._commits.add(task)
                task.add_done_callback(lambda done: self._settle(done, reservations))
                change, *more = await asyncio.shield(task)
                await self._see(more)
            else:
                (change,) = await self._store.commit((write,))
            await cache.wait_for(change.revision)
        return change

    async def _store_all(self, writes: Sequence[Write]) -> Sequence[Change]:
        return await self._store.commit(writes)

    async def _see(self, changes: Sequence[Change]) -> None:
        """Wait until the caches have what was written beside an object."""
        for change in changes:
            for (prefix, _), cache in list(self._caches.items()):
                if change.key.startswith(prefix):
                    await cache.wait_for(change.revision)

    def _settle(self, done: asyncio.Task[Sequence[Change]], reservations: Sequence[Reservation]) -> None:
        self._commits.discard(done)
        stored = not done.cancelled() and done.exception() is None
        for reservation in reservations:
            if stored:
                reservation.commit()
            else:
                reservation.roll_back()


def _place(kind: Kind) -> _Place:
    return kind.prefix, kind.api_version


def _reading(kind: Kind) -> Convert | None:
    """How a cache gets the kind's version from what is stored."""
    conversion = kind.convert
    if conversion is None:
        return None

    async def convert(objs: Sequence[Object]) -> Sequence[Object]:
        try:
            return await conversion.read(objs)
        except ConversionFault as fault:
            raise Unconvertible(str(fault)) from fault

    return convert


async def _written(conversion: Conversion, obj: Object) -> Object:
    try:
        return await conversion.write(obj)
    except ConversionFault as fault:
        raise Unclassified(str(fault)) from fault
