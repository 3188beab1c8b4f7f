"""Which routes to pods a router needs, and how to get from one state to the next. Pure; `router_agent` applies it.

It is what a cloud's route controller does to the cloud's routers: a route per node's pod range, in every router.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from controlplane.errors import Object
from netkit.kernel import rtnl
from netkit.kernel.rtnl import Message
from netkit.podnet.direct import node_address
from netkit.podnet.peer import pod_range

Ways = Mapping[IPv4Network, IPv4Address]
"""A pod range -> the next machine on the way to it."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router as routes see it: the networks it is on, and for every other the next router on the way there."""

    name: str
    networks: tuple[IPv4Network, ...]
    beyond: Mapping[IPv4Network, IPv4Address] = field(default_factory=dict)

    def toward(self, address: IPv4Address) -> IPv4Address | None:
        """Where packets for a machine's address go next, None when no way is known."""
        if any(address in network for network in self.networks):
            return address
        return next((via for network, via in self.beyond.items() if address in network), None)


def ways(router: Router, nodes: Iterable[Object]) -> dict[IPv4Network, IPv4Address]:
    """The way to the pods of every node that has a range and an address the router can reach."""
    found = {}
    for node in nodes:
        target, address = pod_range(node), node_address(node)
        if target is not None and address is not None and (via := router.toward(address)) is not None:
            found[target] = via
    return found


def purposes(nodes: Iterable[Object]) -> dict[IPv4Network, str]:
    """For pod ranges: whose pods they are."""
    return {
        target: f"pods of {node['metadata']['name']}"
        for node in nodes
        if (target := pod_range(node)) is not None
    }


def changes(current: Ways, wanted: Ways, links: Mapping[IPv4Network, int]) -> list[Message]:
    """Messages that lead from `current` to `wanted`; `links` are the indexes of the router's links by their network.
    None for what is equal. A range whose new way begins on no link is left as it is.
    """
    gone = [rtnl.route_delete(target, 0) for target in current if target not in wanted]
    new = []
    for target, via in wanted.items():
        index = next((index for network, index in links.items() if via in network), None)
        if index is not None and current.get(target) != via:
            new.append(rtnl.route_replace(target, index, via=via))
    return gone + new
