"""Shares, affinity and rolling updates with real packets in ipvs mode.

That affinity ends is not looked at: IPVS keeps a client's template for as long as connections of it are remembered,
closed ones included, and then for another timeout.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rows import share_tests
from rows.shares import shares_table
from rows.suite import Suite
from rows.varieties import chosen

(IPVS,) = chosen("ipvs")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with Suite.built(shares_table(), tmp_path_factory.mktemp("shares")) as suite:
        yield suite


async def test_each_endpoint_gets_its_share(suite: Suite) -> None:
    await share_tests.each_endpoint_gets_its_share(suite, IPVS)


async def test_a_rolling_update_loses_nothing(suite: Suite) -> None:
    await share_tests.a_rolling_update_loses_nothing(suite, IPVS)


async def test_affinity_keeps_as_endpoints_come_and_go(suite: Suite) -> None:
    await share_tests.affinity_keeps_as_endpoints_come_and_go(suite, IPVS)
