"""Random sequences of changes on the real kernel, in every mode it can do: they end where a fresh start would.

tests/integration/proxy/test_sequences.py plays many more on fakes; this finds out where the kernel is not like them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.proxy_kernel import MadeToFail, failing_iptables, two_nodes
from support.proxy_modes import nftables_settings, table_content, userspace_settings, without_proxy_ports
from support.proxy_player import Rig, ends_like_a_fresh_start
from support.proxy_sequences import HERE, PLAYS, Play, sequences

from netkit.kernel.iptables import Variant, installed_variants
from netkit.kernel.netns import Namespace
from netkit.kernel.nft.driver import NftTable
from netkit.kernel.nft.objects import TableWriter
from netkit.kernel.nft.wire import NFPROTO_IPV4, NFPROTO_IPV6
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.nftables.names import TABLE
from netkit.proxy.node_kernel import NamespaceKernel
from netkit.proxy.settings import NftablesLayout, ProxySettings
from netkit.proxy.userspace.backend import UserspaceBackend
from netkit.proxy.userspace.proxies import NodeProxies

pytestmark = pytest.mark.root


class IPTablesRig(Rig):
    """The iptables mode with one of the two implementations."""

    def __init__(self, variant: Variant, space: Namespace, directory: Path, family: Family) -> None:
        if variant not in installed_variants(family.version):
            pytest.skip(f"iptables-{variant} for {family} is not installed")
        self.space = space
        self.family = family
        self.iptables = failing_iptables(space, family, variant, directory)

    async def start(self, settings: ProxySettings) -> Backend:
        return IPTablesBackend(HERE, settings, self.iptables)

    def fail(self, place: int | None) -> None:
        self.iptables.failures = place is not None

    async def content(self) -> Any:
        return await self.iptables.standing()

    async def close(self) -> None:
        await self.iptables.flush()


class UserspaceRig(IPTablesRig):
    """The userspace mode, with real sockets."""

    def __init__(self, variant: Variant, space: Namespace, directory: Path, family: Family) -> None:
        super().__init__(variant, space, directory, family)
        self.proxies = NodeProxies(space, family)

    async def start(self, settings: ProxySettings) -> Backend:
        """The proxies of the process before have died with it."""
        await self.proxies.stop()
        self.proxies = NodeProxies(self.space, self.family)
        kernel = NamespaceKernel(self.space)
        return UserspaceBackend(HERE, userspace_settings(settings), self.iptables, kernel, self.proxies)

    async def content(self) -> Any:
        return without_proxy_ports(await self.iptables.standing())

    async def close(self) -> None:
        await self.proxies.stop()
        await super().close()


class FailingTable(NftTable):
    """The driver; the next commit that is not good, after so many good ones, fails."""

    good: int | None = None

    def commit(self, messages: Sequence[bytes]) -> None:
        if self.good == 0:
            self.good = None
            raise MadeToFail(self.ns.name)
        if self.good is not None:
            self.good -= 1
        super().commit(messages)


class NftablesRig(Rig):
    """The nftables mode, with a clock of its own."""

    def __init__(self, layout: NftablesLayout, space: Namespace, directory: Path, family: Family) -> None:
        self.layout = layout
        self.space = space
        self.family = family
        self.now = 1000.0
        self.table = self._table()

    async def start(self, settings: ProxySettings) -> Backend:
        self.table = self._table()
        settings, kernel = nftables_settings(settings, self.layout), NamespaceKernel(self.space)
        return NftablesBackend(HERE, self.family, settings, self.table, kernel, lambda: self.now)

    def fail(self, place: int | None) -> None:
        self.table.good = place

    async def minute(self, backend: Backend) -> None:
        self.now += 60

    async def content(self) -> Any:
        return table_content(self.table.read(all_elements=True))

    async def close(self) -> None:
        table = self._table()
        if table.has(()):
            table.commit([TableWriter(table.family, TABLE).delete_table()])

    def _table(self) -> FailingTable:
        number = NFPROTO_IPV4 if self.family is Family.IPV4 else NFPROTO_IPV6
        return FailingTable(self.space, number, TABLE)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Namespace]]:
    with two_nodes(tmp_path_factory.mktemp("ledger")) as made:
        yield made


@pytest.mark.parametrize(
    "rig",
    [
        pytest.param(partial(IPTablesRig, Variant.LEGACY), id="iptables legacy"),
        pytest.param(partial(IPTablesRig, Variant.NFT), id="iptables nft"),
        pytest.param(partial(NftablesRig, NftablesLayout.KUBE_PROXY), id="nftables"),
        pytest.param(partial(NftablesRig, NftablesLayout.COMPACT), id="nftables compact"),
        pytest.param(partial(UserspaceRig, Variant.LEGACY), id="userspace"),
    ],
)
@sequences(40)
@given(play=PLAYS)
async def test_it_ends_like_a_fresh_start(
    rig: Callable[[Namespace, Path, Family], Rig],
    nodes: tuple[Namespace, Namespace],
    tmp_path_factory: pytest.TempPathFactory,
    play: Play,
) -> None:
    free = iter(nodes)
    await ends_like_a_fresh_start(
        lambda family: rig(next(free), tmp_path_factory.getbasetemp(), family), play
    )
