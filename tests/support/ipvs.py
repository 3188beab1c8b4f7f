"""The IPVS mode on fakes: a node whose kernel is a handful of dictionaries."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, cast

from netkit.kernel.address_events import AddressEvent
from netkit.kernel.conntrack_fake import FakeTranslations
from netkit.kernel.errors import KernelError
from netkit.kernel.ipset_fake import FakeIPSet
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.kernel.ipvs_fake import FakeIPVS
from netkit.kernel.ipvs_values import ServerKey, Target, Transport
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Address, Family
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.sets import DEVICE
from netkit.proxy.settings import ProxySettings

SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16,fd00:244::/48", node_address="192.168.0.2,fd00:18::2")


class FakeNode:
    """Addresses by device, and kernel settings that were made. The next `failures` changes of addresses fail."""

    def __init__(self) -> None:
        self.devices: dict[str, set[Address]] = {
            "lo": {ip_address("127.0.0.1"), ip_address("::1")},
            "eth0": {ip_address("192.168.0.2"), ip_address("fd00:18::2"), ip_address("fe80::1")},
        }
        self.settings: dict[str, int] = {}
        self.done: list[str] = []
        self.failures = 0

    def addresses(self) -> Mapping[str, Collection[Address]]:
        return {name: set(found) for name, found in self.devices.items()}

    def make_device(self) -> None:
        self.done.append("make")
        self.devices.setdefault(DEVICE, set())

    def remove_device(self) -> None:
        self.done.append("remove")
        self.devices.pop(DEVICE, None)

    def bind(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self.done.append(f"bind {address}")
            self._device().add(address)

    def unbind(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self.done.append(f"unbind {address}")
            self._device().discard(address)

    def set(self, settings: Mapping[str, int]) -> tuple[str, ...]:
        different = tuple(key for key, value in settings.items() if self.settings.get(key) != value)
        self.settings.update(settings)
        return different

    def take(self) -> list[str]:
        taken, self.done = self.done, []
        return taken

    def _device(self) -> set[Address]:
        if DEVICE not in self.devices or self.failures:
            self.failures = max(0, self.failures - 1)
            raise KernelError(f"{DEVICE} cannot be changed")
        return self.devices[DEVICE]


class FakeEvents:
    """Hands out what the test puts in."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[AddressEvent, ...]] = asyncio.Queue()

    async def next(self) -> tuple[AddressEvent, ...]:
        return await self.queue.get()

    def close(self) -> None:
        """Nothing to close."""


class World:
    """A node with one back end."""

    def __init__(
        self, settings: ProxySettings = SETTINGS, family: Family = Family.IPV4, look_seconds: float = 60.0
    ) -> None:
        self.settings = settings
        self.look_seconds = look_seconds
        self.iptables = FakeIPTables(version=family.version)
        self.servers = FakeIPVS()
        self.sets = FakeIPSet()
        self.node = FakeNode()
        self.events = FakeEvents()
        self.translations = FakeTranslations()
        self.backend = self.restarted()

    @property
    def drivers(self) -> Drivers:
        return Drivers(
            cast(Any, self.iptables), self.servers, self.sets, self.node, self.events, self.translations
        )

    def restarted(self) -> IPVSBackend:
        """A new process on the same kernel."""
        self.backend = IPVSBackend("here", self.settings, self.drivers, look_seconds=self.look_seconds)
        return self.backend

    def take(self) -> list[str]:
        """All that was done to the kernel since the last call."""
        documents, self.iptables.documents = self.iptables.documents, []
        return [*self.servers.take(), *self.sets.take(), *self.node.take(), *documents]


def key(text: str, transport: Transport = Transport.TCP) -> ServerKey:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    return ServerKey(*_split(text), transport)


def target(text: str) -> Target:
    return Target(*_split(text))


def _split(text: str) -> tuple[Address, int]:
    address, _, port = text.rpartition(":")
    return ip_address(address.strip("[]")), int(port)


def load_ipv6() -> None:
    """Where IPv6 is a module this loads it, so that its settings are there and addresses can be given."""
    socket.socket(socket.AF_INET6).close()


def nf_tables_missing(space: Namespace) -> str:
    """Why this kernel has no nftables mode, "" if it has."""
    if run(["nft", "add table ip probe; delete table ip probe"], ns=space).returncode == 0:
        return ""
    return "this kernel has no nf_tables for IP: tests/uml/build-kernel makes one that has"
