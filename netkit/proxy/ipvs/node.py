"""The node's own addresses, kube-ipvs0 and the settings of its kernel that the IPVS mode depends on.

Used by `backend`. Every method blocks shortly and raises KernelError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Protocol

from netkit.kernel import rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.proxy.addresses import Address
from netkit.proxy.ipvs.sets import DEVICE

DUMMY_HINT: Final = (
    "modprobe dummy (Ubuntu: install linux-modules-extra first), or boot a kernel built with CONFIG_DUMMY"
)

_SYSCTLS: Final = {
    "net.ipv4.vs.conntrack": 1,
    "net.ipv4.vs.expire_nodest_conn": 1,
    "net.ipv4.vs.expire_quiescent_template": 1,
    "net.ipv4.ip_forward": 1,
}
CONNECTIONS_STAY: Final = {"net.ipv4.vs.expire_nodest_conn": 0}
"""With which connections outlive their virtual server, until they have been idle for long (15 minutes for TCP)."""
_STRICT_ARP: Final = {"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2}
_REUSE: Final = "net.ipv4.vs.conn_reuse_mode"
_REUSE_SINCE, _REUSE_MENDED = (4, 1), (5, 9)


class Node(Protocol):
    """Driver interface; `NamespaceNode` is the real one."""

    def addresses(self) -> Mapping[str, Collection[Address]]:
        """All addresses by device, devices without any included."""

    def make_device(self) -> None:
        """Make kube-ipvs0 unless it is there. Unsupported where the kernel has no dummy devices."""

    def remove_device(self) -> None:
        """Remove kube-ipvs0 with all its addresses; fine when it is gone."""

    def bind(self, addresses: Iterable[Address]) -> None:
        """Put addresses on kube-ipvs0; fine for those that are there."""

    def unbind(self, addresses: Iterable[Address]) -> None:
        """Take addresses off kube-ipvs0; fine for those that are gone."""

    def set(self, settings: Mapping[str, int]) -> tuple[str, ...]:
        """Make these kernel settings; the names of those that were different."""


class NamespaceNode:
    """The node as a namespace."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns

    def addresses(self) -> Mapping[str, Collection[Address]]:
        found: dict[int, set[Address]] = {}
        for item in rtnl_read.addresses(self._ns):
            found.setdefault(item.index, set()).add(item.address.ip)
        return {name: found.get(link.index, set()) for name, link in rtnl_read.links(self._ns).items()}

    def make_device(self) -> None:
        with Rtnl(self._ns) as links:
            if links.link_index(DEVICE) is None:
                try:
                    links.apply(rtnl.plain_link(DEVICE, "dummy"))
                except KernelError as error:
                    if not error.is_unsupported:
                        raise
                    raise Unsupported(
                        "dummy", self._ns.name, error.errno, "the kernel has no module dummy", DUMMY_HINT
                    ) from error

    def remove_device(self) -> None:
        with Rtnl(self._ns) as links:
            if links.link_index(DEVICE) is not None:
                links.apply(rtnl.link_delete(DEVICE))

    def bind(self, addresses: Iterable[Address]) -> None:
        with Rtnl(self._ns) as links:
            index = self._index(links)
            links.apply(*(rtnl.address_add(_alone(address), index) for address in addresses))

    def unbind(self, addresses: Iterable[Address]) -> None:
        with Rtnl(self._ns) as links:
            index = self._index(links)
            links.apply(*(rtnl.address_delete(_alone(address), index) for address in addresses))

    def set(self, settings: Mapping[str, int]) -> tuple[str, ...]:
        different = tuple(key for key, value in settings.items() if sysctl.read(self._ns, key) != str(value))
        sysctl.write_all(self._ns, {key: settings[key] for key in different})
        return different

    def _index(self, links: Rtnl) -> int:
        index = links.link_index(DEVICE)
        if index is None:
            raise KernelError(f"ip address add ... dev {DEVICE}", self._ns.name, stderr="the device is gone")
        return index


def kernel_settings(*, strict_arp: bool, release: str = "") -> Mapping[str, int]:
    """The settings IPVS needs to behave as Services do. `release` of the kernel, "" for this one's.

    Ports that clients use again were sent to dead servers by kernels before 5.9 unless reuse was switched off;
    later ones do it right by themselves.
    """
    settings = dict(_SYSCTLS)
    found = re.match(r"(\d+)\.(\d+)", release or os.uname().release)
    if found and _REUSE_SINCE <= (int(found[1]), int(found[2])) < _REUSE_MENDED:
        settings[_REUSE] = 0
    if strict_arp:
        settings.update(_STRICT_ARP)
    return settings


def node_addresses(found: Mapping[str, Collection[Address]], version: int) -> frozenset[Address]:
    """The node's addresses of one family: not those of kube-ipvs0, loopback or link-local ones."""
    return frozenset(
        address
        for device, addresses in found.items()
        if device != DEVICE
        for address in addresses
        if address.version == version and not address.is_loopback and not address.is_link_local
    )


def _alone(address: Address) -> IPv4Interface | IPv6Interface:
    if address.version == 4:
        return IPv4Interface(address)
    return IPv6Interface(address)
