"""The few settings of a node's kernel, other than rules, that a proxy reads or makes.

Used by back ends. Every method blocks shortly and raises KernelError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from netkit.kernel import nfacct, rtnl_read, sysctl
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address

ROUTE_LOCALNET = "net.ipv4.conf.all.route_localnet"
TCP_BE_LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"


class NodeKernel(Protocol):
    """Driver interface; `NamespaceKernel` is the real one."""

    def tcp_be_liberal(self) -> bool:
        """Whether connection tracking accepts TCP packets outside the window (then none is INVALID for that)."""

    def addresses(self) -> Sequence[Address]:
        """All local addresses."""

    def route_localnet(self) -> bool:
        """Let packets with addresses of 127.0.0.0/8 be routed. False if they were already."""

    def packet_counters(self, names: Sequence[str]) -> frozenset[str]:
        """Make counters of packets that rules can name (nfacct); those that are there now."""

    def counted_packets(self, name: str) -> int | None:
        """How many packets such a counter has counted; None if there is none of that name."""


class NamespaceKernel:
    """The kernel as a namespace sees it."""

    def __init__(self, ns: Namespace) -> None:
        self._ns = ns

    def tcp_be_liberal(self) -> bool:
        return sysctl.present(self._ns, TCP_BE_LIBERAL) and sysctl.read(self._ns, TCP_BE_LIBERAL) == "1"

    def addresses(self) -> Sequence[Address]:
        return [item.address.ip for item in rtnl_read.addresses(self._ns)]

    def route_localnet(self) -> bool:
        if sysctl.read(self._ns, ROUTE_LOCALNET) == "1":
            return False
        sysctl.write(self._ns, ROUTE_LOCALNET, 1)
        return True

    def packet_counters(self, names: Sequence[str]) -> frozenset[str]:
        return frozenset(name for name in names if nfacct.ensure(self._ns, name))

    def counted_packets(self, name: str) -> int | None:
        return nfacct.packets(self._ns, name)
