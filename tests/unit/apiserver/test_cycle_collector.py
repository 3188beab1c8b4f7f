"""Full collections by the clock: when they come, and that the process is left as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from support.client_wait import until

from controlplane.apiserver.cycle_collector import full_collections_by_the_clock


@pytest.fixture
def full_collections() -> Iterator[list[int]]:
    """Grows by one with each full collection."""
    seen: list[int] = []

    def callback(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2:
            seen.append(1)

    gc.callbacks.append(callback)
    yield seen
    gc.callbacks.remove(callback)
    gc.freeze()  # as tests/conftest.py has it


def grow() -> list[list[object]]:
    return [[] for _ in range(300_000)]


async def test_growth_does_not_start_a_full_collection(full_collections: list[int]) -> None:
    # What other tests have left must not count: a quarter of it may be more than what grows here.
    gc.freeze()
    gc.collect()
    full_collections.clear()
    grow()
    assert full_collections, "Python itself would have started one"
    full_collections.clear()
    with full_collections_by_the_clock():
        grow()
        assert not full_collections


async def test_the_clock_does_again_and_again(full_collections: list[int]) -> None:
    with full_collections_by_the_clock(0.01):
        await until(lambda: len(full_collections) >= 2)


async def test_the_process_is_left_as_it_was(full_collections: list[int]) -> None:
    gc.unfreeze()
    before = gc.get_threshold(), gc.get_freeze_count()
    with full_collections_by_the_clock():
        assert gc.get_freeze_count() > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
