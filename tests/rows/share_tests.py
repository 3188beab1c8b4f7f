"""The tests of `shares` for one mode; both lanes have them."""

from __future__ import annotations

import asyncio
import time

from rows.shares import UNLIKELY, Bench, bench, chi_square, crowd, rolling_update, shares
from rows.suite import Suite
from rows.varieties import Variety


async def each_endpoint_gets_its_share(suite: Suite, variety: Variety) -> None:
    """Of 3,000 connections, on each way to the Service."""
    async with bench(variety, suite.world, suite.table) as made:
        for row_name in ("even by cluster IP", "even by node port", "even from a pod"):
            counts = await shares(made, row_name)
            assert set(counts) == made.row(row_name).expected[variety.mode.value].endpoints
            if variety.rotates:
                assert max(counts.values()) - min(counts.values()) <= 1, counts
            else:
                assert chi_square(counts) < UNLIKELY, counts


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


async def affinity_ends_after_its_timeout(suite: Suite, variety: Variety) -> None:
    """Each connection begins the two seconds anew; when they are over, a client is free again."""
    async with bench(variety, suite.world, suite.table) as made:
        row, clients = made.row("sticky"), crowd(30)
        first = await made.connect(row, clients)
        started = time.monotonic()
        while time.monotonic() - started < 3:
            before = time.monotonic()
            again = await made.connect(row, clients)
            assert again == first or time.monotonic() - before > 1
            await asyncio.sleep(0.7)
        await _until(made, row.name, first)


async def _until(made: Bench, row_name: str, first: object) -> None:
    """Wait as long as the memory lasts, which is at most two seconds; 30 clients never all choose the same again."""
    await asyncio.sleep(2.5)
    assert await made.connect(made.row(row_name), crowd(30)) != first
