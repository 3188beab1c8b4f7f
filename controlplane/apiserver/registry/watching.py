"""watch: a cache's watcher as frames for one client, with bookmarks and an end. Made by the registry."""

from __future__ import annotations

import asyncio

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.requests import FrameType, WatchFrame, WatchOptions
from controlplane.apiserver.registry.storage import store_faults
from controlplane.apiserver.registry.versions import check_watch_match, parse_version, reach, too_old
from controlplane.errors import InternalError, Unclassified
from controlplane.resources.kind import Kind
from controlplane.store.cache import Unconvertible, WatchCache, Watcher, WatcherTooSlow
from controlplane.store.protocol import Compacted, StoreClosed, StoreError

BOOKMARK_SECONDS = 60.0
"""Between two bookmarks."""
LAST_BOOKMARK_SECONDS = 2.0
"""Before its timeout a watch gets a last one."""


class ObjectWatch:
    """The frames of one watch, in order, until its timeout or the registry's end. For one task; close it (`aclose`).

    It runs without tasks and holds no cycle of references, so that a client that leaves leaves nothing behind.
    """

    def __init__(self, ctx: Context, kind: Kind, namespace: str, opts: WatchOptions) -> None:
        self._ctx = ctx
        self._kind = kind
        self._namespace = namespace
        self._opts = opts
        self._cache: WatchCache | None = None
        self._watcher: Watcher | None = None
        self._end: asyncio.TimerHandle | None = None
        self._bookmark: asyncio.TimerHandle | None = None
        self._is_bookmark_due = False
        self._is_over = False

    async def begin(self) -> None:
        """Start to collect frames; the first step does it as well.

        Raises Expired when events are gone, ServerTimeout for versions of the future, Invalid for bad options.
        """
        if self._watcher is not None or self._is_over:
            return
        self._watcher = await self._started()
        if self._opts.timeout_seconds:
            self._end = asyncio.get_running_loop().call_later(self._opts.timeout_seconds, self._finish)
        if self._opts.bookmarks:
            self._await_bookmark()

    def ready(self) -> WatchFrame | None:
        """The next frame if it is there already. Raises what a step raises."""
        if self._watcher is None or self._is_over:
            return None
        try:
            return self._watcher.take()
        except WatcherTooSlow as fault:
            raise too_old(self._watcher.revision, self._held.floor) from fault
        except StoreClosed as fault:
            raise StopAsyncIteration from fault
        except Unconvertible as fault:
            raise Unclassified(str(fault)) from fault
        except StoreError as fault:
            raise InternalError(f"Internal error occurred: {fault}") from fault

    def __aiter__(self) -> ObjectWatch:
        return self

    async def __anext__(self) -> WatchFrame:
        await self.begin()
        while self._watcher is not None:
            frame = self.ready()
            if frame is not None:
                return frame
            if self._is_over:
                await self.aclose()
            elif not self._is_bookmark_due:
                await self._watcher.wait()
            elif await self._has_caught_up(self._watcher):
                return WatchFrame(FrameType.BOOKMARK, None, self._held.revision)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the watch; may be called twice."""
        self._is_over = True
        for timer in (self._end, self._bookmark):
            if timer is not None:
                timer.cancel()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    async def _started(self) -> Watcher:
        opts = self._opts
        check_watch_match(opts.match, opts.send_initial_events)
        await self._ctx.storage.ready(self._kind)
        cache = self._cache = self._ctx.storage.cache(self._kind)
        version = parse_version(opts.resource_version)
        if not opts.resource_version:
            with store_faults():
                await cache.catch_up()
        else:
            await reach(self._ctx.storage, self._kind, version)
        watcher = _watcher(cache, self._namespace, opts, version)
        if opts.send_initial_events:
            watcher.mark(WatchFrame(FrameType.BOOKMARK, None, cache.revision, initial_events_end=True))
        return watcher

    async def _has_caught_up(self, watcher: Watcher) -> bool:
        """Whether every frame up to the store's revision was taken; sets the time of the next bookmark."""
        self._await_bookmark()
        with store_faults():
            await self._held.catch_up()
        return watcher.waiting == 0

    @property
    def _held(self) -> WatchCache:
        assert self._cache is not None, "the watch has not begun"
        return self._cache

    def _await_bookmark(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_bookmark_due = False
        moment = _next_bookmark(loop.time(), self._end.when() if self._end else None)
        self._bookmark = loop.call_at(moment, self._ask_for_bookmark)

    def _ask_for_bookmark(self) -> None:
        self._is_bookmark_due = True
        self._wake()

    def _finish(self) -> None:
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._watcher is not None:
            self._watcher.wake()


def _watcher(cache: WatchCache, namespace: str, opts: WatchOptions, version: int) -> Watcher:
    after = None if version == 0 or opts.send_initial_events else version
    try:
        with store_faults():
            return cache.watch(after, namespace, opts.predicate, name=opts.name)
    except Compacted as fault:
        raise too_old(version, fault.oldest) from fault


def _next_bookmark(now: float, end: float | None) -> float:
    regular = now + BOOKMARK_SECONDS
    if end is None:
        return regular
    last = end - LAST_BOOKMARK_SECONDS
    return min(regular, last) if last > now else regular
