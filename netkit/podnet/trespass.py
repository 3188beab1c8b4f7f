"""Which of the kernel's news mean that somebody changed what the pod network keeps. Pure; `agent` asks.

The agent's own changes make news as well: only what differs from what it knows to have written counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Final

from netkit.kernel import rtnl
from netkit.kernel.network_events import Event, LinkEvent, NeighbourEvent, RouteEvent
from netkit.kernel.rtnl_read import BIRD
from netkit.podnet import overlay, wireguard
from netkit.podnet.attach import Cable
from netkit.podnet.device import BRIDGE
from netkit.podnet.paths import Devices, Paths, Tunnel

_TUNNELS: Final = (overlay.DEVICE, wireguard.DEVICE)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the agent knows to be in the kernel. `mtu` is that of pods and cni0, in bytes; `pods` the routes of the
    node's own range, `bridge` whether cni0 is its own; `tunnels` are those that stand, by the names of their links.
    """

    paths: Paths
    devices: Devices
    cluster_cidr: IPv4Network
    mtu: int
    pods: Mapping[IPv4Network, Cable] = field(default_factory=dict)
    bridge: bool = True
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)


def concerns(event: Event, kept: Kept) -> bool:
    """Whether the event is somebody's change of what is kept."""
    match event:
        case LinkEvent():
            return _link(event, kept)
        case RouteEvent():
            return _route(event, kept)
        case NeighbourEvent():
            return _pod(event, kept) or (event.index == kept.devices.tunnel and _neighbour(event, kept))


def _link(event: LinkEvent, kept: Kept) -> bool:
    tunnel = kept.tunnels.get(event.name)
    if tunnel is not None:
        # The one route of flannel-wg vanishes without a word when it goes down.
        down = event.name == wireguard.DEVICE and not event.up
        return not event.there or down or event.mtu not in (0, tunnel.mtu)
    if event.name in _TUNNELS:
        # A link that is being deleted is told of once more, as down.
        return event.there and event.up
    if any(event.name == cable.link for cable in kept.pods.values()):
        # The routes of a link that goes down vanish without a word.
        return not event.there or not event.up or event.mtu not in (0, kept.mtu)
    return kept.bridge and event.name == BRIDGE and (not event.there or event.mtu not in (0, kept.mtu))


def _route(event: RouteEvent, kept: Kept) -> bool:
    cable = kept.pods.get(event.target)
    if cable is not None:
        return event.there != ((event.via, event.index) == (None, cable.index))
    if event.protocol == BIRD:
        return False
    encrypted = kept.tunnels.get(wireguard.DEVICE)
    if encrypted is not None and (event.target, event.index) == (kept.cluster_cidr, encrypted.index):
        return not event.there
    hop = kept.paths.routes.get(event.target)
    same = hop is not None and (event.via, event.index) == (hop.via, kept.devices.of(hop))
    if not event.there:
        return same
    foreign = event.via is not None and event.target.subnet_of(kept.cluster_cidr)
    return not same and (hop is not None or foreign)


def _pod(event: NeighbourEvent, kept: Kept) -> bool:
    """Whether the entry by which a pod is found on its own cable was changed."""
    if event.forwarding or event.address is None:
        return False
    cable = kept.pods.get(IPv4Network(event.address))
    if cable is None or cable.index != event.index:
        return False
    return event.there != (event.mac == rtnl.mac_of(event.address))


def _neighbour(event: NeighbourEvent, kept: Kept) -> bool:
    if event.forwarding:
        remote = kept.paths.fdb.get(event.mac)
        return event.address is not None and (event.there != (remote == event.address))
    if event.address is None:
        return False
    mac = kept.paths.neighbours.get(event.address)
    return event.there != (mac == event.mac) if mac is not None else False
