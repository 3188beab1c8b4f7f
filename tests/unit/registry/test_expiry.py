"""Events live for a time after their last write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from support.registry_kinds import TestClock

from controlplane.apiserver.registry import ListOptions, Registry, WatchOptions, WriteOptions
from controlplane.apiserver.registry.expiry import Expiry
from controlplane.apiserver.registry.storage import Storage
from controlplane.resources.catalog import EVENT, EVENTS_EVENT, NAMESPACE
from controlplane.store.memory import MemoryStore

OPTIONS = WriteOptions()


def event(name: str, **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "involvedObject": {"namespace": "default", "name": "p"}, **rest}


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


def opened(store: MemoryStore, clock: TestClock) -> Registry:
    return Registry(store, (NAMESPACE, EVENT, EVENTS_EVENT), clock=clock, lifetimes={})


async def expiry_of(store: MemoryStore, registry: Registry, clock: TestClock) -> tuple[Expiry, Any, Storage]:
    storage = Storage(store, registry.kinds, ())
    expiry = Expiry(storage, EVENT, 3600.0, clock)
    return expiry, await expiry.begin(), storage


async def names(registry: Registry) -> list[str]:
    found = await registry.list(EVENT, "", ListOptions())
    return [stored.object["metadata"]["name"] for stored in found.items]


async def test_what_is_written_again_lives_on(store: MemoryStore) -> None:
    clock = TestClock()
    registry = opened(store, clock)
    await registry.start()
    expiry, watcher, storage = await expiry_of(store, registry, clock)
    await registry.create(EVENT, "default", event("old"), OPTIONS)
    stored = await registry.create(EVENT, "default", event("busy"), OPTIONS)
    for _ in range(2):
        expiry.note(await watcher.next_frame(5.0))
    clock.now += timedelta(seconds=3000)
    await registry.update(EVENT, "default", "busy", {**stored.object, "count": 2}, OPTIONS)
    expiry.note(await watcher.next_frame(5.0))
    assert await expiry.sweep() == 0
    clock.now += timedelta(seconds=600)
    assert await expiry.sweep() == 1
    assert await names(registry) == ["busy"]
    clock.now += timedelta(seconds=3000)
    assert await expiry.sweep() == 1
    assert await names(registry) == []
    await storage.close()
    await registry.close()


async def test_a_restart_does_not_make_events_young(store: MemoryStore) -> None:
    clock = TestClock()
    registry = opened(store, clock)
    await registry.start()
    await registry.create(EVENT, "default", event("old"), OPTIONS)
    clock.now += timedelta(seconds=3500)
    await registry.create(EVENT, "default", event("young"), OPTIONS)
    clock.now += timedelta(seconds=200)
    expiry, watcher, storage = await expiry_of(store, registry, clock)
    assert await expiry.sweep() == 1
    assert await names(registry) == ["young"]
    watcher.close()
    await storage.close()
    await registry.close()


async def test_the_registry_runs_it(store: MemoryStore) -> None:
    registry = Registry(store, (NAMESPACE, EVENT), lifetimes={("", "events"): 0.05})
    await registry.start()
    await registry.create(EVENT, "default", event("a"), OPTIONS)
    watch = registry.watch(EVENT, "default", WatchOptions())
    frames = [frame.type.value async for frame in _first(watch, 2)]
    assert frames == ["ADDED", "DELETED"]
    await registry.close()


async def _first(watch: Any, number: int) -> AsyncIterator[Any]:
    for _ in range(number):
        yield await anext(watch)
    await watch.aclose()
