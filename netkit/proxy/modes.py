"""The proxy modes, and the back ends each of them has on one node. Called by whoever starts an agent.

The only module that knows all modes; they do not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.userspace.backend import UserspaceBackend


@dataclass(frozen=True, slots=True)
class Site:
    """Where a proxy works: the node's name and namespace.

    `lock_file` is where the legacy iptables programs take their lock (None: the machine's own), `variant` the
    implementation of iptables (None: the one whose rules stand).
    """

    node_name: str
    ns: Namespace
    lock_file: Path | None = None
    variant: Variant | None = None

    def iptables(self, family: Family) -> IPTables:
        """The driver of one family's iptables."""
        return IPTables(self.ns, self.variant, version=family.version, lock_file=self.lock_file)


def backends(settings: ProxySettings, site: Site, families: Sequence[Family]) -> list[Backend]:
    """The back ends of `settings.mode`, one per family. Unsupported names what the kernel lacks."""
    match settings.mode:
        case ProxyMode.IPTABLES:
            return [IPTablesBackend(site.node_name, settings, site.iptables(family)) for family in families]
        case ProxyMode.USERSPACE:
            return [UserspaceBackend(site.node_name, settings, site.iptables(family)) for family in families]
        case mode:
            raise NotImplementedError(mode)
