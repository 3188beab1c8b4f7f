"""One pod's network: a namespace, a cable to the node's bridge, an address, a default route.

Called by `network`, in a thread; `create` takes about 2 ms. The pod's gateway and, on the node, the pod are
permanent neighbours: no ARP on the first packet, and no use of the kernel's one neighbour table, which all
namespaces share.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from netkit.kernel import netns, rtnl
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Message, Rtnl

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
    """What a sandbox shall be. `bridge` is the index of cni0, `gateway` its address with the range's prefix
    length.
    """

    netns: str
    link: str
    address: IPv4Interface
    gateway: IPv4Interface
    bridge: int
    mtu: int

    @property
    def mac(self) -> str:
        return rtnl.mac_of(self.address.ip)


def create(plan: Plan, node: Rtnl, ledger: Ledger, pod: str) -> None:
    """Make it. Raises KernelError after having taken back what was made; `pod` goes into the ledger."""
    ns = netns.create(plan.netns, ledger, _AT_BIRTH, wanted_by=f"{LABEL}{pod}")
    try:
        with ns:
            node.apply(
                rtnl.veth(plan.link, UPLINK, ns, peer_mac=plan.mac, mtu=plan.mtu, master=plan.bridge),
                *_node_side(plan),
            )
            _configure_inside(plan, ns)
    except BaseException:
        destroy(plan, node, ledger)
        raise


def adopt(plan: Plan, node: Rtnl) -> bool:
    """Set right a sandbox that stands, e.g. after cni0 was made anew. False when it is beyond repair."""
    try:
        ns = netns.open_namespace(plan.netns)
    except KernelError as error:
        if error.is_not_found:
            return False
        raise
    with ns:
        with Rtnl(ns) as inside:
            if inside.link_index(UPLINK) is None or node.link_index(plan.link) is None:
                return False
        node.apply(
            rtnl.link_master(plan.link, plan.bridge), rtnl.link_up(plan.link, mtu=plan.mtu), *_node_side(plan)
        )
        _configure_inside(plan, ns)
    return True


def destroy(plan: Plan, node: Rtnl, ledger: Ledger) -> None:
    """Remove the name and the neighbour; the kernel removes the cable some 15-60 ms later. Fine when it is
    gone.
    """
    netns.delete(plan.netns, ledger)
    node.apply(rtnl.neighbour_delete(plan.address.ip, plan.bridge).allowing(errno.ENODEV))


def set_inner_mtu(plans: Iterable[Plan]) -> None:
    """Give the pods' own ends of their cables the plans' MTU. A sandbox that is going is passed over."""
    for plan in plans:
        try:
            with netns.open_namespace(plan.netns) as ns, Rtnl(ns) as inside:
                inside.apply(rtnl.link_up(UPLINK, mtu=plan.mtu).allowing(errno.ENODEV))
        except KernelError as error:
            if not error.is_not_found:
                raise


def _node_side(plan: Plan) -> tuple[Message, Message]:
    return (
        rtnl.hairpin(plan.link),
        rtnl.neighbour_replace(plan.address.ip, plan.mac, plan.bridge),
    )


def _configure_inside(plan: Plan, ns: Namespace) -> None:
    with Rtnl(ns) as inside:
        uplink = inside.link_index(UPLINK)
        if uplink is None:
            raise KernelError(f"ip link show {UPLINK}", ns.name, errno.ENODEV)
        inside.apply(
            rtnl.link_up("lo"),
            rtnl.link_up(uplink, mtu=plan.mtu),
            rtnl.address_add(plan.address, uplink),
            rtnl.route_replace(_DEFAULT_ROUTE, uplink, via=plan.gateway.ip),
            rtnl.neighbour_replace(plan.gateway.ip, rtnl.mac_of(plan.gateway.ip), uplink),
        )
