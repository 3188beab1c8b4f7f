"""Questions about a small cluster, asked without a kernel: what `netkit proxy explain` would say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, cast

from support.ipvs import World
from support.proxy import FakeNodeKernel, feed

from netkit.kernel.conntrack import Entry
from netkit.kernel.iptables_fake import FakeIPTables
from netkit.kernel.nft.fake import FakeNftTable
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend, NodeFacts
from netkit.proxy.choice import NodeView
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.explain.explanation import Explanation, Matter, explain
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.explain.target import To, called, find
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.listing import Section, listing
from netkit.proxy.nftables.backend import NftablesBackend
from netkit.proxy.services import ServicePortName
from netkit.proxy.settings import ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState
from netkit.proxy.userspace.backend import UserspaceBackend

Object = dict[str, Any]

NODE, ADDRESS = "here", ip_address("192.168.0.2")
POD, OUTSIDE = ip_address("10.244.0.99"), ip_address("203.0.113.130")
SOURCES = {Origin.POD: POD, Origin.NODE: ADDRESS, Origin.OUTSIDE: OUTSIDE}


async def explaining(
    *objects: Object,
    asks: str = "ns1/svc1",
    origin: Origin | str = Origin.POD,
    source: str = "",
    to: To | None = None,
    zone: str = "",
    family: Family = Family.IPV4,
    nodes: Sequence[Object] = (),
    addresses: Sequence[str] = (str(ADDRESS), "fd00::2"),
    lacking: Sequence[str] = (),
    entries: Sequence[Entry] = (),
    **settings: Any,
) -> Explanation:
    """What is said about the first port that `asks` names, on the node `here` (192.168.0.2, pods in 10.244/16).

    Of `lacking` sections the kernel has nothing; `entries` are what its connection tracking has.
    """
    settings = {"cluster_cidr": "10.244.0.0/16,fd00:244::/64", **settings}
    standpoint = Standpoint(
        NodeView(NODE, zone, tuple(ip_address(text) for text in addresses)), family, ProxySettings(**settings)
    )
    services = [item for item in objects if item["kind"] == "Service"]
    slices = [item for item in objects if item["kind"] == "EndpointSlice"]
    target = find(asks, "default", services, nodes)[0]
    origin = Origin(origin)
    caller = Source(origin, ip_address(source) if source else SOURCES[origin], node=NODE)
    state = ProxyState(family)
    feed(state, *objects)
    state.collect()
    sections = await serving(standpoint, state, target.name)
    standing = listing(section for section in sections if section.name not in lacking)
    matter = Matter(
        target,
        called(target, to, origin, family),
        caller,
        standpoint,
        state,
        slices,
        sections,
        standing,
        entries,
    )
    return explain(matter)


def explained(*objects: Object, **asked: Any) -> Explanation:
    """What `explaining` says, for those who ask outside of a loop."""
    return asyncio.run(explaining(*objects, **asked))


async def serving(standpoint: Standpoint, state: ProxyState, name: Any) -> Sequence[Section]:
    """What the back end of the standpoint's mode says serves the port."""
    facts = NodeFacts(standpoint.node.zone, standpoint.node.addresses)
    backend: Backend
    if standpoint.mode is ProxyMode.NFTABLES:
        table = FakeNftTable(2 if standpoint.family is Family.IPV4 else 10)
        backend = NftablesBackend(NODE, standpoint.family, standpoint.settings, table, FakeNodeKernel())
        backend.configure(facts)
        return await backend.serving(state, name)
    if standpoint.mode is ProxyMode.IPVS:
        world = World(standpoint.settings, standpoint.family)
        world.node.make_device()
        world.backend.configure(facts)
        return await world.backend.serving(state, name)
    iptables: Any = FakeIPTables(version=standpoint.family.version)
    if standpoint.mode is ProxyMode.USERSPACE:
        backend = UserspaceBackend(
            NODE, standpoint.settings, iptables, FakeNodeKernel(), cast(Any, NoProxies())
        )
        backend.configure(facts)
        return await backend.serving(state, name)
    backend = IPTablesBackend(NODE, standpoint.settings, iptables, FakeNodeKernel())
    backend.configure(facts)
    return await backend.serving(state, name)


class NoProxies:
    """The proxies of the userspace mode as another process sees them: there are none."""

    def port_of(self, name: ServicePortName) -> int:
        return 40000

    def node_port_held(self, name: ServicePortName) -> bool:
        return True

    def endpoints_of(self, name: ServicePortName) -> tuple[Endpoint, ...]:
        return ()


def reason(found: Explanation, about: str) -> tuple[str, str]:
    """Answer and sentence of one reason."""
    return next((item.answer, item.because) for item in found.reasons if item.about == about)
