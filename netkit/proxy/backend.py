"""What the loop asks of a proxy mode: the driver interface between `family_loop` and the kernel.

`iptables.backend` is one; other modes are siblings of it and know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from netkit.proxy.addresses import Address, Family
from netkit.proxy.listing import Listing, Section
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.services import ServicePortName
from netkit.proxy.state import Changes, ProxyState


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a proxy takes from its own Node object, all empty before the Node is registered; and the ranges of the
    cluster's ServiceCIDR objects, empty unless the mode asks for them.
    """

    zone: str = ""
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. `rules_written` and `rules_total` count rules by table, `cleanup_failed` says that what is no
    longer needed could not be removed yet.
    """

    wrote: bool
    full: bool
    rules_written: Mapping[str, int] = field(default_factory=dict)
    rules_total: Mapping[str, int] = field(default_factory=dict)
    cleanup_failed: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """A good sync of one family, as those see it who follow it: `state` has reached the kernel, `changes` is what
    differs from the last time, `report` what the back end did. What followers count goes into `metrics`.
    """

    state: ProxyState
    changes: Changes
    report: SyncReport
    metrics: ProxyMetrics


class Backend(Protocol):
    """Rules of one address family on one node."""

    family: Family

    def configure(self, facts: NodeFacts) -> bool:
        """Take in what the Node says. True if rules depend on what changed, i.e. a full sync is due."""

    async def sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        """Bring the kernel to `state`, which has collected; `changes` None writes (or adopts) everything.

        A full sync writes nothing when all of it stands already. Raises KernelError; then the next sync must be
        a full one.
        """

    async def intact(self) -> bool:
        """Whether nobody has thrown our rules away since the last sync. Cheap: asked every sync period."""

    async def disturbed(self) -> str:
        """Return what somebody else did to our rules, as soon as the kernel tells of it.

        Waits for ever where the kernel tells nobody. Our own changes do not count.
        """

    async def cleanup(self) -> None:
        """Remove everything of ours from the kernel. Safe to repeat, and where nothing of ours is."""

    def release(self) -> None:
        """Close what this process holds open for the mode, as another one has taken over or the process ends.

        Rules stay. Connections that lead through this process go on for as long as it lives.
        """

    async def wanted(self, state: ProxyState) -> Listing:
        """What a full sync of `state`, which has collected, would leave in the kernel. Changes nothing."""

    async def standing(self) -> Listing:
        """What of ours is in the kernel, in the same words as `wanted`. Changes nothing."""

    async def serving(self, state: ProxyState, name: ServicePortName) -> tuple[Section, ...]:
        """The part of `wanted` that serves one service port, in the order in which its packets meet it.

        Of shared chains, maps and sets only the entries that concern the port.
        """


class Follower(Protocol):
    """Work that follows each good sync of one family: stale connections, health servers."""

    async def after_sync(self, synced: Synced) -> None:
        """Do what the sync calls for. Raises KernelError, which is logged; the rules are right nevertheless."""


class Server(Protocol):
    """What an agent runs beside its loops: the servers for health and metrics."""

    async def run(self) -> None:
        """Work until cancelled. An exception ends the agent."""


class Preparation(Protocol):
    """What is set up once in the kernel before the first rule is written."""

    async def prepare(self) -> None:
        """Set it up; what cannot be is reported and does not raise. Safe to repeat."""
