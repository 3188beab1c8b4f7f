"""What a node's kernel holds of the pod network, as entries that can be shown and compared. Reads only.

Everything on cni0 and flannel.1 counts, every route into the cluster's pod range, and the pods' own namespaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network

from netkit.kernel import netns, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl_read import Link
from netkit.podnet import overlay
from netkit.podnet.device import BRIDGE, BRIDGE_SETTINGS, SETTINGS
from netkit.podnet.entries import (
    Entry,
    Kind,
    device_text,
    learned_key,
    pod_text,
    port_text,
    route_text,
    rule_entries,
    vxlan_text,
)
from netkit.podnet.sandbox import UPLINK


async def standing(
    ns: Namespace, iptables: IPTables, cluster_cidr: IPv4Network, pods: Iterable[str]
) -> list[Entry]:
    """All entries of the node in `ns`; `pods` are the names of its pods' namespaces. Raises KernelError."""
    links = rtnl_read.links(ns)
    names = {link.index: link.name for link in links.values()}
    ours = {name: links[name] for name in (BRIDGE, overlay.DEVICE) if name in links}
    entries = [_device(link, names) for link in ours.values()]
    if BRIDGE in ours:
        entries += [_port(link) for link in links.values() if link.master == ours[BRIDGE].index]
    for link in ours.values():
        entries += _on(ns, link)
    entries += _routes(ns, cluster_cidr, names)
    entries += [entry for name in pods for entry in _pod(name)]
    for table in ("nat", "filter"):
        entries += rule_entries(table, (await iptables.save(table)).splitlines())
    entries += [Entry(Kind.SETTING, key, sysctl.read(ns, key)) for key in (SETTINGS | BRIDGE_SETTINGS)]
    return entries


def _device(link: Link, names: dict[int, str]) -> Entry:
    kind = link.kind
    if link.vxlan is not None:
        found = link.vxlan
        under = names.get(found.device, "nothing")
        kind = vxlan_text(found.vni, found.local, found.port, under, learning=found.learning)
    return Entry(Kind.DEVICE, link.name, device_text(kind, up=link.up, mtu=link.mtu, mac=link.mac))


def _port(link: Link) -> Entry:
    return Entry(Kind.DEVICE, link.name, port_text(up=link.up, mtu=link.mtu, hairpin=link.hairpin))


def _on(ns: Namespace, link: Link) -> list[Entry]:
    """Addresses, permanent neighbours and tunnel entries of one of our devices."""
    return [
        *(
            Entry(Kind.ADDRESS, f"{item.address} dev {link.name}")
            for item in rtnl_read.addresses(ns, link.index)
            if isinstance(item.address, IPv4Interface)
        ),
        *(
            Entry(Kind.NEIGHBOUR, f"{item.address} dev {link.name}", item.mac)
            for item in rtnl_read.neighbours(ns, link.index)
            if item.state & rtnl_read.PERMANENT
        ),
        *(
            Entry(Kind.FDB, f"{item.mac} dev {link.name}", f"dst {item.remote}")
            for item in rtnl_read.fdb(ns, link.index)
            if item.remote is not None
        ),
    ]


def _routes(ns: Namespace, cluster_cidr: IPv4Network, names: dict[int, str]) -> list[Entry]:
    """Routes into the pods' range, but for the one that comes with the bridge's address."""
    return [
        Entry(
            Kind.ROUTE,
            learned_key(route.target) if route.protocol == rtnl_read.BIRD else str(route.target),
            " ".join(
                route_text(via, names.get(index, "several"), onlink=route.onlink)
                for via, index in route.hops or ((route.via, route.index),)
            ),
        )
        for route in rtnl_read.routes(ns)
        if route.target.subnet_of(cluster_cidr)
        and not (route.via is None and names.get(route.index) == BRIDGE)
    ]


def _pod(name: str) -> list[Entry]:
    """The pod's own end; nothing for a namespace that is gone, or has no such link."""
    try:
        with netns.open_namespace(name) as ns:
            link = rtnl_read.links(ns).get(UPLINK)
            if link is None:
                return []
            addresses = [
                str(item.address)
                for item in rtnl_read.addresses(ns, link.index)
                if isinstance(item.address, IPv4Interface)
            ]
            ways = [
                str(route.via) for route in rtnl_read.routes(ns, link.index) if not route.target.prefixlen
            ]
    except KernelError as error:
        if error.is_not_found:
            return []
        raise
    text = pod_text(up=link.up, mtu=link.mtu, addresses=addresses, via=ways[0] if ways else "")
    return [Entry(Kind.POD, name, text)]
