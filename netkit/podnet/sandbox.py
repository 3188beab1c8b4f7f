"""One pod's network: a namespace, a cable to the node (or to its bridge), an address, a default route.

Called by `network`, in a thread; `create` takes about 2 ms. The pod's gateway and, on the node, the pod are
permanent neighbours: no ARP on the first packet, and no use of the kernel's one neighbour table, which all
namespaces share.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.kernel import netns, rtnl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Message, Rtnl
from netkit.kernel.rtnl_read import Link

UPLINK: Final = "eth0"
LABEL: Final = "pod "
"""How the ledger's details of sandboxes begin."""

_DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")
_AT_BIRTH: Final = {
    "net.ipv6.conf.default.disable_ipv6": "1",
    # As containerd sets it: a process without root may listen on port 80 of its own pod.
    "net.ipv4.ip_unprivileged_port_start": "0",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sandbox shall be. `bridge` is the index of cni0, 0 for a cable that ends on the node itself; `gateway` the
    address of cni0, or of the cable's node end, `gateway_mac` its hardware address if that is not made from it.
    `routes` are the pod's, through the gateway where they name no other.
    """

    netns: str
    link: str
    address: IPv4Interface
    gateway: IPv4Interface
    bridge: int
    mtu: int
    uplink: str = UPLINK
    gateway_mac: str = ""
    routes: tuple[tuple[IPv4Network, IPv4Address | None], ...] = ((_DEFAULT_ROUTE, None),)

    @property
    def mac(self) -> str:
        return rtnl.mac_of(self.address.ip)

    @property
    def target(self) -> IPv4Network:
        """The pod's address as a route to it."""
        return IPv4Network(self.address.ip)


def create(plan: Plan, node: Rtnl, ledger: Ledger, pod: str) -> int:
    """Make it: the index of the cable's node end. Raises KernelError after having taken back what was made; `pod`
    goes into the ledger.
    """
    ns = netns.create(plan.netns, ledger, _AT_BIRTH, wanted_by=f"{LABEL}{pod}")
    try:
        with ns:
            return connect(plan, ns, node)
    except BaseException:
        destroy(plan, node, ledger)
        raise


def connect(plan: Plan, ns: Namespace, node: Rtnl) -> int:
    """Lay the cable from the node to `ns`, with addresses and routes: the index of its node end. Raises KernelError."""
    if plan.bridge:
        node.apply(
            rtnl.veth(plan.link, plan.uplink, ns, peer_mac=plan.mac, mtu=plan.mtu, master=plan.bridge),
            *_port(plan),
        )
        index = _index(plan, node)
    else:
        mac = rtnl.mac_of(plan.gateway.ip)
        node.apply(rtnl.veth(plan.link, plan.uplink, ns, mac=mac, peer_mac=plan.mac, mtu=plan.mtu))
        index = _index(plan, node)
        node.apply(*_node_end(plan, index))
    _configure_inside(plan, ns)
    return index


def adopt(plan: Plan, node: Rtnl, links: Mapping[str, Link]) -> int:
    """Set right a sandbox that stands, e.g. after cni0 was made anew: the index of the cable's node end, 0 when the
    sandbox is beyond repair. `links` are the node's.
    """
    try:
        ns = netns.open_namespace(plan.netns)
    except KernelError as error:
        if error.is_not_found:
            return 0
        raise
    with ns:
        end = links.get(plan.link)
        with Rtnl(ns) as inside:
            if inside.link_index(plan.uplink) is None or end is None:
                return 0
        if plan.bridge:
            node.apply(
                rtnl.link_master(plan.link, plan.bridge), rtnl.link_up(plan.link, mtu=plan.mtu), *_port(plan)
            )
        else:
            mac = rtnl.mac_of(plan.gateway.ip)
            node.apply(
                *([rtnl.link_master(end.index, 0)] if end.master else []),
                *([rtnl.link_address(end.index, mac)] if end.mac != mac else []),
                rtnl.link_up(end.index, mtu=plan.mtu),
                *_node_end(plan, end.index),
            )
        _configure_inside(plan, ns)
    return end.index


def destroy(plan: Plan, node: Rtnl, ledger: Ledger) -> None:
    """Remove the name and the way to the pod; the kernel removes the cable some 15-60 ms later. Fine when it is
    gone.
    """
    netns.delete(plan.netns, ledger)
    if plan.bridge:
        node.apply(rtnl.neighbour_delete(plan.address.ip, plan.bridge).allowing(errno.ENODEV))
    elif index := node.link_index(plan.link):
        node.apply(rtnl.route_delete(plan.target, index).allowing(errno.ENODEV))


def set_inner_mtu(plans: Iterable[Plan]) -> None:
    """Give the pods' own ends of their cables the plans' MTU. A sandbox that is going is passed over."""
    for plan in plans:
        try:
            with netns.open_namespace(plan.netns) as ns, Rtnl(ns) as inside:
                inside.apply(rtnl.link_up(plan.uplink, mtu=plan.mtu).allowing(errno.ENODEV))
        except KernelError as error:
            if not error.is_not_found:
                raise


def _index(plan: Plan, node: Rtnl) -> int:
    index = node.link_index(plan.link)
    if index is None:
        raise KernelError(f"ip link show {plan.link}", errno=errno.ENODEV)
    return index


def _port(plan: Plan) -> tuple[Message, ...]:
    """The cable's node end as a port of cni0."""
    return (
        rtnl.hairpin(plan.link),
        rtnl.neighbour_replace(plan.address.ip, plan.mac, plan.bridge),
    )


def _node_end(plan: Plan, index: int) -> tuple[Message, ...]:
    """The cable's node end as a link of its own."""
    return (
        rtnl.address_add(plan.gateway, index),
        rtnl.neighbour_replace(plan.address.ip, plan.mac, index),
        rtnl.route_replace(plan.target, index),
    )


def _configure_inside(plan: Plan, ns: Namespace) -> None:
    with Rtnl(ns) as inside:
        uplink = inside.link_index(plan.uplink)
        if uplink is None:
            raise KernelError(f"ip link show {plan.uplink}", ns.name, errno.ENODEV)
        near = [] if plan.bridge else [rtnl.route_replace(IPv4Network(plan.gateway.ip), uplink)]
        inside.apply(
            rtnl.link_up("lo"),
            rtnl.link_up(uplink, mtu=plan.mtu),
            rtnl.address_add(plan.address, uplink),
            *near,
            *(rtnl.route_replace(target, uplink, via=via or plan.gateway.ip) for target, via in plan.routes),
            rtnl.neighbour_replace(plan.gateway.ip, plan.gateway_mac or rtnl.mac_of(plan.gateway.ip), uplink),
        )
