"""What sequences of changes play on in IPVS mode, and the virtual servers, sets, addresses and rules they end in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from support.ipvs import FakeNode
from support.proxy_modes import ipvs_settings
from support.proxy_player import ADDRESSES, Rig
from support.proxy_sequences import HERE

from netkit.kernel.address_events import AddressEvent
from netkit.kernel.conntrack_fake import FakeTranslations
from netkit.kernel.ipset_fake import FakeIPSet
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.kernel.ipvs_fake import FakeIPVS
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.settings import ProxySettings


class OneLook:
    """Nothing happens to addresses. Who asks for the second time has looked at leaving servers in between."""

    def __init__(self) -> None:
        self.asked = 0
        self.over = asyncio.Event()

    async def next(self) -> Sequence[AddressEvent]:
        self.asked += 1
        if self.asked > 1:
            self.over.set()
        await asyncio.Event().wait()
        raise AssertionError

    def close(self) -> None:
        """Nothing to close."""


class IPVSRig(Rig):
    """The IPVS mode on fakes that refuse what the kernel refuses. It is always time to look at leaving servers."""

    def __init__(self, family: Family) -> None:
        self.iptables = FakeIPTables(version=family.version)
        self.servers = FakeIPVS()
        self.sets = FakeIPSet()
        self.node = FakeNode()
        self.node.devices = {"lo": set(ADDRESSES[:2]), "eth0": set(ADDRESSES[2:])}
        self.events = OneLook()

    async def start(self, settings: ProxySettings) -> IPVSBackend:
        drivers = Drivers(
            cast(Any, self.iptables), self.servers, self.sets, self.node, self.events, FakeTranslations()
        )
        return IPVSBackend(HERE, ipvs_settings(settings), drivers, look_seconds=0.0)

    def fail(self, place: int | None) -> None:
        for number, driver in enumerate((self.servers, self.sets, self.iptables, self.node)):
            driver.failures = number == place

    def connect(self, connections: int) -> None:
        self.servers.connections = connections
        for key, reals in self.servers.reals.items():
            for target in reals:
                self.servers.connect(key, target, active=connections)

    async def minute(self, backend: Backend) -> None:
        self.events.asked = 0
        self.events.over.clear()
        looking = asyncio.create_task(backend.disturbed())
        await self.events.over.wait()
        looking.cancel()
        await asyncio.wait([looking])

    async def content(self) -> Any:
        return (
            self.servers.known,
            {
                key: {target: real.weight for target, real in reals.items()}
                for key, reals in self.servers.reals.items()
            },
            self.sets.types,
            self.sets.contents,
            self.node.devices,
            self.iptables.standing(),
        )
