from __future__ import annotations
import asyncio
import kubernetes
from support.live import Live

async def test_version(server: Live) -> None:
    config = server.kubeconfig()
    def play():
        client = kubernetes.config.new_client_from_config(config)
        return kubernetes.client.VersionApi(client).get_code()
    answer = await asyncio.to_thread(play)
    assert answer.major == "1"
    assert server.asked.lines() == []

async def test_restart(server: Live) -> None:
    await server.restart(forget=True)
