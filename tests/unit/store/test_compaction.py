"""When history goes: by age, by number, and never twice."""

from __future__ import annotations

import pytest

from controlplane.store.compaction import Compactor
from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import Compacted, Put


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def oldest(store: MemoryStore) -> int:
    """The oldest revision that can be read."""
    try:
        await store.range("/", revision=1)
    except Compacted as fault:
        return fault.oldest
    return 1


async def write(store: MemoryStore, count: int) -> None:
    for _ in range(count):
        await store.commit([Put("/a", b"")])


async def test_history_older_than_the_limit_goes() -> None:
    store, clock = MemoryStore(), Clock()
    compactor = Compactor(store, keep_seconds=300, clock=clock)
    await write(store, 4)
    await compactor.step()
    await write(store, 5)
    clock.now = 299
    await compactor.step()
    assert await oldest(store) == 1
    clock.now = 300
    await compactor.step()
    assert await oldest(store) == 5
    clock.now = 599
    await compactor.step()
    assert await oldest(store) == 10


async def test_a_number_of_revisions_is_the_most_that_stays() -> None:
    store = MemoryStore()
    compactor = Compactor(store, keep_revisions=3, clock=Clock())
    await write(store, 10)
    await compactor.step()
    assert await oldest(store) == 8


async def test_it_ends_with_the_store() -> None:
    store = MemoryStore()
    await store.close()
    await Compactor(store).run()


async def test_compacting_the_same_revision_again_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    compactor = Compactor(store, keep_revisions=2, clock=Clock())
    await write(store, 5)
    calls: list[int] = []

    async def compact(revision: int) -> None:
        calls.append(revision)

    monkeypatch.setattr(store, "compact", compact)
    await compactor.step()
    await compactor.step()
    assert calls == [4]
