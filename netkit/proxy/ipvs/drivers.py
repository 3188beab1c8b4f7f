"""What the IPVS mode works with: the drivers of one namespace, as protocols, so that tests can put fakes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from netkit.kernel.address_events import AddressEvent, AddressEvents
from netkit.kernel.conntrack_translate import ConntrackTranslations, Translations
from netkit.kernel.ipset import IPSet, SetHeader, SetType
from netkit.kernel.iptables import IPTables
from netkit.kernel.ipvs import IPVS
from netkit.kernel.ipvs_values import RealServer, ServerKey, Timeouts, VirtualServer
from netkit.kernel.netlink import Message
from netkit.proxy.ipvs.node import NamespaceNode, Node


class Servers(Protocol):
    """The kernel's load balancer: `kernel.ipvs.IPVS` or its fake. Blocks; raises KernelError."""

    def apply(self, *messages: Message) -> None: ...

    def servers(self) -> list[VirtualServer]: ...

    def real_servers(self, key: ServerKey) -> list[RealServer]: ...

    def timeouts(self) -> Timeouts: ...

    def close(self) -> None: ...


class Sets(Protocol):
    """The kernel's sets: `kernel.ipset.IPSet` or its fake. Blocks; raises KernelError."""

    def apply(self, *messages: Message) -> None: ...

    def headers(self) -> dict[str, SetHeader]: ...

    def entries(self, name: str) -> frozenset[str]: ...

    def has_type(self, kind: SetType) -> bool: ...

    def close(self) -> None: ...


class Events(Protocol):
    """What happens to addresses and devices: `kernel.address_events.AddressEvents` or a fake."""

    async def next(self) -> Sequence[AddressEvent]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Drivers:
    """All of them, for one address family of one namespace."""

    iptables: IPTables
    servers: Servers
    sets: Sets
    node: Node
    events: Events
    translations: Translations

    @classmethod
    def of(cls, iptables: IPTables) -> Drivers:
        """The real ones, in the namespace that `iptables` is bound to. Unsupported if the kernel has no IPVS."""
        ns = iptables.ns
        return cls(
            iptables, IPVS(ns), IPSet(ns), NamespaceNode(ns), AddressEvents(ns), ConntrackTranslations(ns)
        )

    def close(self) -> None:
        self.servers.close()
        self.sets.close()
        self.events.close()
