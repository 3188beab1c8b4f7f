"""How packets get from node to node: the modes by name, and the one interface the agent knows them by. Pure.

A setting chooses; a cluster that changes over passes through settings with `both`, in which packets travel in one
mode's way while the tunnel of another stands, so that nodes of either mode reach each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

from netkit.podnet.external import External
from netkit.podnet.native import Native
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Paths, Wanted
from netkit.podnet.peer import BACKEND_DATA, Peer
from netkit.podnet.underlay import ONE_LINK, Underlay
from netkit.podnet.wireguard import WireGuard


class NetworkMode(StrEnum):
    """`network.mode`."""

    VXLAN = "vxlan"
    NATIVE = "native"
    WIREGUARD = "wireguard"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Setting:
    """A mode with its options. `direct_routing` counts with vxlan only, `node_routes` with external only. `both` is
    another mode whose tunnel stands as well, and through which packets would fit.
    """

    mode: NetworkMode = NetworkMode.VXLAN
    direct_routing: bool = False
    both: NetworkMode | None = None
    node_routes: bool = False

    def __str__(self) -> str:
        options = [
            text
            for given, text in (
                (self.direct_routing, "direct routing"),
                (self.both, f"tunnel of {self.both} kept"),
                (self.node_routes, "node routes"),
            )
            if given
        ]
        return f"{self.mode} ({', '.join(options)})" if options else str(self.mode)

    @property
    def encrypts(self) -> bool:
        """Whether nodes need WireGuard for it."""
        return NetworkMode.WIREGUARD in (self.mode, self.both)


VXLAN: Final = Setting()
"""What a cluster has unless it asks for something else."""


class Backend(Protocol):
    """A mode at work. `overhead` in bytes is what it takes of the underlay's MTU; `tunnels`: devices it needs."""

    @property
    def tunnels(self) -> tuple[str, ...]: ...

    @property
    def overhead(self) -> int: ...

    def annotations(self, node_address: IPv4Address, public_key: str) -> dict[str, str]:
        """What the node publishes of itself. `public_key` is "" where no tunnel needs one."""
        ...

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        """What the kernel must hold so that these nodes' pods are reached; `link` is the underlay's network."""
        ...


@dataclass(frozen=True, slots=True)
class Both:
    """The mode `main` while the tunnel of `other` stands with all its entries, but for routes into it."""

    main: Backend
    other: Backend

    @property
    def tunnels(self) -> tuple[str, ...]:
        return self.main.tunnels + self.other.tunnels

    @property
    def overhead(self) -> int:
        return max(self.main.overhead, self.other.overhead)

    def annotations(self, node_address: IPv4Address, public_key: str) -> dict[str, str]:
        notes = self.main.annotations(node_address, public_key)
        others = self.other.annotations(node_address, public_key)
        both = [json.loads(each[BACKEND_DATA]) or {} for each in (notes, others)]
        return {**notes, BACKEND_DATA: json.dumps(both[0] | both[1], separators=(",", ":"))}

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        main, other = self.main.wanted(joined, link), self.other.wanted(joined, link)
        paths, kept = main.paths, other.paths
        return Wanted(
            Paths(
                {**paths.fdb, **kept.fdb},
                {**paths.neighbours, **kept.neighbours},
                paths.routes,
                {**paths.keys, **kept.keys},
            ),
            (*main.refused, *(way for way in other.refused if way.passing)),
        )


def backend(setting: Setting, underlay: Underlay = ONE_LINK) -> Backend:
    """The mode that a setting chooses, on that network between the nodes."""
    main = _alone(setting, underlay)
    return Both(main, _alone(Setting(setting.both), underlay)) if setting.both is not None else main


def _alone(setting: Setting, underlay: Underlay) -> Backend:
    made: dict[NetworkMode, Backend] = {
        NetworkMode.VXLAN: Vxlan(setting.direct_routing),
        NetworkMode.NATIVE: Native(underlay),
        NetworkMode.WIREGUARD: WireGuard(underlay),
        NetworkMode.EXTERNAL: External(setting.node_routes, underlay),
    }
    return made[setting.mode]


def mtu(setting: Setting, underlay: Underlay, link: int) -> int:
    """MTU of pods in the mode, in bytes, when the node's own link has the MTU `link`.

    A tunnel's packets are made to fit all the way: nobody tells a pod that the packet around its packet was too large.
    Natively the pod itself is told ("fragmentation needed"), and may use what its link takes.
    """
    mode = backend(setting, underlay)
    return (underlay.mtu(link) if mode.tunnels else link) - mode.overhead


def steps(current: Setting, wanted: Setting) -> list[Setting]:
    """The settings that all nodes have to reach, one after the other, on a working cluster's way to `wanted`.

    To a tunnel: its ends, and packets that fit, everywhere before the first packet goes in. From a tunnel: the last
    route through it is gone before its ends go and packets grow.
    """
    way = []
    if current.mode is not wanted.mode:
        if wanted.mode is not NetworkMode.NATIVE:
            way.append(Setting(current.mode, current.direct_routing, wanted.mode))
        if current.mode is not NetworkMode.NATIVE:
            way.append(Setting(wanted.mode, both=current.mode))
    if current.both and current not in way:
        # A change was interrupted: not all nodes may have got even there.
        way.insert(0, current)
    return [*way, wanted]
