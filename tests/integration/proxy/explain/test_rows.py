"""What is explained is what the table of packet-flow rows expects, row for row, in every mode."""

from __future__ import annotations

import pytest
from support.explained_rows import TABLE, explained_as_expected

from netkit.proxy.settings import ProxyMode


@pytest.mark.parametrize("mode", ProxyMode)
def test_rows(mode: ProxyMode) -> None:
    explained_as_expected(TABLE.rows, mode)
