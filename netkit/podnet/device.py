"""The node's own links of the pod network: the bridge cni0 and the tunnels' devices flannel.1 and flannel-wg,
and the node's settings.

Called by `network` and `agent` in the node's namespace. Everything is adopted when it stands and made when it
is missing; a flannel.1 with other parameters is made anew, as flannel does it.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.kernel import rtnl, rtnl_read, sysctl
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import overlay, wireguard
from netkit.podnet.address import gateway
from netkit.podnet.attach import Attach
from netkit.podnet.paths import Devices, Hop, Paths

BRIDGE: Final = "cni0"
SETTINGS: Final = {
    "net.ipv4.ip_forward": 1,
    # Answers to pods leave by flannel.1 though their questions came in by eth0.
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}
BRIDGE_SETTINGS: Final = {
    # Without these, answers between pods of one node short-cut through the bridge and miss the reverse NAT.
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
}

CABLE_SETTINGS: Final = {
    # A packet of a pod that comes back to it (its own Service) leaves by the link it came in by, and is right there.
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
}


def settings_of(attach: Attach) -> dict[str, int]:
    """All kernel settings of a node whose pods are attached so."""
    return SETTINGS | (BRIDGE_SETTINGS if attach is Attach.BRIDGE else CABLE_SETTINGS)


@dataclass(frozen=True, slots=True)
class Uplink:
    """The node's link to the other nodes: the one that has the node's address. `mtu` in bytes; `network` is what is
    reached through it without a router.
    """

    name: str
    index: int
    mtu: int
    network: IPv4Network


def uplink(ns: Namespace, node_address: IPv4Address) -> Uplink:
    """The link with the node's address. KernelError when no link has it."""
    networks = {
        entry.index: entry.address.network
        for entry in rtnl_read.addresses(ns)
        if isinstance(entry.address, IPv4Interface) and entry.address.ip == node_address
    }
    for link in rtnl_read.links(ns).values():
        if link.index in networks:
            return Uplink(link.name, link.index, link.mtu, networks[link.index])
    raise KernelError(
        f"ip address show to {node_address}", ns.name, errno.EADDRNOTAVAIL,
        hint="the node's address must be on one of its links",
    )  # fmt: skip


def prepare_node(ns: Namespace, uplink_name: str, attach: Attach = Attach.BRIDGE) -> None:
    """Make the namespace a router for pods. Unsupported when the bridge needs br_netfilter and it is missing."""
    sysctl.write_all(ns, {**SETTINGS, f"net/ipv4/conf/{uplink_name}/rp_filter": 0})
    if attach is Attach.PTP:
        sysctl.write_all(ns, CABLE_SETTINGS)
        return
    try:
        sysctl.write_all(ns, BRIDGE_SETTINGS)
    except Unsupported as error:
        error.hint = "Services need it between pods of one node: modprobe br_netfilter, or attach: ptp"
        raise


def ensure_bridge(ns: Namespace, links: Rtnl, node_range: IPv4Network, mtu: int) -> int:
    """cni0 with the range's gateway address, up: its index. Addresses of another range are taken away."""
    wanted = gateway(node_range)
    mac = rtnl.mac_of(wanted.ip)
    if BRIDGE not in rtnl_read.links(ns):
        links.apply(rtnl.bridge(BRIDGE, mac=mac, mtu=mtu))
    return _set_right(ns, links, BRIDGE, mac, mtu, wanted)


def set_mtu(links: Rtnl, cables: Iterable[str], mtu: int, *, bridge: bool) -> None:
    """Give these node ends of pods' cables the MTU, and cni0 if there is one. Cables that are going are passed over."""
    links.apply(
        *(rtnl.link_up(cable, mtu=mtu).allowing(errno.ENODEV) for cable in cables),
        *([rtnl.link_up(BRIDGE, mtu=mtu)] if bridge else []),
    )


def ensure_range(links: Rtnl, node_range: IPv4Network, before: IPv4Network | None) -> None:
    """Without a bridge: packets for addresses of the range that no pod has go nowhere, instead of out of the node.

    `before` is the range that the node had until now.
    """
    stale = [rtnl.unreachable_delete(before)] if before not in (None, node_range) else []
    links.apply(*stale, rtnl.unreachable_replace(node_range))


