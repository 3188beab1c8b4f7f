"""Which of the kernel's news mean that somebody changed what the pod network keeps. Pure; `agent` asks.

The agent's own changes make news as well: only what differs from what it knows to have written counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from netkit.kernel.network_events import Event, LinkEvent, NeighbourEvent, RouteEvent
from netkit.kernel.rtnl_read import BIRD
from netkit.podnet import overlay
from netkit.podnet.device import BRIDGE
from netkit.podnet.paths import Devices, Paths


@dataclass(frozen=True, slots=True)
class Kept:
    """What the agent knows to be in the kernel. `mtu` is that of pods, cni0 and flannel.1 alike, in bytes."""

    paths: Paths
    devices: Devices
    cluster_cidr: IPv4Network
    mtu: int


def concerns(event: Event, kept: Kept) -> bool:
    """Whether the event is somebody's change of what is kept."""
    match event:
        case LinkEvent():
            return _link(event, kept)
        case RouteEvent():
            return _route(event, kept)
        case NeighbourEvent():
            return event.index == kept.devices.tunnel and _neighbour(event, kept)


def _link(event: LinkEvent, kept: Kept) -> bool:
    if event.name == overlay.DEVICE and not kept.devices.tunnel:
        # A link that is being deleted is told of once more, as down.
        return event.there and event.up
    return event.name in (BRIDGE, overlay.DEVICE) and (not event.there or event.mtu not in (0, kept.mtu))


def _route(event: RouteEvent, kept: Kept) -> bool:
    if event.protocol == BIRD:
        return False
    hop = kept.paths.routes.get(event.target)
    same = hop is not None and (event.via, event.index) == (hop.via, kept.devices.of(hop))
    if not event.there:
        return same
    foreign = event.via is not None and event.target.subnet_of(kept.cluster_cidr)
    return not same and (hop is not None or foreign)


def _neighbour(event: NeighbourEvent, kept: Kept) -> bool:
    if event.forwarding:
        remote = kept.paths.fdb.get(event.mac)
        return event.address is not None and (event.there != (remote == event.address))
    if event.address is None:
        return False
    mac = kept.paths.neighbours.get(event.address)
    return event.there != (mac == event.mac) if mac is not None else False
