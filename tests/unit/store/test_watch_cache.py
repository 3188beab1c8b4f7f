"""The watch cache: what it holds, how far it reaches back, what its watchers get."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from controlplane.store.cache import FrameType, WatchCache, Watcher, WatcherTooSlow, WatchFrame
from controlplane.store.events import encoded
from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import Compacted, Delete, Put, StoreError

PREFIX = "/registry/pods/"
DEADLINE = 10.0


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


@pytest.fixture
async def cache(store: MemoryStore) -> AsyncIterator[WatchCache]:
    made = WatchCache(store, PREFIX, history=4, watcher_limit=6)
    await made.start()
    yield made
    await made.close()


async def put(store: MemoryStore, key: str, cache: WatchCache | None = None, **labels: str) -> int:
    obj = {"metadata": {"name": key.rpartition("/")[2], "labels": labels}}
    (change,) = await store.commit([Put(PREFIX + key, orjson.dumps(obj))])
    if cache is not None:
        await cache.wait_for(change.revision)
    return change.revision


async def delete(store: MemoryStore, key: str) -> int:
    (change,) = await store.commit([Delete(PREFIX + key)])
    return change.revision


async def take(watcher: Watcher, count: int) -> list[tuple[str, str, int]]:
    frames = await take_frames(watcher, count)
    return [
        (frame.type.value, frame.stored.object["metadata"]["name"], frame.revision)
        for frame in frames
        if frame.stored
    ]


async def take_frames(watcher: Watcher, count: int) -> list[WatchFrame]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(watcher) for _ in range(count)]


def keys(cache: WatchCache, namespace: str = "", **where: Any) -> list[str]:
    return [key for key, _ in cache.scan(namespace, **where)]


async def test_it_starts_with_what_the_store_holds(store: MemoryStore) -> None:
    await put(store, "default/a")
    revision = await put(store, "default/b")
    await store.commit([Put("/registry/podsets/x", b"{}")])
    cache = WatchCache(store, PREFIX)
    await cache.start()
    assert cache.revision == revision + 1
    assert keys(cache) == ["default/a", "default/b"]
    stored = cache.get("default", "b")
    assert stored is not None
    assert stored.object["metadata"]["resourceVersion"] == str(revision)
    assert orjson.loads(stored.encoded) == stored.object
    await cache.close()


async def test_lists_are_in_the_stores_key_order_within_and_across_namespaces(
    store: MemoryStore, cache: WatchCache
) -> None:
    for key in ("a/x", "a-b/x", "a.c/x", "a/b", "b/y"):
        await put(store, key)
    await cache.catch_up()
    page = await store.range(PREFIX)
    assert keys(cache) == [record.key.removeprefix(PREFIX) for record in page.records]
    assert keys(cache, "a") == ["a/b", "a/x"]
    assert keys(cache, "nowhere") == []
    for position, after in enumerate(keys(cache)):
        assert keys(cache, after=after) == keys(cache)[position + 1 :]
    assert keys(cache, after="a/c") == ["a/x", "b/y"]


async def test_catch_up_sees_everything_acknowledged(store: MemoryStore, cache: WatchCache) -> None:
    await put(store, "default/a")
    await store.commit([Put("/registry/other/x", b"{}")])
    assert await cache.catch_up() == await store.revision()
    assert cache.get("default", "a") is not None


async def test_a_scan_of_the_past_undoes_later_changes(store: MemoryStore, cache: WatchCache) -> None:
    await put(store, "a/1")
    then = await put(store, "a/2", version="old")
    await put(store, "a/2", version="new")
    await delete(store, "a/1")
    await put(store, "a/3", cache)
    assert keys(cache) == ["a/2", "a/3"]
    past = list(cache.scan("a", revision=then))
    assert [key for key, _ in past] == ["a/1", "a/2"]
    assert past[1][1].object["metadata"]["labels"] == {"version": "old"}
    assert keys(cache, revision=then, after="a/1") == ["a/2"]
    assert keys(cache, "b", revision=then) == []


async def test_a_past_beyond_its_events_comes_from_the_store(store: MemoryStore, cache: WatchCache) -> None:
    then = await put(store, "a/1")
    for number in range(20):
        await put(store, f"b/{number}", cache)
    assert cache.floor > then
    with pytest.raises(Compacted):
        cache.scan(revision=then)
    assert [key for key, _ in await cache.read("", then)] == ["a/1"]
    assert [key for key, _ in await cache.read("b", then + 2)] == ["b/0", "b/1"]
    await store.compact(then + 1)
    with pytest.raises(Compacted):
        await cache.read("", then)


async def test_a_watcher_gets_changes_of_its_namespace_after_its_revision(
    store: MemoryStore, cache: WatchCache
) -> None:
    first = await put(store, "a/1", cache)
    second = await put(store, "a/2", cache)
    watcher = cache.watch(first, "a")
    await put(store, "b/1")
    third = await put(store, "a/1")
    fourth = await delete(store, "a/2")
    assert await take(watcher, 3) == [
        ("ADDED", "2", second),
        ("MODIFIED", "1", third),
        ("DELETED", "2", fourth),
    ]


async def test_a_watcher_of_one_name(store: MemoryStore, cache: WatchCache) -> None:
    watcher = cache.watch(None, "", name="1")
    await put(store, "a/1")
    await put(store, "a/2")
    await put(store, "b/1")
    assert [frame[1] for frame in await take(watcher, 2)] == ["1", "1"]


async def test_a_watcher_without_revision_starts_with_all_that_is_there(
    store: MemoryStore, cache: WatchCache
) -> None:
    await put(store, "a/2")
    first = await put(store, "a/1")
    await cache.catch_up()
    watcher = cache.watch(None)
    last = await put(store, "a/3")
    frames = await take(watcher, 3)
    assert [frame[:2] for frame in frames] == [("ADDED", "1"), ("ADDED", "2"), ("ADDED", "3")]
    assert (frames[0][2], frames[2][2]) == (first, last)


async def test_objects_enter_and_leave_with_the_predicate(store: MemoryStore, cache: WatchCache) -> None:
    watcher = cache.watch(1, predicate=lambda obj: obj["metadata"]["labels"].get("app") == "web")
    await put(store, "a/1", app="db")
    enters = await put(store, "a/1", app="web")
    changes = await put(store, "a/1", app="web", more="x")
    leaves = await put(store, "a/1", app="db")
    await put(store, "a/1", app="cache")
    await put(store, "a/1", app="web")
    gone = await delete(store, "a/1")
    frames = await take_frames(watcher, 5)
    assert [(frame.type, frame.revision) for frame in frames[:3]] == [
        (FrameType.ADDED, enters),
        (FrameType.MODIFIED, changes),
        (FrameType.DELETED, leaves),
    ]
    left = frames[2].stored
    assert left is not None
    assert left.object["metadata"]["labels"] == {"app": "web", "more": "x"}
    assert left.object["metadata"]["resourceVersion"] == str(leaves)
    assert orjson.loads(left.encoded) == left.object
    assert (frames[4].type, frames[4].revision) == (FrameType.DELETED, gone)


async def test_all_watchers_share_one_encoding(store: MemoryStore, cache: WatchCache) -> None:
    watchers = [cache.watch(1) for _ in range(3)]
    await put(store, "a/1")
    await delete(store, "a/1")
    got = [await take_frames(watcher, 2) for watcher in watchers]
    for frames in zip(*got, strict=True):
        assert len({id(frame.stored.encoded) for frame in frames if frame.stored}) == 1


async def test_a_deletion_leaves_the_cached_past_untouched(store: MemoryStore, cache: WatchCache) -> None:
    made = await put(store, "a/1", cache)
    stored = cache.get("a", "1")
    watcher = cache.watch(made)
    await delete(store, "a/1")
    await take(watcher, 1)
    assert stored is not None
    assert stored.object["metadata"]["resourceVersion"] == str(made)


async def test_a_watch_from_before_the_remembered_events_is_refused(
    store: MemoryStore, cache: WatchCache
) -> None:
    for number in range(20):
        await put(store, f"a/{number}", cache)
    with pytest.raises(Compacted) as caught:
        cache.watch(2)
    assert caught.value.oldest == cache.floor
    assert len(await take(cache.watch(cache.floor), 1)) == 1


async def test_a_slow_watcher_is_ended_and_holds_nobody_up(store: MemoryStore, cache: WatchCache) -> None:
    slow, quick = cache.watch(None), cache.watch(None)
    seen = []
    for number in range(10):
        await put(store, f"a/{number}", cache)
        seen += await take(quick, 1)
    assert len(seen) == 10
    with pytest.raises(WatcherTooSlow):
        await take(slow, 1)


async def test_a_predicate_that_fails_ends_its_own_watch_only(store: MemoryStore, cache: WatchCache) -> None:
    bad, good = cache.watch(1, predicate=lambda obj: bool(obj["missing"])), cache.watch(1)
    await put(store, "a/1")
    assert len(await take(good, 1)) == 1
    with pytest.raises(StoreError, match="missing"):
        await take(bad, 1)


async def test_a_watcher_waits_no_longer_than_asked(cache: WatchCache) -> None:
    async with asyncio.timeout(DEADLINE):
        assert await cache.watch(None).next_frame(0.01) is None
        assert await cache.watch(None).next_frame(0.0) is None


async def test_closing_the_cache_ends_its_watchers(store: MemoryStore, cache: WatchCache) -> None:
    watcher = cache.watch(None)
    waiting = asyncio.create_task(watcher.next_frame())
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_closed_watcher_is_forgotten(store: MemoryStore, cache: WatchCache) -> None:
    watcher = cache.watch(None)
    watcher.close()
    await put(store, "a/1", cache)
    assert watcher.waiting == 0


async def test_it_reads_everything_again_when_it_lost_the_thread() -> None:
    """A cache that was held up past compaction must end in the right state and send its watchers to list again."""
    store = MemoryStore(queue_limit=2)
    cache = WatchCache(store, PREFIX)
    await put(store, "a/old")
    await cache.start()
    watcher = cache.watch(None)
    await delete(store, "a/old")
    for number in range(5):
        await put(store, f"a/{number}")
    await store.compact(await store.revision())
    await cache.catch_up()
    assert keys(cache) == [f"a/{number}" for number in range(5)]
    assert [frame[1] for frame in await take(watcher, 1)] == ["old"]
    with pytest.raises(WatcherTooSlow):
        await take(watcher, 1)
    await put(store, "a/9", cache)
    assert "a/9" in keys(cache)
    await cache.close()
    await store.close()


async def test_a_value_that_is_no_object_is_named(store: MemoryStore) -> None:
    await store.commit([Put(PREFIX + "a/1", b"[]")])
    with pytest.raises(StoreError, match="a/1"):
        await WatchCache(store, PREFIX).start()


async def test_waiters_hear_of_the_end(store: MemoryStore, cache: WatchCache) -> None:
    waiting = asyncio.create_task(cache.wait_for(99))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreError):
        await waiting


def test_encoded_objects_are_cut_to_size() -> None:
    obj = {"metadata": {"name": "x" * 900}}
    tracemalloc.start()
    try:
        kept = [encoded(obj) for _ in range(100)]
        size = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    assert size < 1.2 * len(kept[0])
