"""`kubectl proxy`: what plain HTTP clients see through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
from support.kubectl import LIMIT, Kubectl

pytestmark = pytest.mark.kubectl

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def proxy(kubectl: Kubectl) -> AsyncIterator[str]:
    """The address a running `kubectl proxy` says it serves on."""
    process = await kubectl.start("proxy", "--port=0")
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), LIMIT)).decode()
        assert line.startswith("Starting to serve on 127.0.0.1:")
        yield "http://" + line.split()[-1]
    finally:
        process.terminate()
        await process.communicate()


async def test_objects_are_written_and_read_without_credentials(proxy: str) -> None:
    async with aiohttp.ClientSession(proxy) as session:
        body = {"metadata": {"name": "through"}, "data": {"a": "1"}}
        async with session.post(MAPS, json=body) as answer:
            assert answer.status == 201
        async with session.get(MAPS + "/through") as answer:
            assert (await answer.json())["data"] == {"a": "1"}
        async with session.get(MAPS + "/missing") as answer:
            assert answer.status == 404
            assert (await answer.json())["message"] == 'configmaps "missing" not found'
        async with session.get("/version") as answer:
            assert (await answer.json())["major"] == "1"


async def test_a_watch_arrives_event_by_event(proxy: str) -> None:
    async with aiohttp.ClientSession(proxy) as session, session.get(MAPS + "?watch=true") as watch:
        async with session.post(MAPS, json={"metadata": {"name": "seen"}}) as answer:
            assert answer.status == 201
        async with asyncio.timeout(LIMIT):
            async for line in watch.content:
                event = orjson.loads(line)
                if event["object"]["metadata"]["name"] == "seen":
                    assert event["type"] == "ADDED"
                    break


async def test_streams_of_pods_are_refused_by_default(proxy: str) -> None:
    async with (
        aiohttp.ClientSession(proxy) as session,
        session.post("/api/v1/namespaces/default/pods/p/exec?command=true") as answer,
    ):
        assert answer.status == 403
