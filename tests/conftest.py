"""What a test needs of the machine is decided by a probe, and a skip says what is missing."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from support.cluster import kubectl_program

HERE = Path(__file__).parent


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
