"""Loads: transactions are rendered ahead of the kernel, but none follows one that failed."""

from __future__ import annotations

import errno

import pytest
from bench.proxy_objects import service_objects, state_of
from support.proxy import FakeNodeKernel

from netkit.kernel.errors import KernelError
from netkit.kernel.nft.fake import FakeNftTable
from netkit.proxy.addresses import Family
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.settings import ProxyMode, ProxySettings

SETTINGS = ProxySettings(mode=ProxyMode.NFTABLES, cluster_cidr="10.244.0.0/16", node_address="192.168.0.2")
SERVICES = 150


async def test_no_transaction_follows_a_failed_one() -> None:
    table = FakeNftTable()
    backend = NftablesBackend("n", Family.IPV4, SETTINGS, table, FakeNodeKernel())
    state = state_of([obj for index in range(SERVICES) for obj in service_objects(index, 2)])
    table.refuse, table.refuse_after = errno.ENOMEM, 2
    with pytest.raises(KernelError):
        await backend.sync(state, None)
    assert table.transactions == 2
    report = await backend.sync(state, None)
    assert (report.full, report.wrote) == (True, True)
    assert sum(report.rules_total.values()) > SERVICES * 6


async def test_the_rules_of_a_load_are_counted() -> None:
    table = FakeNftTable()
    backend = NftablesBackend("n", Family.IPV4, SETTINGS, table, FakeNodeKernel())
    report = await backend.sync(state_of([*service_objects(0, 2), *service_objects(1, 3)]), None)
    assert table.contents is not None
    standing = sum(map(len, table.contents.rules.values()))
    assert report.rules_written == report.rules_total == {"kube-proxy": standing}
