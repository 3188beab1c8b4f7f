"""Whole clusters. Each module gets its own; what stood before must be all that stands afterwards."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster, kubectl_program
from support.host import host_network, left_overs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root for network namespaces"))
            elif kubectl_program() is None:
                item.add_marker(pytest.mark.skip(reason="needs kubectl (Debian: kubernetes-client)"))


@pytest.fixture(scope="module")
def untouched() -> Iterator[None]:
    """The machine is afterwards what it was before: network, namespaces, processes, mounts, files."""
    network, standing = host_network(), left_overs()
    yield
    assert left_overs() == standing
    assert host_network() == network


@pytest.fixture(scope="module")
def cluster(untouched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three nodes, up."""
    made = Cluster(f"t{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("home"))
    made.up()
    try:
        yield made
    finally:
        made.down()
