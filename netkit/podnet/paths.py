"""Ways to the pods of other nodes, as the kernel holds them, and how to get from one state to the next. Pure.

The modes (`overlay`, `native`) say what there shall be, `agent` applies it. All modes' routes are one table here, so
that a change of mode is a replacement: the kernel takes a route of the same range through another device in one step,
and no packet finds none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from netkit.kernel import rtnl
from netkit.kernel.rtnl import Message
from netkit.kernel.wireguard_values import Peer as WireGuardPeer


@dataclass(frozen=True, slots=True)
class Hop:
    """Where packets for a range go next: to `via`, through flannel.1 (`tunnel`), flannel-wg (`encrypted`), or the
    underlay's device.
    """

    via: IPv4Address
    tunnel: bool = False
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Paths:
    """What the kernel holds (or shall hold), each by its key there. `fdb` and `neighbours` are flannel.1's, `keys` the
    peers of flannel-wg by their public keys.
    """

    fdb: Mapping[str, IPv4Address] = field(default_factory=dict)
    neighbours: Mapping[IPv4Address, str] = field(default_factory=dict)
    routes: Mapping[IPv4Network, Hop] = field(default_factory=dict)
    keys: Mapping[str, WireGuardPeer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoWay:
    """A node whose pods cannot be reached in the mode, and why: a route to it would lead nowhere.

    `passing`: only until the node has told more of itself.
    """

    node: str
    pod_range: IPv4Network
    why: str
    passing: bool = False

    def __str__(self) -> str:
        return f"no route to {self.pod_range} of node {self.node}: {self.why}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mode wants, and what it cannot do."""

    paths: Paths
    refused: tuple[NoWay, ...] = ()


@dataclass(frozen=True, slots=True)
class Devices:
    """Indexes of the links in question; `tunnel` is flannel.1's, `encrypted` flannel-wg's, 0 when there is none."""

    underlay: int
    tunnel: int = 0
    encrypted: int = 0

    def of(self, hop: Hop) -> int:
        if hop.encrypted:
            return self.encrypted
        return self.tunnel if hop.tunnel else self.underlay


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel's link that stands: its index, and its MTU in bytes."""

    index: int
    mtu: int


def changes(current: Paths, wanted: Paths, devices: Devices) -> list[Message]:
    """Messages that lead from `current` to `wanted`, but for `leftovers`; none for what is equal.

    A new node is reachable only when its route comes, last; a node that left loses its route first.
    """
    gone_routes = [
        rtnl.route_delete(target, devices.of(hop))
        for target, hop in current.routes.items()
        if target not in wanted.routes
    ]
    fdb = [
        rtnl.fdb_replace(mac, remote, devices.tunnel)
        for mac, remote in wanted.fdb.items()
        if current.fdb.get(mac) != remote
    ]
    neighbours = [
        rtnl.neighbour_replace(address, mac, devices.tunnel)
        for address, mac in wanted.neighbours.items()
        if current.neighbours.get(address) != mac
    ]
    routes = [
        rtnl.route_replace(target, devices.of(hop), via=hop.via, onlink=hop.tunnel or hop.encrypted)
        for target, hop in wanted.routes.items()
        if current.routes.get(target) != hop
    ]
    return [*gone_routes, *fdb, *neighbours, *routes]


def leftovers(current: Paths, wanted: Paths, devices: Devices) -> list[Message]:
    """Messages that remove what of the tunnel nothing needs any more, once `changes` are done and packets that were
    routed before are through.
    """
    gone_neighbours = [
        rtnl.neighbour_delete(address, devices.tunnel)
        for address in current.neighbours
        if address not in wanted.neighbours
    ]
    gone_fdb = [rtnl.fdb_delete(mac, devices.tunnel) for mac in current.fdb if mac not in wanted.fdb]
    return [*gone_neighbours, *gone_fdb]
