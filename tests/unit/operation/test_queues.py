"""Seats of one priority level: limits, fairness between flows, and what happens to those who give up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.flowcontrol.queues import LevelConfig, PriorityLevel, Rejected

LONG = 30.0


def level(seats: int = 1, queues: int = 16, hand: int = 4, length: int = 10) -> PriorityLevel:
    return PriorityLevel(LevelConfig("l", seats=seats, queues=queues, hand_size=hand, queue_length=length))


async def queued(lvl: PriorityLevel, flow: str, done: list[str]) -> asyncio.Task[None]:
    async def work() -> None:
        width = await lvl.enter(flow, 1, LONG)
        done.append(flow)
        await asyncio.sleep(0)
        lvl.leave(width)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return task


async def test_free_seats_are_given_at_once() -> None:
    lvl = level(seats=2)
    assert [await lvl.enter("a", 1, LONG), await lvl.enter("b", 1, LONG)] == [1, 1]
    assert (lvl.executing, lvl.occupied, lvl.waiting) == (2, 2, 0)
    lvl.leave(1)
    lvl.leave(1)
    assert (lvl.executing, lvl.occupied) == (0, 0)


async def test_a_level_without_queues_refuses_when_it_is_full() -> None:
    lvl = PriorityLevel(LevelConfig("l", seats=1))
    await lvl.enter("a", 1, LONG)
    with pytest.raises(Rejected, match="concurrency-limit"):
        await lvl.enter("b", 1, LONG)


async def test_a_flood_does_not_hold_up_another_flow() -> None:
    lvl, done = level(), []
    width = await lvl.enter("first", 1, LONG)
    tasks = [await queued(lvl, "flood", done) for _ in range(30)]
    tasks.append(await queued(lvl, "modest", done))
    lvl.leave(width)
    await asyncio.gather(*tasks)
    assert len(done) == 31
    assert done.index("modest") <= 8, (
        "the modest flow waits for one turn of each of the flood's queues at most"
    )


async def test_a_flow_that_fills_its_queues_is_sent_away() -> None:
    lvl, done = level(queues=8, hand=2, length=3), []
    width = await lvl.enter("first", 1, LONG)
    tasks = [await queued(lvl, "flood", done) for _ in range(6)]
    with pytest.raises(Rejected, match="queue-full"):
        await lvl.enter("flood", 1, LONG)
    lvl.leave(width)
    await asyncio.gather(*tasks)
    assert lvl.waiting == lvl.occupied == 0


async def test_patience_ends() -> None:
    lvl = level()
    width = await lvl.enter("a", 1, LONG)
    with pytest.raises(Rejected, match="time-out"):
        await lvl.enter("b", 1, 0.01)
    assert lvl.waiting == 0
    lvl.leave(width)
    assert await lvl.enter("b", 1, LONG) == 1


async def test_a_client_that_leaves_the_queue_leaves_no_seat_taken() -> None:
    lvl, done = level(), []
    width = await lvl.enter("a", 1, LONG)
    leaving = await queued(lvl, "b", done)
    staying = await queued(lvl, "c", done)
    leaving.cancel()
    await asyncio.wait([leaving])
    lvl.leave(width)
    await staying
    assert (done, lvl.occupied, lvl.waiting) == (["c"], 0, 0)


async def test_a_client_that_leaves_in_the_moment_of_its_turn_hands_it_on() -> None:
    lvl, done = level(), []
    width = await lvl.enter("a", 1, LONG)
    leaving = await queued(lvl, "b", done)
    staying = await queued(lvl, "c", done)
    lvl.leave(width)
    leaving.cancel()
    await asyncio.wait([leaving, staying])
    assert "c" in done
    assert (lvl.occupied, lvl.executing, lvl.waiting) == (0, 0, 0)


async def test_wide_requests_take_what_there_is() -> None:
    lvl = level(seats=3)
    assert await lvl.enter("a", 10, LONG) == 3
    lvl.leave(3)
    assert lvl.occupied == 0


async def test_more_seats_let_the_waiting_in() -> None:
    lvl, done = level(), []
    width = await lvl.enter("a", 1, LONG)
    task = await queued(lvl, "b", done)
    lvl.reconfigure(LevelConfig("l", seats=2, queues=16, hand_size=4, queue_length=10))
    await task
    lvl.leave(width)
    assert (done, lvl.occupied) == (["b"], 0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), min_size=1, max_size=40))
def test_seats_are_never_overbooked_and_everybody_is_served(requests: list[tuple[str, int]]) -> None:
    async def run() -> None:
        lvl = level(seats=4, length=50)
        served = 0

        async def work(flow: str, width: int) -> None:
            nonlocal served
            taken = await lvl.enter(flow, width, LONG)
            assert lvl.occupied <= 4
            await asyncio.sleep(0)
            lvl.leave(taken)
            served += 1

        await asyncio.gather(*(work(flow, width) for flow, width in requests))
        assert (served, lvl.occupied, lvl.executing, lvl.waiting) == (len(requests), 0, 0, 0)

    asyncio.run(run())
