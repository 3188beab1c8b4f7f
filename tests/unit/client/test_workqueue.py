"""The work queue and the controller loop on top of it."""

from __future__ import annotations

import asyncio

import pytest
from support.client_wait import running, until

from controlplane.client.batches import slow_start
from controlplane.client.controller import Controller
from controlplane.client.workqueue import WorkQueue
from controlplane.errors import Conflict, Forbidden


async def test_duplicates_are_one_and_a_key_in_work_comes_again_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "b"
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done(), "a key in work must not be handed out twice"
    queue.done("a")
    assert await asyncio.wait_for(waiting, 1) == "a"
    queue.done("a")
    queue.done("b")
    assert len(queue) == 0


async def test_the_earliest_delay_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    started = loop.time()
    queue.add_after("a", 5)
    queue.add_after("a", 0.05)
    queue.add_after("a", 5)
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    assert loop.time() - started >= 0.045
    queue.done("a")
    assert len(queue) == 0
    queue.close()


async def test_back_off_doubles_and_is_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(first_delay=0.01, max_delay=0.05)
    assert [queue.retry("a") for _ in range(4)] == [0.01, 0.02, 0.04, 0.05]
    queue.forget("a")
    assert queue.retry("a") == 0.01
    queue.close()


async def test_a_cancelled_waiter_loses_no_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first = asyncio.ensure_future(queue.get())
    second = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_key_is_never_in_two_workers_and_no_addition_is_lost() -> None:
    active: set[int] = set()
    seen: dict[int, int] = {}
    wanted: dict[int, int] = {}

    async def reconcile(key: int) -> None:
        assert key not in active
        active.add(key)
        state = wanted[key]
        await asyncio.sleep(0.0005)
        seen[key] = state
        active.discard(key)

    controller: Controller[int] = Controller("test", reconcile, workers=5)
    async with running(controller.run()):
        for number in range(300):
            wanted[number % 7] = number
            controller.queue.add(number % 7)
            if number % 3 == 0:
                await asyncio.sleep(0.0003)
        await until(lambda: len(controller.queue) == 0)
    assert seen == wanted


async def test_failures_are_repeated_whatever_they_are(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [Conflict("lost race"), Forbidden("no"), ValueError("a defect")]
    done = asyncio.Event()

    async def reconcile(key: tuple[str, str]) -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    controller: Controller[tuple[str, str]] = Controller("test", reconcile)
    async with running(controller.run()):
        controller.queue.add(("default", "web"))
        await asyncio.wait_for(done.wait(), 5)
    assert "default/web: test: no; again in" in caplog.text
    assert "a defect" in caplog.text
    assert "lost race" not in caplog.text
    assert controller.queue.failures(("default", "web")) == 0


async def test_slow_start_stops_at_the_first_bad_batch() -> None:
    calls: list[int] = []

    async def call(number: int) -> None:
        calls.append(number)
        if number >= 3:
            raise Forbidden("quota")

    done, failures = await slow_start(100, call)
    assert calls == [0, 1, 2, 3, 4, 5, 6]
    assert (done, len(failures)) == (3, 4)
    calls.clear()
    assert await slow_start(3, call) == (3, [])
    assert await slow_start(0, call) == (0, [])
