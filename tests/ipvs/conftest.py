"""Tests on a kernel with ip_vs; `tests/run --lane ipvs` finds one, also where this machine's kernel has none.

Everything runs in one boot, and a user-mode-Linux guest is slow at starting processes (20 ms each, 0.3 s for Python):
many commands in one (`ip -batch`, `ipset restore`), netlink in this process, `netns.entered` instead of programs in
namespaces. Debian's guest kernel has no nf_tables for IP: there, `iptables` means the legacy programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dual_net import DualNet
from support.ipvs import load_ipv6
from support.proxy_net import Net
from uml.lane import ip_vs_missing, required

from netkit.kernel import netns_directory

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs ip_vs where there is none, saying so; refuse to skip where that would hide something."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    why = "needs root for network namespaces" if os.geteuid() else ip_vs_missing()
    if not ours or not why:
        return
    why += "; `tests/run --lane ipvs` brings its own kernel"
    if required():
        pytest.exit(f"tests/ipvs must not be skipped here, but {why}", returncode=1)
    for item in ours:
        item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """One network for all: building it takes ten seconds in a guest, and who uses it leaves nothing in it."""
    load_ipv6()
    with Net.built(tmp_path_factory.mktemp("net")) as built:
        yield built


@pytest.fixture(scope="session")
def dual_net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DualNet]:
    """One more, with both address families."""
    with DualNet.built(tmp_path_factory.mktemp("dual")) as built:
        yield built


@pytest.fixture(scope="session", autouse=True)
def namespace_directory_as_before() -> Iterator[None]:
    """Tests that make namespaces without a cluster's teardown may have made /run/netns; it goes when empty."""
    yield
    netns_directory.restore()
