"""Explanations of some packet-flow rows are what the table expects, and so are the answers of the model.

The lane integration asks for all of them. The table is large, and read when the first test needs it.
"""

from __future__ import annotations

import pytest

from netkit.proxy.settings import ProxyMode

EACH = 8


@pytest.mark.parametrize("mode", ProxyMode)
def test_rows(mode: ProxyMode) -> None:
    from support.explained_rows import TABLE, explained_as_expected

    explained_as_expected(TABLE.rows[::EACH], mode)


def test_the_model_answers_the_same() -> None:
    from rows.oracle import MODE, says
    from support.explained_rows import TABLE

    compared = 0
    for row in TABLE.rows[::EACH]:
        for said in says(TABLE, row) or ():
            compared += 1
            assert said.outcome is row.expected[MODE.value].outcome, row.title
    assert compared
