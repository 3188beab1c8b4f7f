"""Real programs, no root: kubectl against an API server of the test's own, Vagrant on the Vagrantfile."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.apiserver import Served
from support.kubectl import Kubectl


@pytest.fixture
async def kubectl(api: Served, tmp_path: Path) -> Kubectl:
    return Kubectl(api, tmp_path)
