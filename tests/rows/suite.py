"""Rows as tests: the network and the results of whole tables, made when first asked for and shared by all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rows.format import Row, Table
from rows.judge import Judgement
from rows.reader import read_table
from rows.report import failure
from rows.runner import Result, Runner
from rows.traffic import Traffic
from rows.varieties import Variety
from rows.world import World

TABLE = Path(__file__).with_name("table.yaml")


class Suite:
    """A table, its network, and what became of its rows in each mode."""

    def __init__(self, table: Table, world: World) -> None:
        self.table = table
        self.world = world
        self._results: dict[str, dict[str, Result]] = {}

    @classmethod
    @contextlib.contextmanager
    def built(cls, table: Table, directory: Path) -> Iterator[Suite]:
        """The suite with its network, until the end of the block."""
        with World.built(table.plan, directory) as world:
            yield cls(table, world)

    def require(self, variety: Variety) -> None:
        """Skip the test where the mode cannot run, saying why."""
        why = variety.missing(self.world.machines["node1"], self.world.directory)
        if why:
            pytest.skip(f"{variety.name}: {why}")

    async def _run(self, variety: Variety) -> list[Result]:
        async with Traffic(self.world) as traffic:
            return await Runner(self.table, self.world, traffic).run(variety)

    def result(self, variety: Variety, row: Row) -> Result:
        """What became of a row. The first call of a mode runs all rows of it."""
        if variety.name not in self._results:
            self.require(variety)
            results = asyncio.run(self._run(variety))
            self._results[variety.name] = {result.row.title: result for result in results}
        return self._results[variety.name][row.title]


def check(suite: Suite, variety: Variety, row: Row) -> None:
    """The test of one row in one mode."""
    result = suite.result(variety, row)
    if result.judgement is None:
        pytest.skip(result.expected.skip)
    assert isinstance(result.judgement, Judgement)
    if not result.judgement.holds:
        pytest.fail("\n".join(failure(result)), pytrace=False)


def rows_of_table() -> Sequence[Row]:
    """All rows that come with the project."""
    return read_table(TABLE).rows
