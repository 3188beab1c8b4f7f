"""Objects of kinds <-> records of the store: encoding, one watch cache per kind, commits with their reservations.

Every verb reads and writes through it. After a write it waits for the cache, so that whoever was answered finds
what it wrote. Faults of the store leave it as StatusErrors, lost races as RevisionMismatch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import orjson

from controlplane.apiserver.allocation.allocator import Allocator, Reservation
from controlplane.errors import InternalError, Object, ServiceUnavailable
from controlplane.resources.kind import Kind
from controlplane.store.cache import WatchCache
from controlplane.store.events import Stored, encoded, stamped
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
    except StoreError as fault:
        raise InternalError(f"Internal error occurred: {fault}") from fault


class Storage:
    """`kinds` share a cache where they share a folder of the store."""

    def __init__(self, store: Store, kinds: Sequence[Kind], allocators: Sequence[Allocator]) -> None:
        self._store = store
        self._kinds = kinds
        self._allocators = allocators
        self._caches = {kind.prefix: WatchCache(store, kind.prefix) for kind in kinds}
        self._commits: set[asyncio.Task[Sequence[Change]]] = set()

    async def start(self) -> None:
        """Fill the caches; let the allocators take over what is stored."""
        for cache in self._caches.values():
            await cache.start()
        for allocator in self._allocators:
            allocator.rebuild(
                stored.object
                for kind in self._kinds
                if allocator.applies_to(kind)
                for _, stored in self.cache(kind).scan()
            )

    async def close(self) -> None:
        if self._commits:
            await asyncio.wait(self._commits)
        for cache in self._caches.values():
            await cache.close()

    def cache(self, kind: Kind) -> WatchCache:
        return self._caches[kind.prefix]

    async def revision(self) -> int:
        with store_faults():
            return await self._store.revision()

    async def newest(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        """The state after everything acknowledged so far."""
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
        change = await self._commit(kind, Put(key, encoded(obj), expect), reservations)
        metadata["resourceVersion"] = str(change.revision)
        return Stored(obj, orjson.dumps(obj), change.revision)

    async def remove(self, kind: Kind, key: str, obj: Object, expect: int) -> Stored:
        """Delete; `obj` is the last state, returned with the deletion's revision. Raises RevisionMismatch."""
        change = await self._commit(kind, Delete(key, expect), [_Release(self._allocators, kind, obj)])
        return stamped(obj, change.revision)

    async def _commit(self, kind: Kind, write: Write, reservations: Sequence[Reservation]) -> Change:
        """Commit one write and settle its reservations by the outcome, even if the caller is cancelled."""
        with store_faults():
            if reservations:
                task = asyncio.ensure_future(self._store_one(write))
                self._commits.add(task)
                task.add_done_callback(lambda done: self._settle(done, reservations))
                (change,) = await asyncio.shield(task)
            else:
                (change,) = await self._store.commit((write,))
            await self.cache(kind).wait_for(change.revision)
        return change

    async def commit_all(self, writes: Sequence[Write]) -> Sequence[Change]:
        """All writes as one commit, without allocators. Raises RevisionMismatch."""
        with store_faults():
            return await self._store.commit(writes)

    async def _store_one(self, write: Write) -> Sequence[Change]:
        return await self._store.commit((write,))

    def _settle(self, done: asyncio.Task[Sequence[Change]], reservations: Sequence[Reservation]) -> None:
        self._commits.discard(done)
        stored = not done.cancelled() and done.exception() is None
        for reservation in reservations:
            if stored:
                reservation.commit()
            else:
                reservation.roll_back()


class _Release:
    """A deletion seen as reservation: what the object held is freed once the deletion is stored."""

    def __init__(self, allocators: Sequence[Allocator], kind: Kind, obj: Object) -> None:
        self._allocators = [allocator for allocator in allocators if allocator.applies_to(kind)]
        self._obj = obj

    def commit(self) -> None:
        for allocator in self._allocators:
            allocator.release(self._obj)

    def roll_back(self) -> None:
        """The object is still there and keeps what it holds."""
