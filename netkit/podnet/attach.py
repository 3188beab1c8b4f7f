"""How a pod hangs on its node: on a bridge with the node's other pods, or each on a cable of its own. Pure.

With `bridge` the pods of a node share a segment, cni0, and reach each other through it as frames. With `ptp` (as CNI's
plug-in of that name and Calico do it) a pod's address is a /32, its cable ends on the node itself, and the node has a
route to each pod: every packet of a pod is routed.

The gateway is the node range's first address with both - with `ptp` as a /32 on each cable's node end, as CNI's plug-in
has it - so that pods see their node under the same address, also where the kernel takes that from the link by which a
packet leaves (MASQUERADE for a pod that calls itself through its Service). Calico's 169.254.1.1 would leave the kernel
to take any address of the node there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from netkit.podnet.address import gateway


class Attach(StrEnum):
    """`network.attach`."""

    BRIDGE = "bridge"
    PTP = "ptp"


@dataclass(frozen=True, slots=True)
class Cable:
    """Where a route of the node's own range leads: to the node end of a pod's cable; nowhere without a link."""

    link: str = ""
    index: int = 0


def pod_interface(attach: Attach, node_range: IPv4Network, address: IPv4Address) -> IPv4Interface:
    """The address of a pod's eth0 with its prefix length."""
    return IPv4Interface((address, node_range.prefixlen if attach is Attach.BRIDGE else 32))


def gateway_interface(attach: Attach, node_range: IPv4Network) -> IPv4Interface:
    """The gateway's address, as cni0 or the node's end of a cable has it."""
    wanted = gateway(node_range)
    return wanted if attach is Attach.BRIDGE else IPv4Interface((wanted.ip, 32))
