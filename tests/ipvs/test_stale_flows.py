"""The conntrack cleaner with real packets in ipvs mode: every kind of address, both families."""

from __future__ import annotations

import pytest
from support import stale_flows
from support.dual_net import DualNet

from netkit.proxy.addresses import Family
from netkit.proxy.settings import ProxyMode


@pytest.mark.parametrize("family", list(Family))
async def test_flows_follow_their_service(dual_net: DualNet, family: Family) -> None:
    await stale_flows.flows_follow_their_service(dual_net, ProxyMode.IPVS, family)


@pytest.mark.parametrize("family", list(Family))
async def test_flows_older_than_the_service_get_through(dual_net: DualNet, family: Family) -> None:
    await stale_flows.flows_older_than_the_service_get_through(dual_net, ProxyMode.IPVS, family)
