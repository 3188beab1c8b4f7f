"""The tests of `shares` for one mode; both lanes have them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rows.shares import CONNECTIONS, UNLIKELY, Bench, bench, chi_square, crowd, rolling_update, shares
from rows.suite import Suite
from rows.varieties import Variety


async def each_endpoint_gets_its_share(suite: Suite, variety: Variety) -> None:
    """Of 3,000 connections, on each way to the Service.

    Endpoints in turn get the same number of connections. Only, the userspace proxy passes an endpoint over that takes
    more than 250 ms to accept, as kube-proxy's did, and on a machine with much else to do one may: it then has one
    connection less, and the next one has one more.
    """
    async with bench(variety, suite.world, suite.table) as made:
        for row_name in ("even by cluster IP", "even by node port", "even from a pod"):
            with passed_over() as dials:
                counts = await shares(made, row_name)
            assert set(counts) == made.row(row_name).expected[variety.mode.value].endpoints
            if variety.rotates:
                assert len(dials) <= CONNECTIONS // 100, dials
                assert max(counts.values()) - min(counts.values()) <= 1 + 2 * len(dials), (counts, dials)
            else:
                assert chi_square(counts) < UNLIKELY, counts


@contextmanager
def passed_over() -> Iterator[list[str]]:
    """What the userspace proxy says of endpoints that did not answer, while the block runs."""
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        if "does not answer" in record.getMessage():
            said.append(record.getMessage())
        return True

    proxy = logging.getLogger("netkit.proxy.userspace.tcp")
    level = proxy.level
    proxy.addFilter(note)
    proxy.setLevel(logging.DEBUG)
    try:
        yield said
    finally:
        proxy.setLevel(level)
        proxy.removeFilter(note)


async def a_rolling_update_loses_nothing(suite: Suite, variety: Variety) -> None:
    """New connections always succeed and reach ready endpoints, long ones go on until they end."""
    async with bench(variety, suite.world, suite.table) as made:
        counts = await rolling_update(made)
        assert set(counts) == {made.target(pod) for pod in ("a1", "a2", "b1", "b2", "a3", "b3")}


async def affinity_keeps_as_endpoints_come_and_go(suite: Suite, variety: Variety) -> None:
    """A client keeps its endpoint while others change, and gets another one when its own is gone."""
    async with bench(variety, suite.world, suite.table) as made:
        row, clients = made.row("sticky"), crowd(30)
        first = await made.connect(row, clients)
        assert set(first.values()) == {made.target(pod) for pod in ("a1", "a2", "b1", "b2")}
        await made.give("sticky-1", [made.endpoint(pod) for pod in ("a1", "b1", "b2", "b3")])
        second = await made.connect(row, clients)
        kept = {client for client in clients if first[client] != made.target("a2")}
        assert {client: second[client] for client in kept} == {client: first[client] for client in kept}
        present = {made.target(pod) for pod in ("a1", "b1", "b2", "b3")}
        assert set(second.values()) <= present
        assert await made.connect(row, clients) == second
        await made.give("sticky-1", [made.endpoint(pod) for pod in ("a1", "a2", "b1", "b2", "b3")])
        assert await made.connect(row, clients) == second, "some went back to the endpoint that came back"


async def affinity_ends_after_its_timeout(suite: Suite, variety: Variety) -> None:
    """Each connection begins the two seconds anew; when they are over, a client is free again."""
    async with bench(variety, suite.world, suite.table) as made:
        row, clients = made.row("sticky"), crowd(30)
        before = started = time.monotonic()
        first = await made.connect(row, clients)
        while time.monotonic() - started < 3:
            since, before = before, time.monotonic()
            again = await made.connect(row, clients)
            if time.monotonic() - since < 2:
                assert again == first
            first = again
            await asyncio.sleep(0.7)
        await _until(made, row.name, first)


async def _until(made: Bench, row_name: str, first: object) -> None:
    """Wait as long as the memory lasts, which is at most two seconds; 30 clients never all choose the same again."""
    await asyncio.sleep(2.5)
    assert await made.connect(made.row(row_name), crowd(30)) != first
