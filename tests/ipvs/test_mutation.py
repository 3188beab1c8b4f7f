"""A row of the table notices whenever a rule, set entry, address or server of any kind is missing in ipvs mode."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from rows.mutation import every_kind_is_noticed
from rows.reader import read_table
from rows.suite import TABLE, Suite
from rows.varieties import chosen

(IPVS,) = chosen("ipvs")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(read_table(TABLE), tmp_path_factory.mktemp("mutation")) as suite:
        yield suite


@pytest.mark.skipif(
    "NETKIT_LONG" not in os.environ, reason="takes over five minutes in a guest; NETKIT_LONG=1 runs it"
)
async def test_each_kind_of_rule_is_noticed(suite: Suite) -> None:
    await every_kind_is_noticed(suite, IPVS)
