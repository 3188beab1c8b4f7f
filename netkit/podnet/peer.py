"""What nodes tell each other of the pod network, through annotations on their Node objects. Pure.

The names and values are flannel's (`kube-subnet-mgr`): with the backend `vxlan` a node publishes the hardware address
of its tunnel end, with `wireguard` a public key, with `host-gw` nothing but its address. A node that is changing over
from one to the other publishes what both need.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from controlplane.errors import Object

log = logging.getLogger(__name__)

PREFIX: Final = "flannel.alpha.coreos.com/"
BACKEND_TYPE, BACKEND_DATA = f"{PREFIX}backend-type", f"{PREFIX}backend-data"
_PUBLIC_IP, _MANAGER = f"{PREFIX}public-ip", f"{PREFIX}kube-subnet-manager"
VXLAN_TYPE, NATIVE_TYPE, WIREGUARD_TYPE = "vxlan", "host-gw", "wireguard"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that has joined the pod network: node address, its pods' range, hardware address of its tunnel end, and
    its public key. The last two are "" for a node without such a tunnel.
    """

    name: str
    address: IPv4Address
    pod_range: IPv4Network
    vtep_mac: str = ""
    public_key: str = ""


def published(node_address: IPv4Address, backend_type: str, backend_data: str) -> dict[str, str]:
    """What a node publishes on its own Node object. `backend_data` is JSON."""
    return {
        BACKEND_TYPE: backend_type,
        BACKEND_DATA: backend_data,
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
                peer = peer_of(node)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s: flannel annotations not understood: %s", name, error)
                continue
            if peer is not None:
                found.append(peer)
    return tuple(found)


def peer_of(node: Object) -> Peer | None:
    """The peer a Node object describes; None while it has not joined. ValueError, KeyError, TypeError for nonsense."""
    notes = node["metadata"].get("annotations") or {}
    its_range, kind = pod_range(node), notes.get(BACKEND_TYPE)
    if (
        its_range is None
        or kind not in (VXLAN_TYPE, NATIVE_TYPE, WIREGUARD_TYPE)
        or not notes.get(_PUBLIC_IP)
    ):
        return None
    data = json.loads(notes.get(BACKEND_DATA) or "null") or {}
    mac = str(data["VtepMAC"] if kind == VXLAN_TYPE else data.get("VtepMAC", "")).lower()
    if mac and not _MAC.fullmatch(mac):
        raise ValueError(f"VtepMAC {mac!r}")
    key = str(data["PublicKey"] if kind == WIREGUARD_TYPE else data.get("PublicKey", ""))
    if key and not _is_key(key):
        raise ValueError(f"PublicKey {key!r}")
    return Peer(node["metadata"]["name"], IPv4Address(notes[_PUBLIC_IP]), its_range, mac, key)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except binascii.Error:
        return False
