"""A store in memory: for tests and for clusters that may forget. Same semantics as the SQLite store."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from controlplane.store.feed import QUEUE_LIMIT, Feed
from controlplane.store.planning import plan
from controlplane.store.protocol import (
    Change,
    Compacted,
    Page,
    Record,
    StoreClosed,
    StoreError,
    Watch,
    Write,
)

FIRST_REVISION = 1
"""Of a store that never held anything; the first write gets the next one."""


class MemoryStore:
    """See `protocol.Store`."""

    def __init__(self, queue_limit: int = QUEUE_LIMIT) -> None:
        self._records: dict[str, Record] = {}
        self._keys: list[str] = []
        self._log: list[Change] = []
        self._compacted = 0
        self._feed = Feed(FIRST_REVISION, self._history, queue_limit)

    async def get(self, key: str) -> Record | None:
        self._check_open()
        return self._records.get(key)

    async def range(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        self._check_open()
        newest = self._feed.revision
        undone: dict[str, Record | None] = {}
        if revision:
            self._check_readable(revision)
            for change in reversed(self._log[self._position(revision) :]):
                undone[change.key] = change.previous
        keys = self._keys_with(prefix)
        if undone:
            keys = sorted({*keys, *(key for key in undone if key.startswith(prefix))})
        records: list[Record] = []
        for key in keys[bisect_right(keys, after) :]:
            record = undone[key] if key in undone else self._records[key]
            if record is None:
                continue
            if limit and len(records) == limit:
                return Page(records, revision or newest, True)
            records.append(record)
        return Page(records, revision or newest, False)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Change]:
        self._check_open()
        changes = plan(writes, self._records.get, self._feed.revision)
        for change in changes:
            if change.record is None:
                del self._records[change.key]
                del self._keys[bisect_left(self._keys, change.key)]
            else:
                if change.key not in self._records:
                    insort(self._keys, change.key)
                self._records[change.key] = change.record
        self._log.extend(changes)
        self._feed.publish(changes)
        return changes

    def watch(self, prefix: str, after: int) -> Watch:
        return self._feed.subscribe(prefix, after)

    async def revision(self) -> int:
        self._check_open()
        return self._feed.revision

    async def compact(self, revision: int) -> None:
        self._check_open()
        self._check_readable(revision)
        del self._log[: self._position(revision)]
        self._compacted = revision

    async def close(self) -> None:
        self._feed.close()

    async def _history(self, prefix: str, after: int, up_to: int) -> tuple[Sequence[Change], int]:
        if after < self._compacted:
            raise Compacted(after, self._compacted)
        changes = self._log[self._position(after) : self._position(up_to)]
        return [change for change in changes if change.key.startswith(prefix)], up_to

    def _position(self, revision: int) -> int:
        """Where in the log the changes after `revision` begin."""
        return bisect_right(self._log, revision, key=lambda change: change.revision)

    def _keys_with(self, prefix: str) -> list[str]:
        return self._keys[bisect_left(self._keys, prefix) : bisect_right(self._keys, prefix + "\U0010ffff")]

    def _check_open(self) -> None:
        if self._feed.closed:
            raise StoreClosed("the store was closed")

    def _check_readable(self, revision: int) -> None:
        if revision < self._compacted:
            raise Compacted(revision, self._compacted)
        if revision > self._feed.revision:
            raise StoreError(f"revision {revision} lies in the future, newest is {self._feed.revision}")
