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


def ways(nodes: Iterable[Object]) -> dict[IPv4Network, IPv4Address]:
    """The way to the pods of every node that has a range and an address."""
    found = {}
    for node in nodes:
        target, address = pod_range(node), _address(node)
        if target is not None and address is not None:
            found[target] = address
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


def _address(node: Object) -> IPv4Address | None:
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry.get("type") == "InternalIP":
            try:
                return IPv4Address(entry.get("address", ""))
            except ValueError:
                continue
    return None
