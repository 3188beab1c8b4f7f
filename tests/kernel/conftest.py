"""Kernel tests leave the machine's directory of namespaces as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netkit.kernel import netns_directory


@pytest.fixture(scope="session", autouse=True)
def namespace_directory_as_before() -> Iterator[None]:
    """Tests that make namespaces without a cluster's teardown may have made /run/netns; it goes when empty."""
    yield
    netns_directory.restore()
