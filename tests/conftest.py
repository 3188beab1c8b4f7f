"""What a test needs of the machine is decided by a probe, and a skip says what is missing."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.apiserver import Served

HERE = Path(__file__).parent

# Property tests are about results: a busy machine must not fail them. The lane unit has seconds and looks `briefly`,
# the lane integration `quick`; `--hypothesis-profile thorough` looks longer.
settings.register_profile(
    "quick", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("briefly", settings.get_profile("quick"), max_examples=8)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")


def pytest_configure() -> None:
    """What the shell left behind and a run of tests cannot use.

    A shell without job control starts what it puts in the background with SIGINT ignored, and all its children with
    it: tests that press Ctrl-C would wait for ever. And where bytecode is not kept (PYTHONDONTWRITEBYTECODE), each
    worker and each program a test starts would compile all modules anew, which takes longer than the unit tests."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay for the whole run: looking for cycles among them, again and again, finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@functools.cache
def missing_for_namespaces() -> str:
    """Why network namespaces cannot be used here, or "" when they can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    from netkit.cluster.doctor import missing
    from netkit.kernel.probe import features

    lacking = missing(features())
    return f"this machine lacks {', '.join(lacking)}" if lacking else ""


def missing_kubectl() -> str:
    """Why a real kubectl cannot be driven here, or "" when it can."""
    from support.cluster import kubectl_program

    return "" if kubectl_program() else "needs kubectl (Debian: kubernetes-client)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below kernel/ and system/ works on the real kernel, and system/ with a real kubectl."""
    for item in items:
        lane = item.path.relative_to(HERE).parts[0]
        if lane == "unit":
            item.add_marker(pytest.mark.unit)
        if lane in ("kernel", "system"):
            item.add_marker(pytest.mark.root)
        if lane == "system":
            item.add_marker(pytest.mark.kubectl)
        if item.get_closest_marker("root") and (why := missing_for_namespaces()):
            item.add_marker(pytest.mark.skip(reason=why))
        if item.get_closest_marker("kubectl") and (why := missing_kubectl()):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """An API server with a SQLite store and the first objects, no controllers."""
    from support.apiserver import cluster

    async with cluster(tmp_path) as served:
        yield served
