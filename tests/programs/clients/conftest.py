"""Other people's clients against a control plane of the test's own, in this process."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.live import Live, live
from support.webhook import lend_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key pairs that the tests share: making them takes its time."""
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def server(tmp_path: Path, keys: Path) -> AsyncIterator[Live]:
    """With all controllers and two nodes. It is a defect of the server to answer anything with 500."""
    lend_keys(keys, tmp_path)
    async with live(tmp_path) as made:
        lend_keys(keys, tmp_path)
        yield made
        assert made.asked.failures() == []
    # What clients left open is closed here, where the test's own filter of warnings still holds.
    gc.collect()
