"""A registry with the default policy, and the chain over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.policy import World, authorized


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with authorized() as made:
        yield made
