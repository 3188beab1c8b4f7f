"""The proxy modes, and the back ends each of them has on one node. Called by whoever starts an agent.

The only module that knows all modes; they do not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.netns import Namespace
from netkit.kernel.nft import wire
from netkit.kernel.nft.driver import NftTable
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.requirements import check
from netkit.proxy.nftables import names
from netkit.proxy.nftables.backend import NftablesBackend, check_kernel
from netkit.proxy.node_kernel import NamespaceKernel
from netkit.proxy.settings import ProxyMode, ProxySettings


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

    def nft_table(self, family: Family) -> NftTable:
        """The driver of one family's nf_tables table."""
        number = wire.NFPROTO_IPV6 if family is Family.IPV6 else wire.NFPROTO_IPV4
        return NftTable(self.ns, number, names.TABLE)


def backends(settings: ProxySettings, site: Site, families: Sequence[Family]) -> list[Backend]:
    """The back ends of `settings.mode`, one per family. Unsupported names what the kernel lacks."""
    match settings.mode:
        case ProxyMode.IPTABLES:
            return [IPTablesBackend(site.node_name, settings, site.iptables(family)) for family in families]
        case ProxyMode.NFTABLES:
            check_kernel()
            kernel = NamespaceKernel(site.ns)
            return [
                NftablesBackend(site.node_name, family, settings, site.nft_table(family), kernel)
                for family in families
            ]
        case ProxyMode.IPVS:
            return [_ipvs(settings, site, family) for family in families]
        case mode:
            raise NotImplementedError(mode)


def _ipvs(settings: ProxySettings, site: Site, family: Family) -> IPVSBackend:
    """The IPVS back end of one family, on a kernel that has been asked whether it can do all of it."""
    drivers = Drivers.of(site.iptables(family))
    try:
        check(drivers, settings.ipvs.scheduler)
    except BaseException:
        drivers.close()
        raise
    return IPVSBackend(site.node_name, settings, drivers)
