"""The table of packet-flow rows with real packets, in every mode that this kernel can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rows.format import Row
from rows.reader import read_table
from rows.suite import TABLE, Suite, check, rows_of_table
from rows.varieties import VARIETIES, Variety

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(read_table(TABLE), tmp_path_factory.mktemp("rows")) as suite:
        yield suite


@pytest.mark.parametrize("row", rows_of_table(), ids=lambda row: row.title)
@pytest.mark.parametrize("variety", VARIETIES, ids=lambda variety: variety.name)
def test_row(suite: Suite, variety: Variety, row: Row) -> None:
    check(suite, variety, row)
