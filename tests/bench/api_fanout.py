"""How long `api.py`'s watchers wait for an event, beside those of the floor."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.api_bench import Bench, Server
from bench.api_client import Connection, load, request
from bench.api_objects import creates, pods_of
from bench.report import Figure

ALONE = 20
BURST = 40


@dataclass
class FanOut:
    """What a number of watchers of the same objects see."""

    middle: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


async def fan_out(
    bench: Bench, target: Server, count: int, watch: bytes, writes: Iterator[bytes], result: FanOut
) -> None:
    """20 creates one by one: milliseconds from sending one to each watcher's receipt; then the others in a burst."""
    delays: list[float] = []
    started, missing = 0.0, 0
    done = asyncio.Event()

    def received(events: int) -> None:
        nonlocal missing
        missing -= events
        delays.append(time.perf_counter() - started)
        if missing <= 0:
            done.set()

    watchers = [await Connection.open(target.port, bench.tls, received) for _ in range(count)]
    for watcher in watchers:
        await watcher.ask(watch)
    writers = [await Connection.open(target.port, bench.tls) for _ in range(8)]
    for data in itertools.islice(writes, ALONE):
        missing = count
        done.clear()
        started = time.perf_counter()
        await writers[0].ask(data)
        await asyncio.wait_for(done.wait(), 60)
    quantiles = statistics.quantiles(delays, n=100)
    result.middle.append(quantiles[49] * 1e3)
    result.late.append(quantiles[98] * 1e3)
    burst = list(writes)
    missing = count * len(burst)
    done.clear()
    events, used = count * len(burst), target.cpu()
    started = time.perf_counter()
    await load(writers, iter(burst))
    await asyncio.wait_for(done.wait(), 120)
    result.rate.append(events / (time.perf_counter() - started))
    result.cost.append((target.cpu() - used) / events * 1e6)
    for connection in (*watchers, *writers):
        connection.close()


async def watches(bench: Bench, bare: Server, connection: Connection, count: int, runs: int) -> list[Figure]:
    """The figures of `count` watchers."""
    ours, floor = FanOut(), FanOut()
    creates_of = creates(ALONE + BURST)
    for _ in range(runs):
        namespace = await bench.namespace(connection)
        post = itertools.repeat(request("POST", "/", b"{}"), ALONE + BURST)
        await fan_out(bench, bare, count, request("GET", "/watch"), post, floor)
        watch = request("GET", f"{pods_of(namespace)}?watch=true&resourceVersion=0")
        await fan_out(bench, bench.ours, count, watch, creates_of(namespace), ours)
    rows = (
        (f"a create to {count} watchers, p50 delay", "ms", "middle"),
        ("  p99 delay", "ms", "late"),
        ("  in a burst", "events/s", "rate"),
        ("  CPU of one event", "us", "cost"),
    )
    return [
        Figure(
            what,
            unit,
            tuple(getattr(ours, name)),
            statistics.median(getattr(floor, name)),
            "bare aiohttp",
        )
        for what, unit, name in rows
    ]
