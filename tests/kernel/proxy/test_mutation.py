"""A row of the table notices whenever a rule of any kind is missing, in every mode that this kernel can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rows.mutation import every_kind_is_noticed
from rows.reader import read_table
from rows.suite import TABLE, Suite
from rows.varieties import VARIETIES, Variety

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(read_table(TABLE), tmp_path_factory.mktemp("mutation")) as suite:
        yield suite


@pytest.mark.parametrize(
    "variety", [variety for variety in VARIETIES if variety.name != "ipvs"], ids=lambda variety: variety.name
)
async def test_each_kind_of_rule_is_noticed(suite: Suite, variety: Variety) -> None:
    await every_kind_is_noticed(suite, variety)
