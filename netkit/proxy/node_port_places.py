"""Where node ports answer, for servers that have to listen there themselves (health checks of Services)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from netkit.proxy.addresses import Address, Family
from netkit.proxy.node_kernel import NodeKernel
from netkit.proxy.settings import ProxyMode, ProxySettings


class NodePortPlaces:
    """The addresses of one node's node ports. `primary` says the node's primary addresses as they are now."""

    def __init__(
        self, settings: ProxySettings, kernel: NodeKernel, primary: Callable[[], Sequence[Address]]
    ) -> None:
        self._settings = settings
        self._kernel = kernel
        self._primary = primary

    def of(self, family: Family) -> Sequence[Address]:
        """The addresses of `family`; one that stands for all when nothing narrows them. Blocks shortly.

        The nftables mode takes the primary address when no ranges are given. Raises KernelError.
        """
        ranges = self._settings.node_port_ranges(family)
        if ranges:
            found = {
                address
                for address in self._kernel.addresses()
                if not address.is_link_local and any(address in network for network in ranges)
            }
            return sorted(found, key=str)
        if self._settings.mode is ProxyMode.NFTABLES and not self._settings.node_port_addresses:
            return [address for address in self._primary() if address.version == family.version]
        return [IPv4Address(0) if family is Family.IPV4 else IPv6Address(0)]
