"""Random histories: the cache's past must be the store's past, and a watch must lead to what a list shows."""

from __future__ import annotations

import asyncio

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from controlplane.store.cache import FrameType, WatchCache
from controlplane.store.events import Stored
from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import Delete, Put, Write

PREFIX = "/registry/things/"
KEYS = ("a/x", "a/y", "a-b/x", "b/x")

steps = st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 3))), max_size=30)


def write(key: str, number: int | None) -> Write:
    if number is None:
        return Delete(PREFIX + key)
    return Put(PREFIX + key, orjson.dumps({"metadata": {"name": key}, "number": number}))


def is_odd(obj: dict[str, int]) -> bool:
    return obj["number"] % 2 == 1


async def run(history: list[tuple[str, int | None]], batch: int) -> None:
    store = MemoryStore()
    cache = WatchCache(store, PREFIX, history=5)
    await cache.start()
    followers = {
        (namespace, odd): cache.watch(None, namespace, is_odd if odd else None)
        for namespace in ("", "a", "b")
        for odd in (True, False)
    }
    for first in range(0, len(history), batch):
        await store.commit([write(key, number) for key, number in history[first : first + batch]])
        if first % 2:
            await cache.catch_up()
    await cache.catch_up()
    for revision in range(max(cache.floor, 1), await store.revision() + 1):
        page = await store.range(PREFIX, revision=revision)
        expected = [
            (r.key.removeprefix(PREFIX), r.mod_revision, orjson.loads(r.value)["number"])
            for r in page.records
        ]
        found = [
            (key, stored.revision, stored.object["number"]) for key, stored in cache.scan(revision=revision)
        ]
        assert found == expected
    for (namespace, odd), watcher in followers.items():
        seen: dict[str, Stored] = {}
        while (frame := await watcher.next_frame(0)) is not None:
            assert frame.stored is not None
            key = frame.stored.object["metadata"]["name"]
            assert (frame.type is FrameType.ADDED) == (key not in seen)
            if frame.type is FrameType.DELETED:
                del seen[key]
            else:
                seen[key] = frame.stored
        assert seen == {
            key: stored for key, stored in cache.scan(namespace) if not odd or is_odd(stored.object)
        }
    await cache.close()
    await store.close()


@settings(max_examples=examples(50), deadline=None)
@given(steps, st.integers(1, 5))
def test_the_cache_agrees_with_the_store(history: list[tuple[str, int | None]], batch: int) -> None:
    asyncio.run(run(history, batch))
