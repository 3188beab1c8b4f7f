"""How packets get from node to node: the modes by name, and the one interface the agent knows them by. Pure.

A setting chooses; a cluster that changes over passes through one with `both`, in which packets travel natively while
tunnel ends stand, so that nodes of either mode reach each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

from netkit.podnet.external import External
from netkit.podnet.native import Native
from netkit.podnet.overlay import Vxlan
from netkit.podnet.paths import Wanted
from netkit.podnet.peer import Peer
from netkit.podnet.underlay import ONE_LINK, Underlay


class NetworkMode(StrEnum):
    """`network.mode`."""

    VXLAN = "vxlan"
    NATIVE = "native"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Setting:
    """A mode with its options. `direct_routing` counts with vxlan only, `both` with native only, `node_routes` with
    external only.
    """

    mode: NetworkMode = NetworkMode.VXLAN
    direct_routing: bool = False
    both: bool = False
    node_routes: bool = False

    def __str__(self) -> str:
        options = [
            text
            for given, text in (
                (self.direct_routing, "direct routing"),
                (self.both, "tunnel kept"),
                (self.node_routes, "node routes"),
            )
            if given
        ]
        return f"{self.mode} ({', '.join(options)})" if options else str(self.mode)


VXLAN: Final = Setting()
"""What a cluster has unless it asks for something else."""


class Backend(Protocol):
    """A mode at work. `overhead` in bytes is what it takes of the underlay's MTU; `tunnel`: it needs flannel.1."""

    @property
    def tunnel(self) -> bool: ...

    @property
    def overhead(self) -> int: ...

    def annotations(self, node_address: IPv4Address) -> dict[str, str]:
        """What the node publishes of itself."""
        ...

    def wanted(self, joined: Sequence[Peer], link: IPv4Network) -> Wanted:
        """What the kernel must hold so that these nodes' pods are reached; `link` is the underlay's network."""
        ...


def backend(setting: Setting, underlay: Underlay = ONE_LINK) -> Backend:
    """The mode that a setting chooses, on that network between the nodes."""
    made: dict[NetworkMode, Backend] = {
        NetworkMode.VXLAN: Vxlan(setting.direct_routing),
        NetworkMode.NATIVE: Native(setting.both, underlay),
        NetworkMode.EXTERNAL: External(setting.node_routes, underlay),
    }
    return made[setting.mode]


def mtu(setting: Setting, underlay: Underlay, link: int) -> int:
    """MTU of pods in the mode, in bytes, when the node's own link has the MTU `link`.

    A tunnel's packets are made to fit all the way: nobody tells a pod that the packet around its packet was too large.
    Natively the pod itself is told ("fragmentation needed"), and may use what its link takes.
    """
    mode = backend(setting, underlay)
    return (underlay.mtu(link) if mode.tunnel else link) - mode.overhead


def steps(current: Setting, wanted: Setting) -> list[Setting]:
    """The settings that all nodes have to reach, one after the other, on a working cluster's way to `wanted`.

    To vxlan: tunnel ends and small packets everywhere before the first packet is wrapped. To native: the last route
    through a tunnel is gone before tunnel ends go and packets grow.
    """
    between = Setting(NetworkMode.NATIVE, both=True)
    if current.mode is wanted.mode and not current.both:
        return [wanted]
    return [between, wanted]
