"""What a cluster's network is made of: segments, zones, machines with interfaces on segments. Pure values.

Read from a file by `topology_file`, judged by `topology_check`, given its addresses by `topology_layout`, drawn by
`topology_draw`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.fabric.spec import PERFECT, LinkProperties

CONTROL_PLANE: Final = "control-plane"
HOST: Final = "host"
CLIENT: Final = "client"


class Role(StrEnum):
    """What a machine is. The host is the machine that runs it all: one link of it is on a segment."""

    ROUTER = "router"
    HOST = "host"
    CONTROL_PLANE = "control-plane"
    CLIENT = "outside client"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. `subnet` None: one is chosen. `mtu` in bytes."""

    name: str
    subnet: IPv4Network | None = None
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of nodes, and the region it is in ("" for none)."""

    name: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a machine. `address` None: the next free one of the segment."""

    segment: str
    address: IPv4Address | None = None
    link: LinkProperties = PERFECT


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine. `zone` and `labels` are a node's, `asn` (0: one is chosen) a router's number for BGP."""

    name: str
    role: Role
    interfaces: tuple[Interface, ...]
    zone: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    asn: int = 0


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it. One machine is the control plane and one the host; `name` is for people."""

    segments: tuple[Segment, ...]
    machines: tuple[Machine, ...]
    zones: tuple[Zone, ...] = ()
    name: str = ""

    def of(self, role: Role) -> tuple[Machine, ...]:
        """The machines of the role, in their order."""
        return tuple(machine for machine in self.machines if machine.role is role)

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.machines if machine.name == name)

    def segment(self, name: str) -> Segment:
        return next(segment for segment in self.segments if segment.name == name)

    def on(self, segment: str) -> tuple[Machine, ...]:
        """The machines that have an interface on the segment."""
        return tuple(m for m in self.machines if any(each.segment == segment for each in m.interfaces))


def plain(nodes: list[str], mtu: int) -> Topology:
    """What a cluster has that names no topology: everything on one segment."""
    on = (Interface("lan"),)
    machines = [
        Machine(HOST, Role.HOST, on),
        Machine(CONTROL_PLANE, Role.CONTROL_PLANE, on),
        Machine(CLIENT, Role.CLIENT, on),
        *(Machine(name, Role.NODE, on) for name in nodes),
    ]
    return Topology((Segment("lan", mtu=mtu),), tuple(machines))
