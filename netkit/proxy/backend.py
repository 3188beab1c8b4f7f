"""What the loop asks of a proxy mode: the driver interface between `family_loop` and the kernel.

`iptables_backend` is one; other modes are siblings of it and know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from netkit.proxy.addresses import Address, Family
from netkit.proxy.state import Changes, ProxyState


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a proxy takes from its own Node object. All empty before the Node is registered."""

    zone: str = ""
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. `rules_written` and `rules_total` count rules by table."""

    wrote: bool
    full: bool
    rules_written: Mapping[str, int] = field(default_factory=dict)
    rules_total: Mapping[str, int] = field(default_factory=dict)


class Backend(Protocol):
    """Rules of one address family on one node."""

    family: Family

    def configure(self, facts: NodeFacts) -> bool:
        """Take in what the Node says. True if rules depend on what changed, i.e. a full sync is due."""

    async def sync(self, state: ProxyState, changes: Changes | None) -> SyncReport:
        """Bring the kernel to `state`, which has collected; `changes` None writes everything.

        Raises KernelError; then the next sync must be a full one.
        """

    async def intact(self) -> bool:
        """Whether nobody has thrown our rules away since the last sync."""

    async def cleanup(self) -> None:
        """Remove everything of ours from the kernel."""
