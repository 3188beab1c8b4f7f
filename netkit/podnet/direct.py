"""Ways to pods for a machine of the segment that is no node: through the nodes themselves, without a tunnel. Pure.

The control plane's machine needs them to proxy to pods and Services. `direct_agent` applies them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from controlplane.errors import Object
from netkit.kernel import rtnl
from netkit.kernel.rtnl import Message
from netkit.podnet.peer import pod_range

log = logging.getLogger(__name__)

Ways = Mapping[IPv4Network, IPv4Address]
"""A node's pod range -> the node's address."""


def ways(
    nodes: Iterable[Object], link: IPv4Network | None = None, *, routers_know: bool = False
) -> dict[IPv4Network, IPv4Address]:
    """The way to the pods of every node that has a range and an address.

    With `link`, the network of the machine's own link, pods of nodes that are not on it are left to the router where
    `routers_know` the pods' ranges, and reached through a node on the link where not.
    """
    found: dict[IPv4Network, IPv4Address] = {}
    far: list[IPv4Network] = []
    for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"])):
        target, address = pod_range(node), node_address(node)
        if target is None or address is None:
            continue
        if link is None or address in link:
            found[target] = address
        elif not routers_know:
            far.append(target)
    if found:
        nearest = next(iter(found.values()))
        found |= dict.fromkeys(far, nearest)
    return found


def changes(current: Ways, wanted: Ways, index: int) -> list[Message]:
    """Messages for the link with `index` that lead from `current` to `wanted`; none for what is equal."""
    gone = [rtnl.route_delete(target, index) for target in current if target not in wanted]
    new = [
        rtnl.route_replace(target, index, via=via)
        for target, via in wanted.items()
        if current.get(target) != via
    ]
    return gone + new


def node_address(node: Object) -> IPv4Address | None:
    """The node's internal IPv4 address, None until it has told."""
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry.get("type") == "InternalIP":
            try:
                return IPv4Address(entry.get("address", ""))
            except ValueError:
                continue
    return None
