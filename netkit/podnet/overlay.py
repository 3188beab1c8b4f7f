"""The mode `vxlan`: pods' packets travel between nodes inside UDP packets of the nodes. Pure; `agent` applies it.

The layout is flannel's: every node has a device flannel.1 with the range's network address. To node N's pods
there is a route `<N's range> via <N's network address> dev flannel.1 onlink`, a permanent neighbour that
gives this gateway the hardware address of N's flannel.1, and a forwarding entry that sends this hardware
address to N's node address. Nothing is learned from packets. With direct routing (flannel's `DirectRouting`), nodes on
the same link are reached as in the mode `native`, and only the others through the tunnel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.kernel import rtnl
from netkit.podnet.paths import Hop, NoWay, Paths, Wanted
from netkit.podnet.peer import VXLAN_TYPE, Peer, published

DEVICE: Final = "flannel.1"
VNI: Final = 1
PORT: Final = 8472
OVERHEAD: Final = 50
"""Bytes VXLAN adds to a packet over IPv4."""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The mode. `direct_routing`: without the tunnel where a node is on the same link."""

    direct_routing: bool = False

    @property
    def tunnels(self) -> tuple[str, ...]:
        return (DEVICE,)

    @property
    def overhead(self) -> int:
        return OVERHEAD

    def annotations(self, node_address: IPv4Address, public_key: str = "") -> dict[str, str]:
        return published(node_address, VXLAN_TYPE, tunnel_end(node_address))

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        routes, refused, tunnelled = {}, [], []
        for peer in joined:
            gateway = peer.pod_range.network_address
            near = peer.address in link
            if near and (self.direct_routing or not peer.vtep_mac):
                routes[peer.pod_range] = Hop(peer.address)
            elif peer.vtep_mac:
                tunnelled.append(peer)
                routes[peer.pod_range] = Hop(gateway, tunnel=True)
            else:
                why = f"it has no tunnel end, and its address {peer.address} is not on the link {link}"
                refused.append(NoWay(peer.name, peer.pod_range, why))
        return Wanted(Paths(*entries(tunnelled), routes), tuple(refused))


def entries(tunnelled: Iterable[Peer]) -> tuple[dict[str, IPv4Address], dict[IPv4Address, str]]:
    """The forwarding entries and the neighbours by which these nodes' tunnel ends are found."""
    tunnelled = tuple(tunnelled)
    return (
        {peer.vtep_mac: peer.address for peer in tunnelled},
        {peer.pod_range.network_address: peer.vtep_mac for peer in tunnelled},
    )


def vtep_mac(node_address: IPv4Address) -> str:
    """Hardware address of a node's flannel.1: fixed by its address, so that a restart changes nothing for
    others.
    """
    return rtnl.mac_of(node_address, prefix="0e:f1")


def tunnel_end(node_address: IPv4Address) -> str:
    """What a node publishes of its tunnel end, as JSON."""
    return json.dumps({"VNI": VNI, "VtepMAC": vtep_mac(node_address)}, separators=(",", ":"))
