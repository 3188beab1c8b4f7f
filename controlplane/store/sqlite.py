"""The default store: one SQLite file in WAL mode, one writer thread, commits in groups.

Whatever waits when the writer is free goes into one transaction, so that many tasks share one flush to the
disk. A commit returns after COMMIT with synchronous=FULL: what was acknowledged survives SIGKILL and loss of
power. Reads that reach the file run in a thread of their own.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from controlplane.store.feed import QUEUE_LIMIT, Feed
from controlplane.store.planning import plan
from controlplane.store.protocol import (
    Change,
    Page,
    Record,
    RevisionMismatch,
    StoreClosed,
    StoreError,
    Watch,
    Write,
)
from controlplane.store.sqlite_file import FileLock, open_file

GROUP_LIMIT = 512
"""Commits that share one transaction at most."""

_T = TypeVar("_T")
_Outcome = list[Change] | StoreError


@dataclass(frozen=True, slots=True)
class _Commit:
    writes: Sequence[Write]
    done: asyncio.Future[Sequence[Change]]


@dataclass(frozen=True, slots=True)
class _Compact:
    revision: int
    done: asyncio.Future[None]


class SQLiteStore:
    """See `protocol.Store`. Opens the file at once; raises StoreError if it is in use, foreign or damaged."""

    def __init__(self, path: str | Path, queue_limit: int = QUEUE_LIMIT) -> None:
        self._path = Path(path)
        try:
            self._lock = FileLock(self._path.with_name(self._path.name + ".lock"))
        except OSError as fault:
            raise StoreError(f"{path}: cannot be locked: {fault}") from fault
        try:
            self._writer_file = open_file(self._path)
            self._reader_file = open_file(self._path, check=False)
        except StoreError:
            self._lock.release()
            raise
        self._revision = self._writer_file.revision()
        self._feed = Feed(self._revision, self._history, queue_limit)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._requests: queue.SimpleQueue[_Commit | _Compact | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    async def get(self, key: str) -> Record | None:
        return await self._read(self._reader_file.newest, key)

    async def range(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await self._read(self._reader_file.range, prefix, after, limit, revision)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Change]:
        for write in writes:
            if not write.key.isascii():
                raise StoreError(f"{write.key!a}: keys are ASCII")
        done: asyncio.Future[Sequence[Change]] = self._running_loop().create_future()
        self._requests.put(_Commit(tuple(writes), done))
        return await done

    def watch(self, prefix: str, after: int) -> Watch:
        return self._feed.subscribe(prefix, after)

    async def revision(self) -> int:
        self._check_open()
        return self._feed.revision

    async def compact(self, revision: int) -> None:
        done: asyncio.Future[None] = self._running_loop().create_future()
        self._requests.put(_Compact(revision, done))
        await done

    async def close(self) -> None:
        """Store what was handed in, then end the threads and free the file. May be called again."""
        if self._closing:
            return
        self._closing = True
        if self._thread is not None:
            self._requests.put(None)
            await asyncio.to_thread(self._thread.join)
        self._feed.close()
        await asyncio.to_thread(self._reader.shutdown)
        self._reader_file.close()
        self._writer_file.close()
        self._lock.release()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop all calls come from; the writer starts with the first write."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._loop = loop
            self._thread = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
            self._thread.start()
        return loop

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed("the store was closed")

    async def _read(self, function: Callable[..., _T], *arguments: object) -> _T:
        self._check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, function, *arguments)
        except sqlite3.Error as fault:
            raise StoreError(f"{self._path}: {fault}") from fault

    async def _history(self, prefix: str, after: int, up_to: int) -> tuple[Sequence[Change], int]:
        return await self._read(self._reader_file.history, prefix, after, up_to)

    def _write_all(self) -> None:
        """The writer thread: take what waits, store it, report. Ends at None in the queue."""
        request = self._requests.get()
        while request is not None:
            if isinstance(request, _Compact):
                self._report(self._compacted, request, self._compact(request.revision))
                request = self._requests.get()
                continue
            group = [request]
            following: _Commit | _Compact | None = None
            ended = False
            while len(group) < GROUP_LIMIT:
                try:
                    following = self._requests.get_nowait()
                except queue.Empty:
                    break
                if not isinstance(following, _Commit):
                    ended = following is None
                    break
                group.append(following)
                following = None
            self._report(self._committed, group, self._store(group))
            if ended:
                return
            request = following if following is not None else self._requests.get()

    def _store(self, group: Sequence[_Commit]) -> Sequence[_Outcome]:
        """One transaction for the whole group; a commit that fails its expectations leaves no trace."""
        outcomes: list[_Outcome] = []
        revision = self._revision
        try:
            with self._writer_file.transaction("IMMEDIATE"):
                for commit in group:
                    try:
                        changes = plan(commit.writes, self._writer_file.newest, revision)
                    except RevisionMismatch as fault:
                        outcomes.append(fault)
                        continue
                    self._writer_file.insert(changes)
                    revision += len(changes)
                    outcomes.append(changes)
        except sqlite3.Error as fault:
            return [StoreError(f"{self._path}: {fault}") for _ in group]
        self._revision = revision
        return outcomes

    def _compact(self, revision: int) -> StoreError | None:
        try:
            self._writer_file.compact(revision)
        except sqlite3.Error as fault:
            return StoreError(f"{self._path}: {fault}")
        except StoreError as fault:
            return fault
        return None

    def _report(self, function: Callable[..., None], *arguments: object) -> None:
        """Call back on the loop's thread. A loop that is closed already has nobody waiting."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _committed(self, group: Sequence[_Commit], outcomes: Sequence[_Outcome]) -> None:
        """All of a group's changes are known to the watches before the first of its callers goes on."""
        self._feed.publish(
            [change for outcome in outcomes if isinstance(outcome, list) for change in outcome]
        )
        for commit, outcome in zip(group, outcomes, strict=True):
            if commit.done.done():
                continue
            if isinstance(outcome, StoreError):
                commit.done.set_exception(outcome)
            else:
                commit.done.set_result(outcome)

    def _compacted(self, request: _Compact, fault: StoreError | None) -> None:
        if request.done.done():
            return
        if fault is None:
            request.done.set_result(None)
        else:
            request.done.set_exception(fault)
