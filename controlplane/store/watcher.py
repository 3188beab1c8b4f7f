"""One watcher of a watch cache: a bounded queue of frames, filtered for that watcher.

The cache offers every event; whoever asked for the watch takes the frames. A watcher that does not keep up is
ended with WatcherTooSlow and holds nothing back. Loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from controlplane.errors import Object
from controlplane.store.events import CacheEvent, FrameType, Stored, WatchFrame
from controlplane.store.protocol import StoreError

WATCHER_LIMIT = 10_000
"""Frames a watcher may leave unread."""

Predicate = Callable[[Object], bool]


class WatcherTooSlow(StoreError):
    """The watcher left too many frames unread; it must list again."""


class Watcher:
    """Frames in order: first ADDED for `initial`, then what `offer` lets through.

    `namespace` "" = all; `name` narrows to objects of one name; `predicate` None = all. Iterating ends after `finish`.
    """

    def __init__(
        self,
        *,
        after: int,
        namespace: str = "",
        name: str = "",
        predicate: Predicate | None = None,
        initial: Sequence[Stored] = (),
        limit: int = WATCHER_LIMIT,
        on_close: Callable[[Watcher], None],
    ) -> None:
        self.namespace = namespace
        self.revision = after
        self._name = name
        self._predicate = predicate
        self._limit = limit + len(initial)
        self._on_close = on_close
        self._frames: deque[WatchFrame] = deque(
            WatchFrame(FrameType.ADDED, stored, stored.revision)
            for stored in initial
            if predicate is None or predicate(stored.object)
        )
        self._ended = False
        self._fault: StoreError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """How many frames wait to be taken."""
        return len(self._frames)

    def offer(self, event: CacheEvent) -> None:
        """Called by the cache for every event of its namespace, in order."""
        if self._ended or event.revision <= self.revision or (self._name and event.name != self._name):
            return
        try:
            frame = self._frame(event)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            self.finish(StoreError(f"{event.key}: cannot be matched: {fault!r}"))
            return
        if frame is None:
            return
        if len(self._frames) >= self._limit:
            self._frames.clear()
            self.finish(WatcherTooSlow(f"{self._limit} events were left unread"))
            return
        self._frames.append(frame)
        self.wake()

    def finish(self, fault: StoreError | None = None) -> None:
        """No more frames; those queued can still be taken. `fault` is raised behind the last of them."""
        if self._ended:
            return
        self._ended = True
        self._fault = fault
        self._on_close(self)
        self.wake()

    def close(self) -> None:
        """The reader is gone."""
        self._frames.clear()
        self.finish()

    def mark(self, frame: WatchFrame) -> None:
        """Queue a frame that is no event behind those that wait."""
        self._frames.append(frame)
        self.wake()

    def take(self) -> WatchFrame | None:
        """The next frame; None when there is none yet.

        Raises StopAsyncIteration at the end, WatcherTooSlow or another StoreError when the watch failed.
        """
        if not self._frames:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                raise StopAsyncIteration
            return None
        frame = self._frames.popleft()
        self.revision = max(self.revision, frame.revision)
        return frame

    async def wait(self) -> None:
        """Return when there is something to take, or somebody calls `wake`."""
        if not self._frames and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def wake(self) -> None:
        """Make `wait` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_frame(self, timeout: float | None = None) -> WatchFrame | None:
        """The next frame; None when `timeout` seconds passed without one. Raises what `take` raises."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        alarm = loop.call_at(end, self.wake) if end is not None else None
        try:
            while (frame := self.take()) is None:
                if end is not None and loop.time() >= end:
                    return None
                await self.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        return frame

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> WatchFrame:
        frame = await self.next_frame()
        assert frame is not None
        return frame

    def _frame(self, event: CacheEvent) -> WatchFrame | None:
        """The event as this watcher sees it: objects enter and leave with the predicate."""
        new, old = event.current, event.previous
        is_in = new is not None and (self._predicate is None or self._predicate(new.object))
        was_in = old is not None and (self._predicate is None or self._predicate(old.object))
        if is_in:
            return event.frame(FrameType.MODIFIED if was_in else FrameType.ADDED)
        return event.frame(FrameType.DELETED) if was_in else None
