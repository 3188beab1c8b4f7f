"""The history of a watch cache: bounded by number and by age, and honest about where it begins."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.store.events import CacheEvent
from controlplane.store.history import HISTORY_SECONDS, OLD_EVENTS, History


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add(history: History, *revisions: int) -> None:
    for revision in revisions:
        history.add(CacheEvent(revision, f"default/o{revision}", None, None))
    history.trim()


def revisions(history: History) -> list[int]:
    return [event.revision for event in history.after(history.floor)]


def test_events_after_a_revision() -> None:
    history = History()
    history.begin(10)
    add(history, 12, 13, 17)
    assert history.floor == 10
    assert revisions(history) == [12, 13, 17]
    assert [event.revision for event in history.after(12)] == [13, 17]
    assert [event.revision for event in history.after(15)] == [17]
    assert not history.after(17)


LIMIT = 1000
bursts = st.tuples(
    st.integers(1, 1500), st.sampled_from([0.0, 1.0, 100.0, HISTORY_SECONDS - 1, HISTORY_SECONDS])
)


@given(st.lists(bursts, max_size=12), st.integers(0, 12))
@example([(1, HISTORY_SECONDS), (1499, 0.0), (600, HISTORY_SECONDS), (1, 0.0)], 12)
@example([(1, HISTORY_SECONDS), (900, 1.0), (800, HISTORY_SECONDS), (1, 0.0)], 2)
def test_what_is_remembered(steps: list[tuple[int, float]], anew: int) -> None:
    """Never less than promised, never more than twice the limit, always all behind the floor."""
    clock = Clock()
    history = History(LIMIT, clock)
    history.begin(1)
    added: list[tuple[int, float]] = []
    revision = 1
    for number, (count, pause) in enumerate(steps):
        if number == anew:
            history.begin(revision)
            added.clear()
        for _ in range(count):
            revision += 1
            added.append((revision, clock.now))
            add(history, revision)
        kept = revisions(history)
        assert kept == list(range(history.floor + 1, revision + 1))
        assert len(kept) <= 2 * LIMIT
        young = [event for event, moment in added[-LIMIT:] if clock.now - moment < HISTORY_SECONDS]
        assert set(kept) >= {*young, *(event for event, _ in added[-OLD_EVENTS:])}
        clock.now += pause


def test_old_events_are_forgotten(clock: Clock) -> None:
    history = History(clock=clock)
    history.begin(1)
    for revision in range(2, 3002):
        add(history, revision)
        clock.now += 1
        assert len(revisions(history)) <= 2 * HISTORY_SECONDS + 2


def test_few_events_stay_however_old_they_are(clock: Clock) -> None:
    history = History(clock=clock)
    history.begin(1)
    for revision in range(2, 2 + OLD_EVENTS):
        add(history, revision)
        clock.now += HISTORY_SECONDS
    assert history.floor == 1
    assert len(revisions(history)) == OLD_EVENTS
