"""What a node cannot see from its own link of the network between the nodes. Pure values; told by the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final


@dataclass(frozen=True, slots=True)
class Underlay:
    """`router` takes packets to nodes on other links, None where there are none. `path_mtu` is the largest packet, in
    bytes, that gets to every node (0: as large as the node's own link takes). `learned`: a BGP daemon gives the node
    its routes to pods, natively no others are made.
    """

    router: IPv4Address | None = None
    path_mtu: int = 0
    learned: bool = False

    def mtu(self, link: int) -> int:
        """Of the way between nodes, when the node's own link has the MTU `link`."""
        return min(link, self.path_mtu) if self.path_mtu else link


ONE_LINK: Final = Underlay()
"""All nodes are on one link."""
