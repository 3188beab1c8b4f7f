"""The registry on the default store: what it acknowledged is there after a restart, also after many at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.registry_kinds import KINDS, WIDGET, named

from controlplane.apiserver.registry import (
    DeleteOptions,
    ListOptions,
    PatchType,
    Registry,
    WatchOptions,
    WriteOptions,
)
from controlplane.errors import ServiceUnavailable
from controlplane.store.sqlite import SQLiteStore

WRITE = WriteOptions()


async def life(registry: Registry, name: str, number: int) -> None:
    """Create, change twice at once, and delete every third."""
    await registry.create(WIDGET, "default", named(name), WRITE)
    patches = [{"spec": {"one": number}}, {"metadata": {"labels": {"two": str(number)}}}]
    await asyncio.gather(
        *(registry.patch(WIDGET, "default", name, PatchType.MERGE, patch, WRITE) for patch in patches)
    )
    if number % 3 == 0:
        await registry.delete(WIDGET, "default", name, DeleteOptions())


async def test_everything_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    registry = Registry(store, KINDS)
    await registry.start()
    await asyncio.gather(*(life(registry, f"w{number:02}", number) for number in range(60)))
    before = await registry.list(WIDGET, "", ListOptions())
    assert len(before.items) == 40
    assert all(stored.object["metadata"]["labels"]["two"] for stored in before.items)
    await registry.close()
    await store.close()

    store = SQLiteStore(tmp_path / "db")
    registry = Registry(store, KINDS)
    await registry.start()
    after = await registry.list(WIDGET, "", ListOptions())
    assert [stored.object for stored in after.items] == [stored.object for stored in before.items]
    assert after.revision == before.revision
    await registry.close()
    await store.close()


async def test_a_watch_sees_every_write_in_order(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    registry = Registry(store, KINDS)
    await registry.start()
    watch = registry.watch(WIDGET, "", WatchOptions(resource_version="1"))
    writing = asyncio.gather(*(life(registry, f"w{number}", number) for number in range(30)))
    frames = []
    async with asyncio.timeout(20):
        while len(frames) < 100:
            frames.append(await anext(watch))
    await writing
    await watch.aclose()
    revisions = [frame.revision for frame in frames]
    assert revisions == list(range(2, 102))
    assert [frame.type.value for frame in frames].count("DELETED") == 10
    await registry.close()
    await store.close()


async def test_calls_after_the_stores_end_are_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "db")
    registry = Registry(store, KINDS)
    await registry.start()
    await store.close()
    with pytest.raises(ServiceUnavailable, match="shutting down"):
        await registry.create(WIDGET, "default", named("a"), WRITE)
    with pytest.raises(ServiceUnavailable):
        await registry.list(WIDGET, "default", ListOptions())
    await registry.close()
