"""Random sequences of changes in IPVS mode on the real kernel: they end where a fresh start would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.ipvs import load_ipv6
from support.proxy_kernel import MadeToFail, failing_iptables, two_nodes
from support.proxy_modes import ipvs_settings
from support.proxy_player import Rig, ends_like_a_fresh_start
from support.proxy_sequences import HERE, PLAYS, Play, sequences

from netkit.kernel.address_events import AddressEvents
from netkit.kernel.conntrack_translate import ConntrackTranslations
from netkit.kernel.ipset import IPSet
from netkit.kernel.iptables import Variant
from netkit.kernel.ipvs import IPVS
from netkit.kernel.netlink import Message, NetlinkSocket
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.node import NamespaceNode
from netkit.proxy.ipvs.sets import DEVICE
from netkit.proxy.settings import ProxySettings


class Failing(NetlinkSocket):
    """A driver; the next `failures` times it does the first half of what it is told, and fails."""

    failures = 0

    def apply(self, *messages: Message) -> None:
        half = len(messages)
        if self.failures and messages:
            self.failures -= 1
            half //= 2
        super().apply(*messages[:half])
        if half < len(messages):
            raise MadeToFail(self.namespace)


class FailingIPVS(Failing, IPVS):
    """Virtual servers."""


class FailingIPSet(Failing, IPSet):
    """Sets."""


class IPVSRig(Rig):
    """The IPVS mode. Nobody connects, so nobody who leaves is waited for."""

    def __init__(self, space: Namespace, directory: Path, family: Family) -> None:
        self.family = family
        self.space = space
        self.iptables = failing_iptables(space, family, Variant.LEGACY, directory)
        self.servers = FailingIPVS(space)
        self.sets = FailingIPSet(space)
        self.node = NamespaceNode(space)
        self.events = AddressEvents(space)
        self.backend: Backend | None = None

    async def start(self, settings: ProxySettings) -> Backend:
        drivers = Drivers(
            self.iptables, self.servers, self.sets, self.node, self.events, ConntrackTranslations(self.space)
        )
        self.backend = IPVSBackend(HERE, ipvs_settings(settings), drivers)
        return self.backend

    def fail(self, place: int | None) -> None:
        self.servers.failures = place == 0
        self.sets.failures = place == 1
        self.iptables.failures = place in (2, 3)

    async def content(self) -> Any:
        addresses = self.node.addresses()
        return (
            {
                server: {real.target: real.weight for real in self.servers.real_servers(server.key)}
                for server in self.servers.servers()
            },
            {name: (header.type, self.sets.entries(name)) for name, header in self.sets.headers().items()},
            {address for address in addresses.get(DEVICE, ()) if not address.is_link_local},
            DEVICE in addresses,
            await self.iptables.standing(),
        )

    async def close(self) -> None:
        if self.backend is not None:
            await self.backend.cleanup()
            self.backend.release()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Namespace]]:
    load_ipv6()
    with two_nodes(tmp_path_factory.mktemp("ledger")) as made:
        yield made


@sequences(6)
@given(play=PLAYS)
async def test_it_ends_like_a_fresh_start(
    nodes: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory, play: Play
) -> None:
    free = iter(nodes)
    await ends_like_a_fresh_start(
        lambda family: IPVSRig(next(free), tmp_path_factory.getbasetemp(), family), play
    )
