from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.apiserver import Served, cluster
from support.authentication import Rights


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """A server over a real registry, where everybody may do all."""
    async with cluster(tmp_path, authorizer=Rights()) as served:
        yield served
