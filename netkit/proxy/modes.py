"""The proxy modes: the back ends each of them has on one node, and what each leaves behind there.

Called by whoever starts an agent. The only module that knows all modes; they do not know each other.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel import sysctl
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.netns import Namespace
from netkit.kernel.nft import wire
from netkit.kernel.nft.driver import NftTable
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.iptables import cleanup as iptables_cleanup
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.iptables.chains import FIREWALL
from netkit.proxy.ipvs import documents as ipvs_documents
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.ipvs.requirements import check
from netkit.proxy.leftover_rules import NOTHING, Kept
from netkit.proxy.nftables import names
from netkit.proxy.nftables.backend import NftablesBackend, check_kernel
from netkit.proxy.node_kernel import ROUTE_LOCALNET, NamespaceKernel
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.userspace.backend import UserspaceBackend
from netkit.proxy.userspace.backend import remove as remove_userspace
from netkit.proxy.userspace.proxies import proxies_at

log = logging.getLogger(__name__)

_IPV6 = "net.ipv6.conf.all.disable_ipv6"


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
        case ProxyMode.USERSPACE:
            return [UserspaceBackend(site.node_name, settings, site.iptables(family)) for family in families]


def _ipvs(settings: ProxySettings, site: Site, family: Family) -> IPVSBackend:
    """The IPVS back end of one family, on a kernel that has been asked whether it can do all of it."""
    drivers = Drivers.of(site.iptables(family))
    try:
        check(drivers, settings.ipvs.scheduler)
    except BaseException:
        drivers.close()
        raise
    return IPVSBackend(site.node_name, settings, drivers)


async def supported_families(mode: ProxyMode, site: Site) -> list[Family]:
    """The families this machine can proxy in `mode`: those its iptables programs and its kernel know."""
    if mode is ProxyMode.NFTABLES:
        return [family for family in Family if family is Family.IPV4 or sysctl.present(site.ns, _IPV6)]
    found = []
    for family in Family:
        try:
            if await site.iptables(family).chain_exists("nat", "POSTROUTING"):
                found.append(family)
        except KernelError as error:
            log.info("%s: no iptables for %s: %s", site.node_name, family, error)
    return found


async def remove_leftovers(
    site: Site,
    families: Sequence[Family],
    beside: ProxyMode | None = None,
    settings: ProxySettings | None = None,
) -> None:
    """Remove what all modes but `beside` left in the kernel; None: of all modes. Safe to repeat.

    What `beside` is at work with stays as it is, and so do virtual servers that `settings` exclude. Everything is
    tried; raises an ExceptionGroup of KernelErrors with what failed.
    """
    failed: list[KernelError] = []
    for mode, clean in _CLEANERS.items():
        if mode is beside:
            continue
        for family in families:
            try:
                if await clean(site, family, beside, settings or ProxySettings()):
                    log.info("%s %s: what mode %s left is removed", site.node_name, family, mode)
            except ExceptionGroup as group:
                failed += [error for error in group.exceptions if isinstance(error, KernelError)]
            except KernelError as error:
                failed.append(error)
    if failed:
        raise ExceptionGroup("encountered an error while tearing down rules", failed)


async def _clean_iptables(
    site: Site, family: Family, beside: ProxyMode | None, settings: ProxySettings
) -> bool:
    """Both implementations of iptables are looked at: rules of either act.

    Packets with loopback addresses were routed for this mode alone, and only its rules keep neighbours from abusing
    that: it ends first.
    """
    found = False
    for variant in installed_variants(family.version):
        iptables = IPTables(site.ns, variant, version=family.version, lock_file=site.lock_file)
        document = iptables_cleanup.cleanup_document(await iptables.save(), _SHARED.get(beside, NOTHING))
        if document:
            if f":{FIREWALL} " in document and family is Family.IPV4:
                await asyncio.to_thread(sysctl.write, site.ns, ROUTE_LOCALNET, 0)
            await iptables.restore(document)
            found = True
    return found


async def _clean_nftables(
    site: Site, family: Family, beside: ProxyMode | None, settings: ProxySettings
) -> bool:
    table = site.nft_table(family)
    try:
        if not await asyncio.to_thread(table.has, ()):
            return False
    except KernelError as error:
        if error.is_unsupported or error.errno == errno.EINVAL:
            return False
        raise
    await NftablesBackend(site.node_name, family, settings, table, NamespaceKernel(site.ns)).cleanup()
    return True


async def _clean_ipvs(site: Site, family: Family, beside: ProxyMode | None, settings: ProxySettings) -> bool:
    """A kernel without IPVS has nothing of it."""
    try:
        drivers = Drivers.of(site.iptables(family))
    except Unsupported:
        return False
    backend = IPVSBackend(site.node_name, settings, drivers)
    try:
        standing = await backend.standing()
        await backend.cleanup(_SHARED.get(beside, NOTHING))
    finally:
        backend.release()
    return bool(standing)


async def _clean_userspace(
    site: Site, family: Family, beside: ProxyMode | None, settings: ProxySettings
) -> bool:
    """Its chains are nobody else's. Both implementations of iptables are looked at."""
    found = False
    for variant in installed_variants(family.version):
        iptables = IPTables(site.ns, variant, version=family.version, lock_file=site.lock_file)
        found |= await remove_userspace(iptables, proxies_at(site.ns, family))
    return found


_SHARED: Mapping[ProxyMode | None, Kept] = {
    ProxyMode.IPTABLES: iptables_cleanup.OURS,
    ProxyMode.IPVS: ipvs_documents.OURS,
}
"""What the modes that write iptables rules are at work with, under names that others of them use too."""

_Cleaner = Callable[[Site, Family, ProxyMode | None, ProxySettings], Awaitable[bool]]

_CLEANERS: Mapping[ProxyMode, _Cleaner] = {
    ProxyMode.IPTABLES: _clean_iptables,
    ProxyMode.NFTABLES: _clean_nftables,
    ProxyMode.IPVS: _clean_ipvs,
    ProxyMode.USERSPACE: _clean_userspace,
}
"""How each mode's left-overs are removed, without what the mode of the third argument uses. True: there were some."""
