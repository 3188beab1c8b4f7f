"""Pacing of syncs, with time as a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.proxy.pacing import Pacer


def run_at(pacer: Pacer, now: float) -> float:
    """Ask at `now` and run as soon as allowed; when that was."""
    pacer.request(now)
    delay = pacer.delay(now)
    assert delay is not None
    pacer.start(now + delay)
    return now + delay


def test_nothing_asked_nothing_due() -> None:
    assert Pacer(1, 2, 0).delay(100) is None


def test_a_burst_then_one_per_interval() -> None:
    pacer = Pacer(1, 2, 0)
    assert [run_at(pacer, 0), run_at(pacer, 0)] == [0, 0]
    assert run_at(pacer, 0) == pytest.approx(1)
    assert run_at(pacer, 1) == pytest.approx(2)


def test_rest_fills_the_bucket_to_the_burst_and_no_further() -> None:
    pacer = Pacer(1, 2, 0)
    for _ in range(2):
        run_at(pacer, 0)
    assert [run_at(pacer, 100), run_at(pacer, 100)] == [100, 100]
    assert run_at(pacer, 100) == pytest.approx(101)


def test_the_earliest_request_counts() -> None:
    pacer = Pacer(0, 1, 0)
    pacer.request(30)
    assert pacer.delay(10) == 20
    pacer.request(12)
    assert pacer.delay(10) == 2
    pacer.request(50)
    assert pacer.delay(10) == 2
    pacer.start(12)
    assert pacer.delay(12) is None


def test_without_interval_there_is_no_limit() -> None:
    pacer = Pacer(0, 1, 0)
    assert [run_at(pacer, 5) for _ in range(10)] == [5] * 10


@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=40),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 4),
)
def test_no_window_holds_more_runs_than_it_may(gaps: list[float], interval: float, burst: int) -> None:
    pacer, now, runs = Pacer(interval, burst, 0), 0.0, []
    for gap in gaps:
        now = run_at(pacer, now + gap)
        runs.append(now)
    for first, start in enumerate(runs):
        for last in range(first, len(runs)):
            allowed = burst + (runs[last] - start) / interval
            assert last - first + 1 <= allowed + 1e-6
