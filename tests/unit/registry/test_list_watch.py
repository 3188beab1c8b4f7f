"""get, list and watch: resourceVersions, pages, selectors, bookmarks, errors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from support.registry_kinds import GLOBAL, KINDS, WIDGET, named

from controlplane.apiserver.registry import (
    DeleteOptions,
    ListOptions,
    Registry,
    VersionMatch,
    WatchFrame,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.registry import watching as watching_module
from controlplane.errors import BadRequest, Expired, Invalid, ServerTimeout
from controlplane.store.memory import MemoryStore

WRITE = WriteOptions()
DEADLINE = 10.0


async def fill(registry: Registry, count: int, namespace: str = "default") -> list[int]:
    return [
        (
            await registry.create(WIDGET, namespace, named(f"w{number:02}", spec={"size": number}), WRITE)
        ).revision
        for number in range(count)
    ]


async def touch(registry: Registry, name: str, size: int) -> int:
    stored, _ = await registry.update(WIDGET, "default", name, named(name, spec={"size": size}), WRITE)
    return stored.revision


async def remove(registry: Registry, name: str) -> None:
    await registry.delete(WIDGET, "default", name, DeleteOptions())


async def names(registry: Registry, namespace: str = "default", **options: Any) -> list[str]:
    result = await registry.list(WIDGET, namespace, ListOptions(**options))
    return [stored.object["metadata"]["name"] for stored in result.items]


async def take(frames: AsyncIterator[WatchFrame], count: int) -> list[tuple[str, str, int]]:
    async with asyncio.timeout(DEADLINE):
        found = [await anext(frames) for _ in range(count)]
    return [
        (frame.type.value, frame.stored.object["metadata"]["name"] if frame.stored else "", frame.revision)
        for frame in found
    ]


async def test_a_list_is_at_the_stores_revision(registry: Registry) -> None:
    await fill(registry, 2)
    await fill(registry, 1, "other")
    await registry.create(GLOBAL, "", named("x"), WRITE)
    result = await registry.list(WIDGET, "default", ListOptions())
    assert len(result.items) == 2
    assert result.revision == await registry.revision()
    assert len((await registry.list(WIDGET, "", ListOptions())).items) == 3


async def test_pages_are_one_list(registry: Registry) -> None:
    await fill(registry, 7)
    first = await registry.list(WIDGET, "default", ListOptions(limit=3))
    assert (len(first.items), first.remaining) == (3, 4)
    await remove(registry, "w04")
    await touch(registry, "w05", 55)
    await registry.create(WIDGET, "default", named("w03-new"), WRITE)
    second = await registry.list(WIDGET, "default", ListOptions(limit=3, continue_token=first.continue_token))
    assert [stored.object["metadata"]["name"] for stored in second.items] == ["w03", "w04", "w05"]
    assert second.items[2].object["spec"]["size"] == 5
    assert (second.revision, second.remaining) == (first.revision, 1)
    third = await registry.list(WIDGET, "default", ListOptions(limit=3, continue_token=second.continue_token))
    assert [stored.object["metadata"]["name"] for stored in third.items] == ["w06"]
    assert (third.continue_token, third.remaining) == ("", None)


async def test_a_page_that_ends_with_the_list_has_no_token(registry: Registry) -> None:
    await fill(registry, 3)
    result = await registry.list(WIDGET, "default", ListOptions(limit=3))
    assert (len(result.items), result.continue_token) == (3, "")


async def test_pages_with_a_predicate_do_not_count_the_rest(registry: Registry) -> None:
    await fill(registry, 6)
    options = ListOptions(limit=2, predicate=lambda obj: obj["spec"]["size"] % 2 == 0)
    first = await registry.list(WIDGET, "", options)
    assert [stored.object["spec"]["size"] for stored in first.items] == [0, 2]
    assert first.remaining is None
    assert first.continue_token


@pytest.mark.parametrize(
    "token",
    [
        "not base64 !",
        base64.urlsafe_b64encode(b"no json").decode(),
        base64.urlsafe_b64encode(orjson.dumps({"v": "other", "rv": 3, "start": "a"})).decode(),
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"})).decode(),
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": 3, "start": ""})).decode(),
        base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": 3, "start": "other/a"})).decode(),
        base64.urlsafe_b64encode(orjson.dumps([1])).decode(),
    ],
)
async def test_a_token_we_never_gave_out_is_refused(registry: Registry, token: str) -> None:
    with pytest.raises(BadRequest, match=r"^invalid continue token: continue key is not valid: "):
        await names(registry, continue_token=token, limit=2)


async def test_old_pages_come_from_the_store_until_it_has_forgotten(store: MemoryStore) -> None:
    registry = Registry(store, KINDS)
    await registry.start()
    await fill(registry, 4)
    first = await registry.list(WIDGET, "default", ListOptions(limit=2))
    await remove(registry, "w02")
    await registry.close()
    restarted = Registry(store, KINDS)
    await restarted.start()
    assert await names(restarted, limit=2, continue_token=first.continue_token) == ["w02", "w03"]
    exact = ListOptions(resource_version=str(first.revision), match=VersionMatch.EXACT)
    assert len((await restarted.list(WIDGET, "", exact)).items) == 4
    await store.compact(await store.revision())
    with pytest.raises(Expired, match=r"The provided continue parameter is too old") as expired:
        await names(restarted, limit=2, continue_token=first.continue_token)
    # The answer leads to the rest of the list as it is now.
    token = expired.value.status()["metadata"]["continue"]
    rest = await restarted.list(WIDGET, "default", ListOptions(continue_token=token))
    assert [stored.object["metadata"]["name"] for stored in rest.items] == ["w03"]
    assert rest.revision == await restarted.revision()
    with pytest.raises(Expired, match=r"The resourceVersion for the provided list is too old"):
        await restarted.list(WIDGET, "", exact)
    await restarted.close()


async def test_versions_of_lists(registry: Registry) -> None:
    revisions = await fill(registry, 3)
    assert await names(registry, resource_version="0") == ["w00", "w01", "w02"]
    assert await names(registry, resource_version=str(revisions[0])) == ["w00", "w01", "w02"]
    exact = VersionMatch.EXACT
    assert await names(registry, resource_version=str(revisions[0]), match=exact) == ["w00"]
    for match in (None, exact):
        with pytest.raises(ServerTimeout, match=r"^Too large resource version: 99, current: \d+$") as caught:
            await names(registry, resource_version="99", match=match)
        assert caught.value.retry_after == 1
        assert [cause.reason for cause in caught.value.causes] == ["ResourceVersionTooLarge"]
    with pytest.raises(ServerTimeout):
        await registry.get(WIDGET, "default", "w00", "99")
    with pytest.raises(BadRequest, match=r'parsing "x": invalid syntax'):
        await names(registry, resource_version="x")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"match": VersionMatch.EXACT}, "forbidden unless resourceVersion is provided"),
        (
            {"match": VersionMatch.EXACT, "resource_version": "0"},
            '"exact" is forbidden for resourceVersion "0"',
        ),
        (
            {"match": VersionMatch.EXACT, "resource_version": "1", "continue_token": "x"},
            "forbidden when continue is provided",
        ),
    ],
)
async def test_options_that_do_not_go_together(
    registry: Registry, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(Invalid, match=text) as caught:
        await names(registry, **options)
    assert caught.value.causes[0].field == "resourceVersionMatch"


async def test_a_continued_list_takes_no_version(registry: Registry) -> None:
    with pytest.raises(BadRequest, match=r"specifying resource version is not allowed when using continue"):
        await names(registry, continue_token="x", resource_version="5")


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_without_version_starts_with_all_there_is(registry: Registry, version: str) -> None:
    revisions = await fill(registry, 2)
    watch = registry.watch(WIDGET, "default", WatchOptions(resource_version=version))
    assert await take(watch, 2) == [("ADDED", "w00", revisions[0]), ("ADDED", "w01", revisions[1])]
    changed = await touch(registry, "w00", 9)
    assert await take(watch, 1) == [("MODIFIED", "w00", changed)]
    await watch.aclose()


async def test_a_watch_from_a_version_gets_what_came_after_it(registry: Registry) -> None:
    revisions = await fill(registry, 3)
    watch = registry.watch(WIDGET, "", WatchOptions(resource_version=str(revisions[1])))
    assert await take(watch, 1) == [("ADDED", "w02", revisions[2])]
    await watch.aclose()


async def test_a_watch_of_one_name(registry: Registry) -> None:
    revisions = await fill(registry, 3)
    watch = registry.watch(WIDGET, "default", WatchOptions(name="w01"))
    assert await take(watch, 1) == [("ADDED", "w01", revisions[1])]
    await touch(registry, "w00", 9)
    changed = await touch(registry, "w01", 9)
    assert await take(watch, 1) == [("MODIFIED", "w01", changed)]
    await watch.aclose()


async def test_a_watch_by_predicate_sees_objects_come_and_go(registry: Registry) -> None:
    revisions = await fill(registry, 2)
    options = WatchOptions(resource_version=str(revisions[1]), predicate=lambda obj: obj["spec"]["size"] > 10)
    watch = registry.watch(WIDGET, "default", options)
    added = await touch(registry, "w00", 11)
    deleted = await touch(registry, "w00", 1)
    assert await take(watch, 2) == [("ADDED", "w00", added), ("DELETED", "w00", deleted)]
    await watch.aclose()


async def test_versions_of_watches(store: MemoryStore) -> None:
    registry = Registry(store, KINDS)
    await registry.start()
    await fill(registry, 3)
    await registry.close()
    restarted = Registry(store, KINDS)
    await restarted.start()
    with pytest.raises(Expired, match=r"^too old resource version: 2 \(4\)$"):
        await take(restarted.watch(WIDGET, "", WatchOptions(resource_version="2")), 1)
    with pytest.raises(ServerTimeout, match=r"Too large resource version: 99, current: 4"):
        await take(restarted.watch(WIDGET, "", WatchOptions(resource_version="99")), 1)
    await restarted.close()


async def test_initial_events_end_with_a_marked_bookmark(registry: Registry) -> None:
    revisions = await fill(registry, 2)
    options = WatchOptions(send_initial_events=True, match=VersionMatch.NOT_OLDER_THAN, bookmarks=True)
    watch = registry.watch(WIDGET, "default", options)
    assert [frame[:2] for frame in await take(watch, 2)] == [("ADDED", "w00"), ("ADDED", "w01")]
    frame = await anext(watch)
    assert (frame.type, frame.initial_events_end, frame.revision) == ("BOOKMARK", True, revisions[1])
    await watch.aclose()
    with pytest.raises(
        Invalid, match=r"sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    ):
        await take(registry.watch(WIDGET, "default", WatchOptions(send_initial_events=True)), 1)
    with pytest.raises(Invalid, match=r"forbidden for watch unless sendInitialEvents is provided"):
        await take(registry.watch(WIDGET, "", WatchOptions(match=VersionMatch.NOT_OLDER_THAN)), 1)


async def test_the_bookmark_behind_initial_events_does_not_run_ahead(registry: Registry) -> None:
    revisions = await fill(registry, 2)
    options = WatchOptions(send_initial_events=True, match=VersionMatch.NOT_OLDER_THAN)
    watch = registry.watch(WIDGET, "default", options)
    assert await take(watch, 1) == [("ADDED", "w00", revisions[0])]
    changed = await touch(registry, "w00", 9)
    assert await take(watch, 3) == [
        ("ADDED", "w01", revisions[1]), ("BOOKMARK", "", revisions[1]), ("MODIFIED", "w00", changed),
    ]  # fmt: skip
    await watch.aclose()


async def test_bookmarks_carry_the_stores_revision(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "BOOKMARK_SECONDS", 0.02)
    await fill(registry, 1)
    watch = registry.watch(WIDGET, "default", WatchOptions(bookmarks=True))
    await take(watch, 1)
    other = await registry.create(GLOBAL, "", named("x"), WRITE)
    assert (await take(watch, 1))[0] == ("BOOKMARK", "", other.revision)
    await watch.aclose()


async def test_a_watch_ends_at_its_timeout_after_a_last_bookmark(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "LAST_BOOKMARK_SECONDS", 0.05)
    watch = registry.watch(WIDGET, "default", WatchOptions(bookmarks=True, timeout_seconds=0.1))
    async with asyncio.timeout(DEADLINE):
        frames = [frame async for frame in watch]
    assert [frame.type for frame in frames] == ["BOOKMARK"]


async def test_a_watch_without_bookmarks_ends_silently(registry: Registry) -> None:
    async with asyncio.timeout(DEADLINE):
        assert [f async for f in registry.watch(WIDGET, "", WatchOptions(timeout_seconds=0.02))] == []


async def test_a_watch_ends_at_its_timeout_though_frames_keep_coming(registry: Registry) -> None:
    await fill(registry, 1)
    watch = registry.watch(WIDGET, "", WatchOptions(resource_version="1", timeout_seconds=0.05))
    async with asyncio.timeout(DEADLINE):
        size = 100
        while await anext(watch, None) is not None:
            size += 1
            await touch(registry, "w00", size)
    await watch.aclose()


async def test_frames_that_are_there_are_had_without_waiting(registry: Registry) -> None:
    revisions = await fill(registry, 3)
    watch = registry.watch(WIDGET, "", WatchOptions())
    assert watch.ready() is None
    await watch.begin()
    found = [frame.revision for frame in iter(watch.ready, None)]
    assert found == revisions
    await watch.aclose()
    assert watch.ready() is None
    assert await anext(watch, None) is None


async def test_watches_end_with_the_registry(registry: Registry) -> None:
    watch = registry.watch(WIDGET, "", WatchOptions())
    waiting = asyncio.create_task(anext(watch, None))
    await asyncio.sleep(0)
    await registry.close()
    async with asyncio.timeout(DEADLINE):
        assert await waiting is None
