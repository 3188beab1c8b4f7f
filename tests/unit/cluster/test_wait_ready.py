"""Waiting for a new cluster: what is not there in time is named, also when the server went away in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.client.client import WatchEvent
from controlplane.client.transport import ConnectionFailed
from netkit.cluster import up
from netkit.cluster.up import StartError


class Restarting:
    """A client whose first watches break off; later ones tell nothing."""

    def __init__(self) -> None:
        self.asked = 0

    async def watch(self, *_: Any, **__: Any) -> AsyncGenerator[WatchEvent, None]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked <= 3:
            raise ConnectionFailed("connection refused")
        await asyncio.get_running_loop().create_future()
        yield  # type: ignore[misc]

    async def close(self) -> None: ...


async def test_a_cluster_that_is_not_ready_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Restarting()
    monkeypatch.setattr(up, "admin_client", lambda *_: client)
    monkeypatch.setattr(up, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(up, "_READY_SECONDS", 0.1)
    profile, plan = SimpleNamespace(logs="/logs"), SimpleNamespace(nodes=["node1"], server="https://x")
    with pytest.raises(StartError, match=r"not Ready within .*node1"):
        await up._wait_ready(profile, plan)  # type: ignore[arg-type]
    assert client.asked > 3
