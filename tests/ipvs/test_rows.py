"""The table of packet-flow rows with real packets in ipvs mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rows.format import Row
from rows.reader import read_table
from rows.suite import TABLE, Suite, check, rows_of_table
from rows.varieties import chosen

(IPVS,) = chosen("ipvs")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(read_table(TABLE), tmp_path_factory.mktemp("rows")) as suite:
        yield suite


@pytest.mark.parametrize("row", rows_of_table(), ids=lambda row: row.title)
def test_row(suite: Suite, row: Row) -> None:
    check(suite, IPVS, row)
