"""What single rows cannot show: shares of many connections, memory over time, and load while endpoints change."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import clone, name
from netkit.kernel import netns
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address
from rows.format import Outcome, Row, Table, Target
from rows.reader import read_table
from rows.runner import Proxy, Runner, batches
from rows.traffic import Job, Seen, Traffic
from rows.varieties import Variety
from rows.world import CROWD, World

TABLE = Path(__file__).with_name("shares.yaml")
CONNECTIONS = 3000
UNLIKELY = 27.6
"""A chi-square of 2 degrees of freedom is greater once in a million times."""
_PATIENCE = 5.0
_PATIENCE_OF_A_LINE = 30.0


@dataclass(frozen=True)
class Bench:
    """The cluster of `shares.yaml` with its rules on node1, and the connections to it."""

    table: Table
    world: World
    traffic: Traffic
    proxy: Proxy
    variety: Variety

    def row(self, row_name: str) -> Row:
        return next(row for row in self.table.rows if row.name == row_name)

    def job(
        self, row: Row, enough: Any, *, source: Address | None = None, patience: float = _PATIENCE
    ) -> Job:
        return Job(
            row.origin.machine, source or row.origin.source, row.targets, row.protocol, enough, patience
        )

    async def connect(self, row: Row, sources: Iterable[Address]) -> dict[Address, str]:
        """One connection from each address: the endpoint that it reached."""
        jobs = {source: self.job(row, bool, source=source) for source in sources}
        for job in jobs.values():
            job.window = 1
        await self.traffic.run(jobs.values())
        return {source: str(job.seen[0]) for source, job in jobs.items()}

    async def give(self, slice_name: str, endpoints: Iterable[Object]) -> None:
        """Let a slice have these endpoints, and write what follows from that."""
        for family, state in self.proxy.states.items():
            for item in self.table.clusters["shares"].of_kind("EndpointSlice"):
                if name(item) == slice_name and item["addressType"] == family:
                    changed = clone(item)
                    changed["endpoints"] = list(endpoints)
                    state.upsert_slice(changed)
        await self.proxy.sync()

    def endpoint(self, pod: str, **conditions: bool) -> Object:
        """The entry of a pod in a slice."""
        plan = self.table.clusters["shares"].pods[pod]
        return {"addresses": [str(plan.addresses[0])], "nodeName": plan.node, "conditions": conditions}

    def target(self, pod: str) -> str:
        """`address:port` of a pod."""
        return f"{self.table.clusters['shares'].pods[pod].addresses[0]}:8080"


@asynccontextmanager
async def bench(variety: Variety, world: World, table: Table) -> AsyncIterator[Bench]:
    """The rules of one mode, until the end of the block."""
    (batch,) = batches(table.rows)
    async with Traffic(world) as traffic:
        runner = Runner(table, world, traffic)
        async with runner.proxy(variety, batch) as proxy:
            yield Bench(table, world, traffic, proxy, variety)


def shares_table() -> Table:
    return read_table(TABLE)


async def shares(bench: Bench, row_name: str) -> Counter[str]:
    """How many of 3,000 connections each endpoint got. AssertionError if one reached none."""
    row = bench.row(row_name)
    job = bench.job(row, lambda seen: len(seen) >= CONNECTIONS)
    await bench.traffic.run([job])
    lost = [str(item) for item in job.seen if item.outcome is not Outcome.ENDPOINTS]
    assert not lost, f"connections were lost: {Counter(lost)}"
    return Counter(item.endpoint for item in job.seen)


def chi_square(counts: Counter[str]) -> float:
    """How far the counts are from equal shares."""
    expected = counts.total() / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts.values())


def crowd(count: int) -> list[Address]:
    """Addresses of different clients outside."""
    return [CROWD[0][number] for number in range(1, count + 1)]


class Line:
    """A connection that stays open: whatever is said on it is answered by the endpoint it has."""

    def __init__(self, space: Namespace, target: Target, port: int) -> None:
        self._socket = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(("0.0.0.0", port))
        self._target = target
        self.endpoint = ""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_PATIENCE_OF_A_LINE):
            await loop.sock_connect(self._socket, (str(self._target.address), self._target.port))
            self.endpoint = (await loop.sock_recv(self._socket, 4096)).decode().split()[0]

    async def say(self) -> None:
        """Raises AssertionError when the connection no longer leads to its endpoint."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE_OF_A_LINE):
                await loop.sock_sendall(self._socket, b"still there?")
                text = (await loop.sock_recv(self._socket, 4096)).decode()
        except (OSError, TimeoutError) as error:
            raise AssertionError(f"a long connection to {self.endpoint} broke: {error!r}") from error
        assert text.split()[:1] == [self.endpoint], f"{text!r} instead of an answer of {self.endpoint}"

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Step:
    """One state of a rollout: who is ready, and who shuts down but still serves."""

    ready: tuple[str, ...]
    draining: tuple[str, ...] = ()


