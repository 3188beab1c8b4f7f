"""What a test needs of the machine is decided by a probe, and a skip says what is missing."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.apiserver import Served
from support.apiserver import cluster as served_cluster
from support.cluster import kubectl_program

HERE = Path(__file__).parent

# Property tests are about results: a busy machine must not fail them. `--hypothesis-profile thorough` looks longer.
settings.register_profile(
    "quick", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")


def pytest_configure() -> None:
    """A shell without job control starts what it puts in the background with SIGINT ignored, and all its children
    with it: tests that press Ctrl-C would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def missing_for_namespaces() -> str:
    """Why network namespaces cannot be used here, or "" when they can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    from netkit.cluster.doctor import missing
    from netkit.kernel.probe import features

    lacking = missing(features())
    return f"this machine lacks {', '.join(lacking)}" if lacking else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below kernel/ and system/ works on the real kernel, and system/ with a real kubectl."""
    for item in items:
        lane = item.path.relative_to(HERE).parts[0]
        if lane in ("kernel", "system"):
            item.add_marker(pytest.mark.root)
        if lane == "system":
            item.add_marker(pytest.mark.kubectl)
        if item.get_closest_marker("root") and (why := missing_for_namespaces()):
            item.add_marker(pytest.mark.skip(reason=why))
        if item.get_closest_marker("kubectl") and kubectl_program() is None:
            item.add_marker(pytest.mark.skip(reason="needs kubectl (Debian: kubernetes-client)"))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """An API server with a SQLite store and the first objects, no controllers."""
    async with served_cluster(tmp_path) as served:
        yield served
