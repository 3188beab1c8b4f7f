"""Node objects -> what the VXLAN device must know: forwarding entries, neighbours, routes; and the way from
one state to the next. Pure; `agent` applies it.

The layout is flannel's: every node has a device flannel.1 with the range's network address. To node N's pods
there is a route `<N's range> via <N's network address> dev flannel.1 onlink`, a permanent neighbour that
gives this gateway the hardware address of N's flannel.1, and a forwarding entry that sends this hardware
address to N's node address. Nothing is learned from packets. Nodes tell each other through annotations, as
flannel's `kube-subnet-mgr` does.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from controlplane.errors import Object
from netkit.kernel import rtnl
from netkit.kernel.rtnl import Message

log = logging.getLogger(__name__)

DEVICE: Final = "flannel.1"
VNI: Final = 1
PORT: Final = 8472
OVERHEAD: Final = 50
"""Bytes VXLAN adds to a packet over IPv4."""

_PREFIX: Final = "flannel.alpha.coreos.com/"
_BACKEND_TYPE, _BACKEND_DATA = f"{_PREFIX}backend-type", f"{_PREFIX}backend-data"
_PUBLIC_IP, _MANAGER = f"{_PREFIX}public-ip", f"{_PREFIX}kube-subnet-manager"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that has joined the pod network: node address, hardware address of its flannel.1, its pods'
    range.
    """

    name: str
    address: IPv4Address
    vtep_mac: str
    pod_range: IPv4Network


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the kernel holds (or shall hold) for the device, each by its key there."""

    fdb: Mapping[str, IPv4Address] = field(default_factory=dict)
    neighbours: Mapping[IPv4Address, str] = field(default_factory=dict)
    routes: Mapping[IPv4Network, IPv4Address] = field(default_factory=dict)


def vtep_mac(node_address: IPv4Address) -> str:
    """Hardware address of a node's flannel.1: fixed by its address, so that a restart changes nothing for
    others.
    """
    return rtnl.mac_of(node_address, prefix="0e:f1")


def node_annotations(node_address: IPv4Address, mac: str) -> dict[str, str]:
    """What a node publishes on its own Node object."""
    return {
        _BACKEND_TYPE: "vxlan",
        _BACKEND_DATA: json.dumps({"VNI": VNI, "VtepMAC": mac}, separators=(",", ":")),
        _PUBLIC_IP: str(node_address),
        _MANAGER: "true",
    }


def pod_range(node: Object) -> IPv4Network | None:
    """The node's IPv4 pod range, None until it has one."""
    spec = node.get("spec") or {}
    for text in (*(spec.get("podCIDRs") or ()), spec.get("podCIDR") or ""):
        try:
            return IPv4Network(text)
        except ValueError:
            continue
    return None


def peers(nodes: Iterable[Object], own_name: str) -> tuple[Peer, ...]:
    """The other nodes that have joined, by name. One that published nonsense is left out, with a warning."""
    found = []
    for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"])):
        name = node["metadata"]["name"]
        if name != own_name:
            try:
                peer = _peer(node)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s: flannel annotations not understood: %s", name, error)
                continue
            if peer is not None:
                found.append(peer)
    return tuple(found)


def overlay(joined: Iterable[Peer]) -> Overlay:
    """What the device must hold so that these nodes' pods are reached."""
    joined = tuple(joined)
    return Overlay(
        fdb={peer.vtep_mac: peer.address for peer in joined},
        neighbours={peer.pod_range.network_address: peer.vtep_mac for peer in joined},
        routes={peer.pod_range: peer.pod_range.network_address for peer in joined},
    )


def changes(current: Overlay, wanted: Overlay, index: int) -> list[Message]:
    """Messages for the device with `index` that lead from `current` to `wanted`; none for what is equal.

    A new node is reachable only when its route comes, last; a node that left loses its route first.
    """
    gone_routes = [
        rtnl.route_delete(target, index) for target in current.routes if target not in wanted.routes
    ]
    gone_neighbours = [
        rtnl.neighbour_delete(address, index)
        for address in current.neighbours
        if address not in wanted.neighbours
    ]
    gone_fdb = [rtnl.fdb_delete(mac, index) for mac in current.fdb if mac not in wanted.fdb]
    fdb = [
        rtnl.fdb_replace(mac, remote, index)
        for mac, remote in wanted.fdb.items()
        if current.fdb.get(mac) != remote
    ]
    neighbours = [
        rtnl.neighbour_replace(address, mac, index)
        for address, mac in wanted.neighbours.items()
        if current.neighbours.get(address) != mac
    ]
    routes = [
        rtnl.route_replace(target, index, via=via, onlink=True)
        for target, via in wanted.routes.items()
        if current.routes.get(target) != via
    ]
    return [*gone_routes, *fdb, *neighbours, *routes, *gone_neighbours, *gone_fdb]


def _peer(node: Object) -> Peer | None:
    """The peer a Node object describes; None while it has not joined."""
    notes = node["metadata"].get("annotations") or {}
    its_range = pod_range(node)
    if its_range is None or notes.get(_BACKEND_TYPE) != "vxlan" or not notes.get(_PUBLIC_IP):
        return None
    mac = str(json.loads(notes[_BACKEND_DATA])["VtepMAC"]).lower()
    if not _MAC.fullmatch(mac):
        raise ValueError(f"VtepMAC {mac!r}")
    return Peer(node["metadata"]["name"], IPv4Address(notes[_PUBLIC_IP]), mac, its_range)
