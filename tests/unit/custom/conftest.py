"""The server most tests here talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.apiserver import Served, cluster


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """An API server with a SQLite store and the first objects, no controllers."""
    async with cluster(tmp_path) as served:
        yield served
