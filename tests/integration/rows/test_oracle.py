"""What explanations say of a connection is what the rows say, and those are held against the kernel."""

from __future__ import annotations

import pytest
from rows.format import Outcome, Row, Sticky
from rows.oracle import MODE, says
from rows.reader import read_table
from rows.suite import TABLE

_TABLE = read_table(TABLE)
_COVERED = [row for row in _TABLE.rows if says(_TABLE, row) is not None]


@pytest.mark.parametrize("row", _COVERED, ids=lambda row: row.title)
def test_explanations_say_the_same(row: Row) -> None:
    expected = row.expected[MODE.value]
    for said in says(_TABLE, row) or ():
        assert said.outcome is expected.outcome
        if said.outcome is not Outcome.ENDPOINTS:
            continue
        assert said.endpoints == expected.endpoints
        if expected.masqueraded is not None and expected.sticky is Sticky.NO:
            assert said.masqueraded == expected.masqueraded


def test_most_rows_can_be_explained() -> None:
    assert len(_COVERED) > 0.75 * len(_TABLE.rows)
