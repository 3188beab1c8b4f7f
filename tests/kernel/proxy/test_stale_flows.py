"""The conntrack cleaner with real packets: every kind of address, both families, iptables and nftables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import stale_flows
from support.dual_net import DualNet

from netkit.proxy.addresses import Family
from netkit.proxy.settings import ProxyMode

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DualNet]:
    with DualNet.built(tmp_path_factory.mktemp("dual")) as built:
        yield built


@pytest.fixture(params=[ProxyMode.IPTABLES, ProxyMode.NFTABLES])
def mode(request: pytest.FixtureRequest) -> ProxyMode:
    return ProxyMode(request.param)


@pytest.mark.parametrize("family", list(Family))
async def test_flows_follow_their_service(net: DualNet, mode: ProxyMode, family: Family) -> None:
    await stale_flows.flows_follow_their_service(net, mode, family)


@pytest.mark.parametrize("family", list(Family))
async def test_flows_older_than_the_service_get_through(
    net: DualNet, mode: ProxyMode, family: Family
) -> None:
    await stale_flows.flows_older_than_the_service_get_through(net, mode, family)
