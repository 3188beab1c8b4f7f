"""watch: a cache's watcher as frames for one client, with bookmarks and an end. Called by the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.requests import FrameType, WatchFrame, WatchOptions
from controlplane.apiserver.registry.storage import store_faults
from controlplane.apiserver.registry.versions import check_watch_match, parse_version, reach, too_old
from controlplane.errors import InternalError
from controlplane.resources.kind import Kind
from controlplane.store.cache import WatchCache, Watcher, WatcherTooSlow
from controlplane.store.protocol import Compacted, StoreClosed, StoreError

BOOKMARK_SECONDS = 60.0
"""Between two bookmarks."""
LAST_BOOKMARK_SECONDS = 2.0
"""Before its timeout a watch gets a last one."""


async def watch_objects(
    ctx: Context, kind: Kind, namespace: str, opts: WatchOptions
) -> AsyncGenerator[WatchFrame, None]:
    """Raises Expired when events are gone, ServerTimeout for versions of the future, Invalid for bad options."""
    check_watch_match(opts.match, opts.send_initial_events)
    cache = ctx.storage.cache(kind)
    version = parse_version(opts.resource_version)
    if not opts.resource_version:
        with store_faults():
            await cache.catch_up()
    else:
        await reach(ctx.storage, kind, version)
    watcher = _watcher(cache, namespace, opts, version)
    try:
        if opts.send_initial_events:
            for _ in range(watcher.waiting):
                yield await anext(watcher)
            yield WatchFrame(FrameType.BOOKMARK, None, cache.revision, initial_events_end=True)
        async for frame in _live(cache, watcher, opts):
            yield frame
    except WatcherTooSlow as fault:
        raise too_old(watcher.revision, cache.floor) from fault
    except StoreClosed:
        return
    except StoreError as fault:
        raise InternalError(f"Internal error occurred: {fault}") from fault
    finally:
        watcher.close()


def _watcher(cache: WatchCache, namespace: str, opts: WatchOptions, version: int) -> Watcher:
    after = None if version == 0 or opts.send_initial_events else version
    try:
        with store_faults():
            return cache.watch(after, namespace, opts.predicate, name=opts.name)
    except Compacted as fault:
        raise too_old(version, fault.oldest) from fault


async def _live(cache: WatchCache, watcher: Watcher, opts: WatchOptions) -> AsyncGenerator[WatchFrame, None]:
    """Frames as they come until the timeout; bookmarks in between when asked for."""
    now = asyncio.get_running_loop().time
    end = now() + opts.timeout_seconds if opts.timeout_seconds else None
    bookmark = _next_bookmark(now(), end) if opts.bookmarks else None
    while True:
        wake = min((moment for moment in (end, bookmark) if moment is not None), default=None)
        try:
            frame = await watcher.next_frame(None if wake is None else wake - now())
        except StopAsyncIteration:
            return
        if frame is not None:
            yield frame
        if end is not None and now() >= end:
            return
        if bookmark is not None and now() >= bookmark:
            bookmark = _next_bookmark(now(), end)
            await cache.catch_up()
            if watcher.waiting == 0:
                yield WatchFrame(FrameType.BOOKMARK, None, cache.revision)


def _next_bookmark(now: float, end: float | None) -> float:
    regular = now + BOOKMARK_SECONDS
    if end is None:
        return regular
    last = end - LAST_BOOKMARK_SECONDS
    return min(regular, last) if last > now else regular
