"""Shares, affinity and rolling updates with real packets, in every mode that this kernel can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rows import share_tests
from rows.shares import shares_table
from rows.suite import Suite
from rows.varieties import VARIETIES, Variety

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(shares_table(), tmp_path_factory.mktemp("shares")) as suite:
        yield suite


@pytest.fixture(
    params=[variety for variety in VARIETIES if variety.name != "ipvs"], ids=lambda variety: variety.name
)
def variety(suite: Suite, request: pytest.FixtureRequest) -> Variety:
    found: Variety = request.param
    suite.require(found)
    return found


async def test_each_endpoint_gets_its_share(suite: Suite, variety: Variety) -> None:
    await share_tests.each_endpoint_gets_its_share(suite, variety)


async def test_a_rolling_update_loses_nothing(suite: Suite, variety: Variety) -> None:
    await share_tests.a_rolling_update_loses_nothing(suite, variety)


async def test_affinity_keeps_as_endpoints_come_and_go(suite: Suite, variety: Variety) -> None:
    await share_tests.affinity_keeps_as_endpoints_come_and_go(suite, variety)


async def test_affinity_ends_after_its_timeout(suite: Suite, variety: Variety) -> None:
    await share_tests.affinity_ends_after_its_timeout(suite, variety)
