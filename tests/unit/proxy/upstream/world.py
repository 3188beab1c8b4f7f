"""The node and the objects of upstream's proxier tests, and a proxy of ours that is fed with them.

Pods are 10.0.0.0/8 (fd00:10::/64), cluster IPs 172.30.0.0/16 (fd00:10:96::/112); the node has two addresses and one
that is also an external IP of Services.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from support.proxy import FakeNodeKernel, Object, service

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.kernel.nft.fake import FakeNftTable
from netkit.kernel.nft.wire import NFPROTO_IPV4, NFPROTO_IPV6
from netkit.proxy.addresses import Address, Family
from netkit.proxy.backend import Backend, NodeFacts, SyncReport
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.listing import Listing
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

NODE = "test-node"
NODE_IP, OTHER_NODE_IP, NODE_IP6, OTHER_NODE_IP6 = (
    "192.168.0.2",
    "192.168.1.2",
    "2001:db8::1",
    "2001:db8:1::2",
)
NODE_EXTERNAL_IP = "192.168.99.11"
LOCAL = ("127.0.0.1", "::1", NODE_IP, OTHER_NODE_IP, NODE_EXTERNAL_IP, NODE_IP6, OTHER_NODE_IP6)
OUTSIDE, OUTSIDE_BLOCKED, POD = "203.0.113.2", "203.0.113.130", "10.0.0.2"
OUTSIDE6, POD6 = "2600:5200::1", "fd00:10::2"

SETTINGS: Mapping[str, Any] = {
    "cluster_cidr": "10.0.0.0/8,fd00:10::/64",
    "node_address": f"{NODE_IP},{NODE_IP6}",
    "node_port_addresses": (f"{NODE_IP}/32", f"{NODE_IP6}/128"),
}
NO_DETECTOR: Mapping[str, Any] = {"cluster_cidr": ""}
SERVICE_RANGES = ("172.30.0.0/16", "fd00:10:96::/112")


def tcp(port: int = 80, node_port: int = 0, name: str = "p80", **more: Any) -> list[Object]:
    """The only port of a Service."""
    return [{"name": name, "port": port, **({"nodePort": node_port} if node_port else {}), **more}]


def balanced(name: str, cluster_ip: str, ports: list[Object], *addresses: str, **spec: Any) -> Object:
    """A Service of type LoadBalancer."""
    ingress = [{"ip": address} for address in addresses]
    return service(name, cluster_ip, ports, type="LoadBalancer", ingress=ingress, **spec)


def local_addresses() -> list[Address]:
    return [ip_address(text) for text in LOCAL]


class Proxier:
    """One family's proxy of `test-node`: objects go in, a sync writes what changed."""

    def __init__(self, backend: Backend, family: Family) -> None:
        self.backend = backend
        self.state = ProxyState(family)
        self._first = True

    def add(self, *objects: Object) -> None:
        """Take in new or changed objects."""
        for item in objects:
            take = self.state.upsert_service if item["kind"] == "Service" else self.state.upsert_slice
            take(item)

    def remove(self, *objects: Object) -> None:
        for item in objects:
            drop = self.state.delete_service if item["kind"] == "Service" else self.state.delete_slice
            drop(item["metadata"]["namespace"], item["metadata"]["name"])

    async def sync(self) -> SyncReport:
        """The first one is full, later ones write what changed."""
        changes = self.state.collect()
        report = await self.backend.sync(self.state, None if self._first else changes)
        self._first = False
        self.state.mark_synced()
        return report

    def start_over(self) -> None:
        """The next sync is a full one, as after a failure."""
        self._first = True

    async def rules(self) -> Listing:
        """What is in the kernel."""
        return await self.backend.standing()


class NftablesProxier(Proxier):
    """In the nftables mode, on a table in memory."""

    def __init__(self, family: Family = Family.IPV4, **settings: Any) -> None:
        number = NFPROTO_IPV4 if family is Family.IPV4 else NFPROTO_IPV6
        self.table = FakeNftTable(number)
        chosen = ProxySettings(mode=ProxyMode.NFTABLES, **{**SETTINGS, **settings})
        kernel = FakeNodeKernel(local=local_addresses())
        self._nftables = NftablesBackend(NODE, family, chosen, self.table, kernel)
        self._nftables.configure(NodeFacts(service_cidrs=SERVICE_RANGES))
        super().__init__(self._nftables, family)

    def stale_chains(self) -> dict[str, float]:
        """Chains that wait for their deletion, and since when."""
        book = self._nftables._book
        assert book is not None
        return book.stale

    def age_stale_chains(self) -> None:
        """As if they had been emptied two seconds earlier."""
        stale = self.stale_chains()
        for chain in stale:
            stale[chain] -= 2


class IPTablesProxier(Proxier):
    """In the iptables mode, on tables in memory."""

    def __init__(self, family: Family = Family.IPV4, **settings: Any) -> None:
        self.kernel = FakeNodeKernel(local=local_addresses())
        chosen = ProxySettings(mode=ProxyMode.IPTABLES, **{**SETTINGS, **settings})
        self.tables = FakeIPTables(version=family.version)
        super().__init__(IPTablesBackend(NODE, chosen, self.tables, self.kernel), family)