def rollout(old: Sequence[str], new: Sequence[str]) -> list[Step]:
    """One pod after the other is replaced: the new one becomes ready, the old one drains, the old one is gone."""
    steps = []
    current = list(old)
    for leaving, coming in zip(old, new, strict=True):
        current.append(coming)
        steps.append(Step(tuple(current)))
        current.remove(leaving)
        steps.append(Step(tuple(current), (leaving,)))
        steps.append(Step(tuple(current)))
    return steps


async def rolling_update(bench: Bench) -> Counter[str]:
    """Replace all endpoints of a Service under load. AssertionError for any connection that is lost or led astray."""
    rows = [bench.row("rolling"), bench.row("rolling from a pod")]
    finished = asyncio.Event()
    jobs = [bench.job(row, lambda seen: finished.is_set()) for row in rows]
    space = bench.world.machines["outside"]
    target = rows[0].targets[0]
    lines = [Line(space, target, bench.world.source_port("outside", 4, rows[0].protocol)) for _ in range(12)]
    load = asyncio.create_task(bench.traffic.run(jobs))
    try:
        for line in lines:
            await line.open()
        assert len({line.endpoint for line in lines}) > 1
        for step in rollout(["a1", "a2", "b1"], ["b2", "a3", "b3"]):
            entries = [bench.endpoint(pod, ready=True, serving=True, terminating=False) for pod in step.ready]
            entries += [
                bench.endpoint(pod, ready=False, serving=True, terminating=True) for pod in step.draining
            ]
            await bench.give("rolling-1", entries)
            since = [job.started for job in jobs]
            await _more(jobs, since, 60, load)
            allowed = {bench.target(pod) for pod in step.ready}
            for job, first in zip(jobs, since, strict=True):
                _check_load(job.seen, first, allowed, step)
            for line in lines:
                await line.say()
    finally:
        finished.set()
        for line in lines:
            line.close()
        await load
    return Counter(item.endpoint for job in jobs for item in job.seen)


async def _more(jobs: Sequence[Job], since: Sequence[int], count: int, load: asyncio.Task[None]) -> None:
    """Return when so many connections that began after the mark have ended, in each job."""
    deadline = time.monotonic() + 60
    while any(len(_after(job.seen, first)) < count for job, first in zip(jobs, since, strict=True)):
        assert not load.done(), "the load ended"
        assert time.monotonic() < deadline, "the load does not go on"
        await asyncio.sleep(0.005)


def _after(seen: Sequence[Seen], first: int) -> list[Seen]:
    return [item for item in seen if item.number >= first]


def _check_load(seen: Sequence[Seen], first: int, allowed: set[str], step: Step) -> None:
    lost = [str(item) for item in seen if item.outcome is not Outcome.ENDPOINTS]
    assert not lost, f"new connections were lost at {step}: {Counter(lost)}"
    astray = {item.endpoint for item in _after(seen, first)} - allowed
    assert not astray, f"new connections reached {astray} at {step}"
