"""What a node's kernel holds of the pod network, as entries that can be shown and compared. Reads only.

Everything on cni0, flannel.1, flannel-wg and on cables that end on the node counts, every route into the cluster's pod
range, and the pods' own namespaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network

from netkit.kernel import netns, rtnl_read, sysctl
from netkit.kernel.errors import KernelError
from netkit.kernel.iptables import IPTables
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl_read import Link, Route
from netkit.kernel.wireguard_values import State
from netkit.podnet import overlay, wireguard
from netkit.podnet.attach import Attach
from netkit.podnet.device import BRIDGE, settings_of
from netkit.podnet.entries import (
    UNREACHABLE,
    Entry,
    Kind,
    cable_text,
    device_text,
    learned_key,
    peer_entries,
    pod_text,
    port_text,
    route_text,
    rule_entries,
    vxlan_text,
    wireguard_text,
)
from netkit.podnet.host_port_rules import setting
from netkit.podnet.pod import is_link_name
from netkit.podnet.sandbox import UPLINK


async def standing(
    ns: Namespace,
    iptables: IPTables,
    cluster_cidr: IPv4Network,
    pods: Iterable[str],
    attach: Attach = Attach.BRIDGE,
    encrypted: State | None = None,
) -> list[Entry]:
    """All entries of the node in `ns`; `pods` are the names of its pods' namespaces, `encrypted` is what flannel-wg is
    set to. Raises KernelError.
    """
    links = rtnl_read.links(ns)
    names = {link.index: link.name for link in links.values()}
    ours = [links[name] for name in (BRIDGE, overlay.DEVICE, wireguard.DEVICE) if name in links]
    entries = [_device(link, names, encrypted) for link in ours]
    if attach is Attach.PTP:
        cables = [link for link in links.values() if link.kind == "veth" and is_link_name(link.name)]
        entries += [_cable(link, names) for link in cables]
        ours += cables
    elif BRIDGE in links:
        entries += [_port(link) for link in links.values() if link.master == links[BRIDGE].index]
    entries += _on(ns, {link.index: link.name for link in ours})
    if encrypted is not None:
        entries += peer_entries(encrypted, {})
    entries += _routes(ns, cluster_cidr, names)
    entries += [entry for name in pods for entry in _pod(name)]
    for table in ("nat", "filter"):
        entries += rule_entries(table, (await iptables.save(table)).splitlines())
    entries += [Entry(Kind.SETTING, key, sysctl.read(ns, key)) for key in settings_of(attach)]
    entries += _localhost(ns, ours)
    return entries


def external(ns: Namespace, cluster_cidr: IPv4Network, *, routes: bool) -> list[Entry]:
    """As `standing`, of what is not the affair of plug-ins of others: settings, and the `routes` to other nodes."""
    settings = [Entry(Kind.SETTING, key, sysctl.read(ns, key)) for key in settings_of(Attach.BRIDGE)]
    if not routes:
        return settings
    names = {link.index: link.name for link in rtnl_read.links(ns).values()}
    return [
        *(
            _route(route, names)
            for route in rtnl_read.routes(ns)
            if route.via is not None and route.target.subnet_of(cluster_cidr)
        ),
        *settings,
    ]


def _device(link: Link, names: dict[int, str], encrypted: State | None) -> Entry:
    kind = link.kind
    if link.name == wireguard.DEVICE:
        kind = wireguard_text(encrypted)
    if link.vxlan is not None:
        found = link.vxlan
        under = names.get(found.device, "nothing")
        kind = vxlan_text(found.vni, found.local, found.port, under, learning=found.learning)
    return Entry(Kind.DEVICE, link.name, device_text(kind, up=link.up, mtu=link.mtu, mac=link.mac))


def _port(link: Link) -> Entry:
    return Entry(Kind.DEVICE, link.name, port_text(up=link.up, mtu=link.mtu, hairpin=link.hairpin))


def _cable(link: Link, names: dict[int, str]) -> Entry:
    master = names.get(link.master, "") if link.master else ""
    return Entry(Kind.DEVICE, link.name, cable_text(up=link.up, mtu=link.mtu, mac=link.mac, master=master))


def _on(ns: Namespace, names: dict[int, str]) -> list[Entry]:
    """Addresses, permanent neighbours and tunnel entries of our devices."""
    return [
        *(
            Entry(Kind.ADDRESS, f"{item.address} dev {names[item.index]}")
            for item in rtnl_read.addresses(ns)
            if item.index in names and isinstance(item.address, IPv4Interface)
        ),
        *(
            Entry(Kind.NEIGHBOUR, f"{item.address} dev {names[item.index]}", item.mac)
            for item in rtnl_read.neighbours(ns)
            if item.index in names and item.state & rtnl_read.PERMANENT
        ),
        *(
            Entry(Kind.FDB, f"{item.mac} dev {names[item.index]}", f"dst {item.remote}")
            for item in rtnl_read.fdb(ns)
            if item.index in names and item.remote is not None
        ),
    ]


def _localhost(ns: Namespace, links: Iterable[Link]) -> list[Entry]:
    """The links by which host ports answer on 127.0.0.1."""
    return [
        Entry(Kind.SETTING, key, "1")
        for key in (setting(link.name) for link in links)
        # A cable may have gone since it was listed.
        if sysctl.present(ns, key) and sysctl.read(ns, key) == "1"
    ]


def _routes(ns: Namespace, cluster_cidr: IPv4Network, names: dict[int, str]) -> list[Entry]:
    """Routes into the pods' range, but for the one that comes with the bridge's address."""
    nowhere = [
        Entry(Kind.ROUTE, str(target), UNREACHABLE)
        for target in rtnl_read.unreachable(ns)
        if target.subnet_of(cluster_cidr)
    ]
    return nowhere + [
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


def _route(route: Route, names: dict[int, str]) -> Entry:
    text = route_text(route.via, names.get(route.index, "several"), onlink=route.onlink)
    return Entry(Kind.ROUTE, str(route.target), text)


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
