"""What both stores promise, told one rule at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import (
    Change,
    Compacted,
    Delete,
    Put,
    RevisionMismatch,
    Store,
    StoreClosed,
    StoreError,
    Watch,
)
from controlplane.store.sqlite import SQLiteStore

DEADLINE = 10.0


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore(queue_limit=8) if request.param == "memory" else SQLiteStore(tmp_path / "db", 8)
    yield made
    await made.close()


async def put(store: Store, key: str, value: bytes, expect: int | None = None) -> Change:
    (change,) = await store.commit([Put(key, value, expect)])
    return change


async def take(watch: Watch, count: int) -> list[Change]:
    """At least `count` changes."""
    found: list[Change] = []
    async with asyncio.timeout(DEADLINE):
        async for changes in watch:
            found += changes
            if len(found) >= count:
                break
    return found


async def test_a_new_store_is_at_revision_one_and_counts_every_write(store: Store) -> None:
    assert await store.revision() == 1
    first = await put(store, "/a", b"1")
    second = await put(store, "/a", b"2")
    assert (first.revision, second.revision) == (2, 3)
    assert second.previous == first.record
    record = await store.get("/a")
    assert record is not None
    assert (record.value, record.create_revision, record.mod_revision) == (b"2", 2, 3)
    assert await store.revision() == 3


async def test_a_key_made_again_after_a_deletion_has_a_new_create_revision(store: Store) -> None:
    await put(store, "/a", b"1")
    (deleted,) = await store.commit([Delete("/a")])
    assert (deleted.record, deleted.revision) == (None, 3)
    assert deleted.previous is not None
    assert await store.get("/a") is None
    assert (await put(store, "/a", b"2")).record.create_revision == 4  # type: ignore[union-attr]


async def test_deleting_nothing_changes_nothing(store: Store) -> None:
    assert list(await store.commit([Delete("/a")])) == []
    assert list(await store.commit([Delete("/a", expect=0)])) == []
    assert await store.revision() == 1


@pytest.mark.parametrize(
    ("write", "current"),
    [
        (Put("/a", b"", 0), 2),
        (Put("/a", b"", 7), 2),
        (Delete("/a", 0), 2),
        (Put("/b", b"", 2), 0),
        (Delete("/b", 5), 0),
    ],
)
async def test_a_failed_expectation_tells_the_present_revision(
    store: Store, write: Put | Delete, current: int
) -> None:
    await put(store, "/a", b"1")
    with pytest.raises(RevisionMismatch) as caught:
        await store.commit([write])
    assert caught.value.current == current
    assert await store.revision() == 2


async def test_a_commit_is_all_or_nothing_and_sees_its_own_writes(store: Store) -> None:
    with pytest.raises(RevisionMismatch):
        await store.commit([Put("/a", b"1"), Put("/b", b"1"), Put("/a", b"2", expect=9)])
    assert await store.get("/a") is None
    assert await store.revision() == 1
    changes = await store.commit([Put("/a", b"1", 0), Put("/a", b"2", 2), Delete("/a", 3)])
    assert [change.revision for change in changes] == [2, 3, 4]


async def test_one_of_many_concurrent_creators_wins(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(put(store, "/a", str(number).encode(), 0) for number in range(20)), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, Change)]
    assert len(won) == 1
    record = await store.get("/a")
    assert record == won[0].record


async def test_a_range_is_in_key_order_and_in_pages(store: Store) -> None:
    for key in ("/r/b", "/r/a", "/r/c", "/s/a", "/r-x"):
        await put(store, key, key.encode())
    page = await store.range("/r/")
    assert [record.key for record in page.records] == ["/r/a", "/r/b", "/r/c"]
    assert (page.revision, page.more) == (6, False)
    page = await store.range("/r/", limit=2)
    assert ([record.key for record in page.records], page.more) == (["/r/a", "/r/b"], True)
    page = await store.range("/r/", after="/r/b", limit=1)
    assert ([record.key for record in page.records], page.more) == (["/r/c"], False)
    assert (await store.range("")).records[0].key == "/r-x"


async def test_a_range_at_an_old_revision_shows_the_past(store: Store) -> None:
    await put(store, "/r/a", b"1")
    await put(store, "/r/b", b"1")
    await store.commit([Delete("/r/a")])
    await put(store, "/r/b", b"2")
    past = await store.range("/r/", revision=3)
    assert [(record.key, record.value) for record in past.records] == [("/r/a", b"1"), ("/r/b", b"1")]
    assert past.revision == 3
    with pytest.raises(StoreError, match="future"):
        await store.range("/r/", revision=99)


async def test_a_watch_gets_the_past_after_its_revision_and_then_what_comes(store: Store) -> None:
    await put(store, "/r/a", b"1")
    await put(store, "/r/a", b"2")
    await put(store, "/s/a", b"1")
    watch = store.watch("/r/", 2)
    assert [change.revision for change in await take(watch, 1)] == [3]
    await put(store, "/r/b", b"1")
    await store.commit([Delete("/r/a")])
    changes = await take(watch, 2)
    assert [(change.revision, change.key, change.record is None) for change in changes] == [
        (5, "/r/b", False),
        (6, "/r/a", True),
    ]
    assert changes[1].previous is not None
    assert changes[1].previous.value == b"2"
    watch.close()


async def test_a_watch_far_behind_loses_nothing(store: Store) -> None:
    watch = store.watch("/r/", 1)
    for number in range(50):
        await put(store, "/r/a", str(number).encode())
        await put(store, "/s/a", b"")
    changes = await take(watch, 50)
    assert [change.record.value for change in changes if change.record] == [
        str(number).encode() for number in range(50)
    ]
    assert all(before.record == after.previous for before, after in pairwise(changes))


async def test_progress_tells_the_revision_without_a_change(store: Store) -> None:
    watch = store.watch("/r/", 1)
    await put(store, "/s/a", b"")
    watch.request_progress()
    async with asyncio.timeout(DEADLINE):
        assert list(await anext(aiter(watch))) == []
    assert watch.revision == 2


async def test_compaction_forgets_the_past_and_keeps_the_present(store: Store) -> None:
    await put(store, "/r/a", b"1")
    await put(store, "/r/b", b"1")
    await put(store, "/r/a", b"2")
    await store.commit([Delete("/r/b")])
    await store.compact(4)
    with pytest.raises(Compacted) as caught:
        await store.range("/r/", revision=3)
    assert caught.value.oldest == 4
    assert [record.value for record in (await store.range("/r/", revision=4)).records] == [b"2", b"1"]
    assert [record.value for record in (await store.range("/r/")).records] == [b"2"]
    with pytest.raises(Compacted):
        await take(store.watch("/r/", 3), 1)
    assert [change.revision for change in await take(store.watch("/r/", 4), 1)] == [5]
    with pytest.raises(Compacted):
        await store.compact(2)
    with pytest.raises(StoreError, match="future"):
        await store.compact(6)


async def test_the_revision_outlives_the_compaction_of_everything(store: Store) -> None:
    await put(store, "/a", b"1")
    await store.commit([Delete("/a")])
    await store.compact(3)
    assert await store.revision() == 3
    assert (await put(store, "/b", b"1")).revision == 4


async def test_closing_ends_watches_and_refuses_calls(store: Store) -> None:
    watch = store.watch("/r/", 1)
    waiting = asyncio.create_task(take(watch, 1))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreClosed):
        await waiting
    with pytest.raises(StoreClosed):
        await put(store, "/a", b"")
    with pytest.raises(StoreClosed):
        await store.get("/a")
    await store.close()
