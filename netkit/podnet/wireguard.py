"""The mode `wireguard`: as `vxlan`, but nobody on the way can read or forge pods' packets. Pure; `agent` applies it.

The layout is that of flannel's backend of this name: every node has a device flannel-wg with the range's network
address, port 51820, and one route for all pods, `<cluster's range> dev flannel-wg`. Which node gets a packet is the
device's choice by its peers: one per node, whose addresses are that node's range - and, other than with flannel, that
node's own address, because answers of nodes to pods of others go through the tunnel here, from the node's address.
A packet for a node that has not told its key goes nowhere; it never travels in the clear instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.kernel import wireguard_values
from netkit.kernel.wireguard_values import Change, State
from netkit.podnet.paths import Hop, NoWay, Paths, Wanted
from netkit.podnet.peer import WIREGUARD_TYPE, Peer, published
from netkit.podnet.underlay import ONE_LINK, Underlay

DEVICE: Final = "flannel-wg"
PORT: Final = 51820
OVERHEAD: Final = 80
"""Bytes that WireGuard adds to a packet over IPv6, which are 20 more than over IPv4; flannel's figure for both."""


@dataclass(frozen=True, slots=True)
class WireGuard:
    """The mode. Where a BGP daemon learns native routes to each range, as on `underlay`, these would go before the one
    route for all: then there is also a route per node into the device, which goes before the learned one.
    """

    underlay: Underlay = ONE_LINK

    @property
    def tunnels(self) -> tuple[str, ...]:
        return (DEVICE,)

    @property
    def overhead(self) -> int:
        return OVERHEAD

    def annotations(self, node_address: IPv4Address, public_key: str) -> dict[str, str]:
        return published(node_address, WIREGUARD_TYPE, tunnel_end(public_key))

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        keys = {peer.public_key: allowed_peer(peer) for peer in joined if peer.public_key}
        why = "it has not told a key, and its pods' packets must not travel without"
        silent = [peer for peer in joined if not peer.public_key]
        refused = tuple(NoWay(peer.name, peer.pod_range, why, passing=True) for peer in silent)
        routes = {
            peer.pod_range: Hop(peer.pod_range.network_address, encrypted=True)
            for peer in (joined if self.underlay.learned else ())
        }
        return Wanted(Paths(routes=routes, keys=keys), refused)


def allowed_peer(peer: Peer) -> wireguard_values.Peer:
    """What the device has to know of a node."""
    allowed = sorted((peer.pod_range, IPv4Network(peer.address)))
    return wireguard_values.Peer(peer.public_key, peer.address, PORT, tuple(allowed))


def tunnel_end(public_key: str) -> str:
    """What a node publishes of its tunnel end, as JSON."""
    return json.dumps({"PublicKey": public_key}, separators=(",", ":"))


Keys = Mapping[str, wireguard_values.Peer]


def additions(current: Keys, wanted: Keys, public_key: str) -> Change:
    """New peers, and those that have changed. An address moves to the peer that gets it.

    Of two nodes that get to know each other, the one with the lesser `public_key` greets the other: if both begin at
    the same moment, neither accepts the other's answer, and they are mute for 5 s.
    """
    found = tuple(peer for key, peer in wanted.items() if current.get(key) != peer)
    return Change(peers=found, greeted=tuple(peer for peer in found if public_key < peer.public_key))


def silent(state: State) -> Change:
    """A greeting for those who have not been heard of: they may have been greeted by somebody they did not know yet."""
    return Change(greeted=tuple(peer for key, peer in state.peers.items() if key not in state.sessions))


def removals(current: Keys, wanted: Keys) -> Change:
    """Peers that nothing needs any more."""
    return Change(removed=tuple(key for key in current if key not in wanted))
