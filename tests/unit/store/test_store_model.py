"""Random histories: the SQLite store, the memory store and a plain model must agree on everything that can be read."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from controlplane.store.memory import MemoryStore
from controlplane.store.protocol import Change, Compacted, Delete, Put, RevisionMismatch, Store, Write
from controlplane.store.sqlite import SQLiteStore

KEYS = ("/r/a", "/r/b", "/r/b/c", "/r/b-c", "/s/a")
Expect = str
"""How to choose a write's expectation: none, absent, right, wrong."""

writes = st.tuples(
    st.sampled_from(KEYS),
    st.one_of(st.none(), st.binary(max_size=4)),
    st.sampled_from(("none", "absent", "right", "wrong")),
)
operations = st.lists(
    st.one_of(
        st.lists(writes, min_size=1, max_size=3).map(lambda found: ("commit", found)),
        st.floats(0, 1).map(lambda part: ("compact", part)),
    ),
    max_size=25,
)


class Model:
    """States by revision, each a complete copy: slow and plainly right."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, tuple[bytes, int, int]]] = {1: {}}
        self.changes: list[tuple[int, str, bytes | None]] = []
        self.compacted = 0

    @property
    def revision(self) -> int:
        return max(self.states)

    def commit(self, batch: Sequence[Write]) -> bool:
        state, revision = dict(self.states[self.revision]), self.revision
        states, changes = {}, []
        for write in batch:
            current = state[write.key][2] if write.key in state else 0
            if write.expect is not None and write.expect != current:
                return False
            if isinstance(write, Put):
                revision += 1
                created = state[write.key][1] if current else revision
                state[write.key] = (write.value, created, revision)
                changes.append((revision, write.key, write.value))
            elif current:
                revision += 1
                del state[write.key]
                changes.append((revision, write.key, None))
            states[revision] = dict(state)
        self.states.update(states)
        self.changes += changes
        return True


def expectation(model: Model, key: str, how: Expect) -> int | None:
    state = model.states[model.revision]
    current = state[key][2] if key in state else 0
    return {"none": None, "absent": 0, "right": current, "wrong": current + 1}[how]


async def drain(store: Store, after: int, until: int) -> list[tuple[int, str, bytes | None]]:
    found: list[Change] = []
    watch = store.watch("/r/", after)
    watch.request_progress()
    async with asyncio.timeout(10):
        while watch.revision < until:
            found += await anext(aiter(watch))
    watch.close()
    return [(change.revision, change.key, change.record.value if change.record else None) for change in found]


async def compare(store: Store, model: Model) -> None:
    assert await store.revision() == model.revision
    for key in KEYS:
        record = await store.get(key)
        expected = model.states[model.revision].get(key)
        got = (record.value, record.create_revision, record.mod_revision) if record else None
        assert got == expected
    for revision in range(max(model.compacted, 1), model.revision + 1):
        page = await store.range("/r/", revision=revision)
        state = {key: value for key, value in model.states[revision].items() if key.startswith("/r/")}
        assert [(r.key, (r.value, r.create_revision, r.mod_revision)) for r in page.records] == sorted(
            state.items()
        )
        wanted = [change for change in model.changes if change[0] > revision and change[1].startswith("/r/")]
        assert await drain(store, revision, model.revision) == wanted
    if model.compacted > 1:
        with pytest.raises(Compacted) as caught:
            await store.range("/r/", revision=model.compacted - 1)
        assert caught.value.oldest == model.compacted


async def run(steps: list[tuple[str, object]], directory: Path) -> None:
    model = Model()
    stores: list[Store] = [MemoryStore(), SQLiteStore(directory / "db")]
    for name, argument in steps:
        if name == "compact":
            assert isinstance(argument, float)
            revision = max(model.compacted, round(argument * model.revision), 1)
            for store in stores:
                await store.compact(revision)
            model.compacted = revision
            continue
        assert isinstance(argument, list)
        batch: list[Write] = []
        for key, value, how in argument:
            expect = expectation(model, key, how)
            batch.append(Delete(key, expect) if value is None else Put(key, value, expect))
        succeeded = model.commit(batch)
        for store in stores:
            try:
                await store.commit(batch)
                assert succeeded
            except RevisionMismatch:
                assert not succeeded
    for store in stores:
        await compare(store, model)
        await store.close()
    reopened = SQLiteStore(directory / "db")
    await compare(reopened, model)
    await reopened.close()


@settings(max_examples=examples(30), deadline=None)
@given(operations)
def test_stores_agree_with_the_model(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(steps, Path(directory)))
