"""Watch streams over real TLS: frames, tables, bookmarks, ends, sharing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from support.apiserver import Served
from support.client_wait import until

from controlplane.apiserver.negotiation import Representation, Shape
from controlplane.apiserver.registry import FrameType, WatchFrame
from controlplane.apiserver.registry.watching import ObjectWatch
from controlplane.apiserver.watching import FrameCache, WatchStream
from controlplane.errors import Expired, Invalid
from controlplane.resources.catalog import CONFIG_MAP
from controlplane.store.events import Stored
from controlplane.store.watcher import Watcher

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
LIMIT = 10.0


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


class Frames:
    def __init__(self, content: Any) -> None:
        self._content = content

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(LIMIT):
            line = await self._content.readline()
        assert line.endswith(b"\n"), "the watch ended"
        frame = orjson.loads(line)
        return frame["type"], frame["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        found = [await self.next() for _ in range(count)]
        return [(kind, obj["metadata"].get("name", "")) for kind, obj in found]

    async def ended(self) -> bool:
        async with asyncio.timeout(LIMIT):
            return bool(await self._content.read() == b"")


@asynccontextmanager
async def watching(
    api: Served, path: str = MAPS, headers: dict[str, str] | None = None, **params: str
) -> AsyncIterator[Frames]:
    query = {"watch": "true", **params}
    async with api.session.get(api.url + path, params=query, headers=headers) as answer:
        assert answer.status == 200, await answer.read()
        assert answer.content_type == "application/json"
        yield Frames(answer.content)


async def test_what_is_there_comes_first_and_then_what_happens(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a"))
    async with watching(api) as frames:
        assert await frames.names(1) == [("ADDED", "a")]
        made = await api.json("POST", MAPS, 201, json=config_map("b"))
        assert await frames.next() == ("ADDED", made)
        headers = {"Content-Type": "application/merge-patch+json"}
        await api.json("PATCH", f"{MAPS}/b", data=b'{"data":{"k":"v"}}', headers=headers)
        await api.json("DELETE", f"{MAPS}/b")
        kind, obj = await frames.next()
        assert (kind, obj["data"]) == ("MODIFIED", {"k": "v"})
        kind, gone = await frames.next()
        assert (kind, gone["data"]) == ("DELETED", {"k": "v"})
        assert int(gone["metadata"]["resourceVersion"]) > int(obj["metadata"]["resourceVersion"])


async def test_a_watch_goes_on_from_a_list(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a"))
    revision = (await api.json("GET", MAPS))["metadata"]["resourceVersion"]
    await api.json("POST", MAPS, 201, json=config_map("b"))
    async with watching(api, resourceVersion=revision) as frames:
        assert await frames.names(1) == [("ADDED", "b")]


async def test_selectors_turn_changes_into_comings_and_goings(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a", tier="web"))
    headers = {"Content-Type": "application/merge-patch+json"}
    async with watching(api, labelSelector="tier=web") as frames:
        assert await frames.names(1) == [("ADDED", "a")]
        for tier in (b"db", b"web"):
            patch = b'{"metadata":{"labels":{"tier":"' + tier + b'"}}}'
            await api.json("PATCH", f"{MAPS}/a", data=patch, headers=headers)
        assert await frames.names(2) == [("DELETED", "a"), ("ADDED", "a")]


@pytest.mark.parametrize("single", ["path", "selector"])
async def test_one_object_is_watched(api: Served, single: str) -> None:
    path, params = (f"{MAPS}/b", {}) if single == "path" else (MAPS, {"fieldSelector": "metadata.name=b"})
    async with watching(api, path, **params) as frames:
        for name in ("a", "b", "c"):
            await api.json("POST", MAPS, 201, json=config_map(name))
        await api.json("DELETE", f"{MAPS}/b")
        assert await frames.names(2) == [("ADDED", "b"), ("DELETED", "b")]


async def test_tables_tell_their_columns_once(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a"))
    async with watching(api, headers=TABLE) as frames:
        kind, first = await frames.next()
        assert (kind, first["kind"], first["rows"][0]["cells"][0]) == ("ADDED", "Table", "a")
        assert [column["name"] for column in first["columnDefinitions"]] == ["Name", "Data", "Age"]
        made = await api.json("POST", MAPS, 201, json=config_map("b"))
        kind, second = await frames.next()
        assert (kind, second["columnDefinitions"], second["rows"][0]["cells"][0]) == ("ADDED", None, "b")
        assert second["rows"][0]["object"]["metadata"] == made["metadata"]


async def test_the_end_comes_when_asked_with_a_bookmark_before_it(api: Served) -> None:
    async with watching(api, timeoutSeconds="3", allowWatchBookmarks="True") as frames:
        await api.json("POST", MAPS, 201, json=config_map("a"))
        found = []
        while not found or found[-1][0] != "BOOKMARK":
            found.append(await frames.next())
        assert found[0][0] == "ADDED"
        bookmark = found[-1][1]
        assert (bookmark["kind"], bookmark["apiVersion"]) == ("ConfigMap", "v1")
        assert set(bookmark["metadata"]) == {"resourceVersion", "creationTimestamp"}
        assert await frames.ended()


async def test_without_bookmarks_asked_for_none_comes(api: Served) -> None:
    async with watching(api, timeoutSeconds="1") as frames:
        assert await frames.ended()


async def test_initial_events_end_with_a_marked_bookmark(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map("a"))
    async with watching(
        api, sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true"
    ) as frames:
        assert await frames.names(1) == [("ADDED", "a")]
        kind, bookmark = await frames.next()
        assert kind == "BOOKMARK"
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"resourceVersion": "abc"}, 400),
        ({"sendInitialEvents": "true"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "1"}, 422),
        ({"fieldSelector": "spec.x=y"}, 400),
    ],
)
async def test_wrong_options_are_refused_before_the_stream_begins(
    api: Served, params: dict[str, str], code: int
) -> None:
    status = await api.json("GET", MAPS, code, params={"watch": "1", **params})
    assert status["code"] == code


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycle_collector")
async def test_a_watcher_that_leaves_leaves_nothing_behind(api: Served) -> None:
    def left() -> list[str]:
        kinds = (Watcher, ObjectWatch, WatchStream)
        return [type(obj).__name__ for obj in gc.get_objects() if isinstance(obj, kinds)]

    before = left()
    async with watching(api) as frames:
        await api.json("POST", MAPS, 201, json=config_map("a"))
        assert await frames.names(1) == [("ADDED", "a")]
        assert sorted(left()) == sorted([*before, "ObjectWatch", "WatchStream", "Watcher"])
    await until(lambda: left() == before, LIMIT)


def stored(name: str, revision: int) -> Stored:
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "resourceVersion": str(revision)},
    }
    return Stored(obj, orjson.dumps(obj), revision)


class Script:
    """Frames of a watch that goes as written; behind the last step it waits for ever, or ends."""

    def __init__(self, *steps: WatchFrame | Exception, endless: bool = False) -> None:
        self.steps = list(steps)
        self.endless = endless
        self.closed = False

    async def begin(self) -> None:
        if self.steps and isinstance(self.steps[0], Exception):
            raise self.steps[0]

    def ready(self) -> WatchFrame | None:
        if not self.steps:
            return None
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def __anext__(self) -> WatchFrame:
        if self.endless:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


PLAIN = Representation()


async def test_a_revision_that_is_too_old_is_told_inside_the_stream() -> None:
    error = Expired("too old resource version: 5 (900)")
    stream = WatchStream(CONFIG_MAP, Script(error), PLAIN, "", FrameCache())
    await stream.open()
    frame = orjson.loads(b"".join([piece async for piece in stream]))
    assert (frame["type"], frame["object"]["code"], frame["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_refusal_raises_from_open() -> None:
    stream = WatchStream(CONFIG_MAP, Script(Invalid("no")), PLAIN, "", FrameCache())
    with pytest.raises(Invalid):
        await stream.open()


async def test_a_fault_in_the_middle_ends_the_stream_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    frame = WatchFrame(FrameType.ADDED, stored("a", 7), 7)
    stream = WatchStream(CONFIG_MAP, Script(frame, RuntimeError("secret")), PLAIN, "", FrameCache())
    lines = b"".join([piece async for piece in stream]).splitlines()
    assert [orjson.loads(line)["type"] for line in lines] == ["ADDED", "ERROR"]
    assert b"secret" not in lines[1]
    assert "configmaps: watch failed" in caplog.text


async def test_frames_that_are_ready_together_are_sent_together() -> None:
    frames = [WatchFrame(FrameType.ADDED, stored(f"c{n}", n), n) for n in range(1, 101)]
    stream = WatchStream(CONFIG_MAP, Script(*frames), PLAIN, "", FrameCache())
    await stream.open()
    pieces = [piece async for piece in stream]
    assert len(pieces) == 1
    assert pieces[0].count(b"\n") == 100


async def test_closing_a_stream_that_was_never_read_closes_its_source() -> None:
    frames = Script(endless=True)
    stream = WatchStream(CONFIG_MAP, frames, PLAIN, "", FrameCache())
    await stream.open()
    await stream.aclose()
    assert frames.closed
    assert [piece async for piece in stream] == []


@pytest.mark.parametrize("shape", [Shape.TABLE, Shape.OBJECT])
def test_watchers_share_encoded_frames(shape: Shape) -> None:
    cache = FrameCache(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    wanted = Representation(shape, "v1" if shape is Shape.TABLE else "")
    frame = WatchFrame(FrameType.MODIFIED, stored("a", 7), 7)
    first = cache.encode(CONFIG_MAP, frame, wanted, "Metadata", with_columns=False)
    same = WatchFrame(FrameType.MODIFIED, stored("a", 7), 7)
    assert cache.encode(CONFIG_MAP, same, wanted, "Metadata", with_columns=False) is first
    other = WatchFrame(FrameType.ADDED, stored("a", 7), 7)
    assert cache.encode(CONFIG_MAP, other, wanted, "Metadata", with_columns=False) != first


def test_the_frame_cache_stays_within_its_bound() -> None:
    cache = FrameCache(max_bytes=500)
    for revision in range(1, 50):
        frame = WatchFrame(FrameType.ADDED, stored("a", revision), revision)
        cache.encode(CONFIG_MAP, frame, PLAIN, "", with_columns=True)
    assert 0 < sum(map(len, cache._frames.values())) <= 500
