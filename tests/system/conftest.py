"""Whole clusters. Each module gets its own; what stood before must be all that stands afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from support.cluster import Cluster
from support.host import host_network, left_overs
from support.space import Space, space


@pytest.fixture(scope="module")
def untouched() -> Iterator[None]:
    """The machine is afterwards what it was before: network, namespaces, processes, mounts, files."""
    network, standing = host_network(), left_overs()
    yield
    now = left_overs()
    assert sorted(now.files ^ standing.files) == []
    assert now == standing
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


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[Space]:
    """A namespace of the test's own on the module's cluster. No part may log an error while it is there."""
    before = len(cluster.errors_logged())
    with space(cluster) as made:
        yield made
    assert cluster.errors_logged()[before:] == []
