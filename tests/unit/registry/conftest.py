"""One registry on a memory store with the small kinds, for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.registry_kinds import KINDS, TestClock

from controlplane.apiserver.registry import Registry
from controlplane.store.memory import MemoryStore


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


@pytest.fixture
async def registry(store: MemoryStore, clock: TestClock) -> AsyncIterator[Registry]:
    made = Registry(store, KINDS, clock=clock)
    await made.start()
    yield made
    await made.close()