def keep_only(ns: Namespace, links: Rtnl, address: IPv4Interface, cables: Container[int]) -> None:
    """Take every other address from the links with these indexes."""
    links.apply(
        *(
            rtnl.address_delete(entry.address, entry.index)
            for entry in rtnl_read.addresses(ns)
            if isinstance(entry.address, IPv4Interface) and entry.address != address and entry.index in cables
        )
    )


def ensure_vxlan(
    ns: Namespace, links: Rtnl, node_range: IPv4Network, local: IPv4Address, via: Uplink, mtu: int
) -> int:
    """flannel.1 between node addresses, up, with the range's network address: its index. `mtu` in bytes."""
    mac = overlay.vtep_mac(local)
    wanted = rtnl_read.Vxlan(overlay.VNI, local, overlay.PORT, via.index, learning=False)
    present = rtnl_read.links(ns).get(overlay.DEVICE)
    if present is not None and present.vxlan != wanted:
        links.apply(rtnl.link_delete(overlay.DEVICE))
        present = None
    if present is None:
        links.apply(
            rtnl.vxlan(
                overlay.DEVICE,
                vni=overlay.VNI,
                local=local,
                device=via.index,
                port=overlay.PORT,
                mac=mac,
                mtu=mtu,
            )
        )
    return _set_right(ns, links, overlay.DEVICE, mac, mtu, IPv4Interface((node_range.network_address, 32)))


def ensure_encrypted(
    ns: Namespace, links: Rtnl, node_range: IPv4Network, cluster_cidr: IPv4Network, mtu: int
) -> int:
    """flannel-wg, which stands already: the range's network address, all pods' route, the MTU in bytes; its index."""
    index = _set_right(ns, links, wireguard.DEVICE, "", mtu, IPv4Interface((node_range.network_address, 32)))
    links.apply(rtnl.route_replace(cluster_cidr, index))
    return index


def _set_right(ns: Namespace, links: Rtnl, name: str, mac: str, mtu: int, address: IPv4Interface) -> int:
    """Give a link that stands its hardware address, MTU and one address: its index.

    A hardware address is set only if it differs: the kernel forgets the link's neighbours, permanent ones too, also
    when it is set to what it is.
    """
    link = rtnl_read.links(ns)[name]
    moved = [rtnl.link_address(link.index, mac)] if link.mac != mac else []
    stale = [
        rtnl.address_delete(entry.address, link.index)
        for entry in rtnl_read.addresses(ns, link.index)
        if isinstance(entry.address, IPv4Interface) and entry.address != address
    ]
    links.apply(*stale, *moved, rtnl.link_up(link.index, mtu=mtu), rtnl.address_add(address, link.index))
    return link.index


def remove_vxlan(ns: Namespace, links: Rtnl) -> bool:
    """Remove flannel.1, with all entries and routes through it. False when there is none."""
    if overlay.DEVICE not in rtnl_read.links(ns):
        return False
    links.apply(rtnl.link_delete(overlay.DEVICE).allowing(errno.ENODEV))
    return True


def read_paths(ns: Namespace, devices: Devices, cluster_cidr: IPv4Network) -> Paths:
    """What the kernel holds of ways to other nodes' pods: all of the tunnels, and routes to ranges of `cluster_cidr`
    through the underlay - but for those of a BGP daemon, which are its own.
    """
    routes = {}
    for route in rtnl_read.routes(ns):
        tunnel, encrypted = 0 < route.index == devices.tunnel, 0 < route.index == devices.encrypted
        if route.protocol == rtnl_read.BIRD:
            continue
        ours = (
            tunnel or encrypted or (route.index == devices.underlay and route.target.subnet_of(cluster_cidr))
        )
        if route.via is not None and ours:
            routes[route.target] = Hop(route.via, tunnel, encrypted)
    if not devices.tunnel:
        return Paths(routes=routes)
    return Paths(
        fdb={
            entry.mac: entry.remote for entry in rtnl_read.fdb(ns, devices.tunnel) if entry.remote is not None
        },
        neighbours={
            entry.address: entry.mac
            for entry in rtnl_read.neighbours(ns, devices.tunnel)
            if entry.state & rtnl_read.PERMANENT
        },
        routes=routes,
    )
