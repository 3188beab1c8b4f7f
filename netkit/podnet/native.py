"""The mode `native`: pods' packets travel between nodes as they are, by a route per node. Pure; `agent` applies it.

The layout is that of flannel's backend `host-gw`: `<N's range> via <N's node address> dev eth0`, nothing else, and pods
may send packets as large as the underlay's. To a node on another link the route is `via <router> dev eth0`, and works
as far as the routers know the pods' ranges; where there is no router, such a node is refused by name, not given a route
to nowhere. Where a BGP daemon learns the routes, the node gets none from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from netkit.podnet.paths import Hop, NoWay, Paths, Wanted
from netkit.podnet.peer import NATIVE_TYPE, Peer, published
from netkit.podnet.underlay import ONE_LINK, Underlay


@dataclass(frozen=True, slots=True)
class Native:
    """The mode."""

    underlay: Underlay = ONE_LINK

    @property
    def tunnels(self) -> tuple[str, ...]:
        return ()

    @property
    def overhead(self) -> int:
        return 0

    def annotations(self, node_address: IPv4Address, public_key: str = "") -> dict[str, str]:
        return published(node_address, NATIVE_TYPE, "null")

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        routes, refused = {}, []
        for peer in () if self.underlay.learned else joined:
            if peer.address in link:
                routes[peer.pod_range] = Hop(peer.address)
            elif self.underlay.router is not None:
                routes[peer.pod_range] = Hop(self.underlay.router)
            else:
                why = f"its address {peer.address} is not on the link {link}, a route would lead nowhere"
                refused.append(NoWay(peer.name, peer.pod_range, why))
        return Wanted(Paths(routes=routes), tuple(refused))
