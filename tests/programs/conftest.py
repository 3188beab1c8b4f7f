"""Real programs, no root: kubectl against an API server of the test's own, Vagrant on the Vagrantfile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.apiserver import Served, cluster
from support.kubectl import Kubectl


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """An API server with a SQLite store and the first objects, no controllers."""
    async with cluster(tmp_path) as served:
        yield served


@pytest.fixture
async def kubectl(api: Served, tmp_path: Path) -> Kubectl:
    return Kubectl(api, tmp_path)
