"""The proxy modes a table can run in on this kernel: each mode in each of its variants and layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netkit.kernel.errors import Unsupported
from netkit.kernel.iptables import Variant, installed_variants
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Family
from netkit.proxy.agent import node_facts
from netkit.proxy.backend import Backend
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings
from rows.configuration import settings_for
from rows.format import Cluster


@dataclass(frozen=True, slots=True)
class Variety:
    """One way to run a mode. `rotates`: connections go to the endpoints in turn, not at random."""

    name: str
    mode: ProxyMode
    variant: Variant | None = None
    layout: NftablesLayout = NftablesLayout.KUBE_PROXY
    rotates: bool = False

    def settings(self, text: str, cluster: Cluster, node: str) -> ProxySettings:
        """The settings of a row for this mode on one node of its cluster."""
        addresses = node_facts(cluster.nodes[node]).addresses
        return settings_for(text, self.mode, self.layout, addresses)

    def backends(self, settings: ProxySettings, node: str, ns: Namespace, directory: Path) -> list[Backend]:
        """The back ends of both families on one node. Raises Unsupported."""
        site = Site(node, ns, lock_file=directory / f"{node}.lock", variant=self.variant)
        return backends(settings, site, list(Family))

    def missing(self, ns: Namespace, directory: Path) -> str:
        """Why it cannot run here; "" if it can."""
        if self.variant is not None and self.variant not in installed_variants():
            return f"iptables-{self.variant} is not installed"
        try:
            settings = ProxySettings(mode=self.mode, nftables_layout=self.layout)
            self.backends(settings, "node1", ns, directory)
        except Unsupported as error:
            return str(error)
        except NotImplementedError:
            return f"there is no mode {self.mode}"
        return ""


VARIETIES: Sequence[Variety] = (
    Variety("iptables-legacy", ProxyMode.IPTABLES, Variant.LEGACY),
    Variety("iptables-nft", ProxyMode.IPTABLES, Variant.NFT),
    Variety("nftables", ProxyMode.NFTABLES),
    Variety("nftables-compact", ProxyMode.NFTABLES, layout=NftablesLayout.COMPACT),
    Variety("ipvs", ProxyMode.IPVS, Variant.LEGACY, rotates=True),
    Variety("userspace", ProxyMode.USERSPACE, rotates=True),
)


def chosen(name: str) -> list[Variety]:
    """The varieties of a mode (`iptables`), or the one of that name (`iptables-nft`); all for "". Raises ValueError."""
    found = [variety for variety in VARIETIES if name in ("", variety.name, variety.mode.value)]
    if not found:
        known = dict.fromkeys(word for variety in VARIETIES for word in (variety.mode.value, variety.name))
        raise ValueError(f"there is no mode {name}; there are {', '.join(known)}")
    return found
