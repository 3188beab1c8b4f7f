"""What the emulated hardware of a cluster is: segments, machines on them, their routes. Pure values and names.

Made by `netkit.cluster` from its configuration; read by `fabric.build`. Touches nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations
from typing import Final

SWITCH: Final = "switch"
"""Name of the machine that holds the segments' bridges."""

HOST_PORT: Final = "host"
"""The switch's port that leads to the machine's own network."""

MAX_LINK_NAME: Final = 15
MIN_MTU: Final = 576
"""What every host of the Internet must take in one piece (RFC 791)."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class LinkProperties:
    """What a cable does to packets, the same in both directions. 0 means: nothing.

    `mtu` in bytes, `rate` in bits per second, `delay` and `jitter` in seconds (each packet waits `delay` and up to
    `jitter` more or less), `loss` the share of packets lost, 0 to 1.
    """

    mtu: int = 0
    rate: int = 0
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0

    @property
    def shaped(self) -> bool:
        """Whether packets have to be treated, which a plain cable does not do."""
        return bool(self.rate or self.delay or self.jitter or self.loss)


PERFECT: Final = LinkProperties()


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """One segment: what a bridge joins. `mtu` in bytes."""

    name: str
    network: IPv4Network
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class InterfaceSpec:
    """One interface of a machine: the segment it is on and its address, with the segment's prefix length."""

    segment: str
    address: IPv4Interface
    link: LinkProperties = PERFECT


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A route of a machine through the interface on whose segment `via` is."""

    target: IPv4Network
    via: IPv4Address


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine. `name` is a DNS label; interface k is `eth<k>`; `forwards` makes it a router."""

    name: str
    interfaces: tuple[InterfaceSpec, ...]
    routes: tuple[RouteSpec, ...] = ()
    forwards: bool = False

    @property
    def address(self) -> IPv4Interface:
        """The first interface's: what the machine is known by."""
        return self.interfaces[0].address

    def toward(self, route: RouteSpec) -> int:
        """The number of the interface through which the route goes."""
        return next(n for n, each in enumerate(self.interfaces) if route.via in each.address.network)


@dataclass(frozen=True, slots=True)
class FabricSpec:
    """The whole of it. `host` is how the machine's own network is on a segment, `host_link` the name of its link
    (`host_link_name`), `host_routes` its ways to the other segments. Ports of `unplugged` machines are down.

    Raises ValueError, with what is wrong, for values that cannot work together.
    """

    cluster: str
    segments: tuple[SegmentSpec, ...]
    machines: tuple[MachineSpec, ...]
    host: InterfaceSpec
    host_link: str
    host_routes: tuple[RouteSpec, ...] = ()
    unplugged: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _check_label("cluster", self.cluster)
        if not 0 < len(self.host_link) <= MAX_LINK_NAME or "/" in self.host_link:
            raise ValueError(f"host link {self.host_link!r}: 1 to {MAX_LINK_NAME} characters without '/'")
        self._check_segments()
        owners = {self.host.address.ip: "the host"}
        self._check_interface("the host", self.host)
        names = {SWITCH, HOST_PORT}
        for machine in self.machines:
            who = f"machine {machine.name}"
            _check_label("machine", machine.name)
            if machine.name in names:
                raise ValueError(f"{who}: the name is taken")
            names.add(machine.name)
            if not machine.interfaces:
                raise ValueError(f"{who}: at least one interface")
            for interface in machine.interfaces:
                self._check_interface(who, interface)
                address = interface.address.ip
                if address in owners:
                    raise ValueError(f"{who}: {address} belongs to {owners[address]}")
                owners[address] = machine.name
            self._check_routes(who, machine.interfaces, machine.routes)
        self._check_routes("the host", (self.host,), self.host_routes)

    @property
    def segment(self) -> IPv4Network:
        """The network of the segment the host is on."""
        return self.segment_of(self.host).network

    @property
    def host_address(self) -> IPv4Interface:
        return self.host.address

    def segment_of(self, interface: InterfaceSpec) -> SegmentSpec:
        return next(segment for segment in self.segments if segment.name == interface.segment)

    def bridge_of(self, interface: InterfaceSpec) -> str:
        """The bridge in the switch that is the interface's segment."""
        return bridge_name([segment.name for segment in self.segments].index(interface.segment))

    def mtu_of(self, interface: InterfaceSpec) -> int:
        """The largest packet that fits through the interface, in bytes."""
        mtu = self.segment_of(interface).mtu
        return min(mtu, interface.link.mtu) if interface.link.mtu else mtu

    def cables(self) -> Iterator[tuple[MachineSpec, int, InterfaceSpec]]:
        """Every interface of every machine, with its number there."""
        for machine in self.machines:
            for number, interface in enumerate(machine.interfaces):
                yield machine, number, interface

    def _check_segments(self) -> None:
        for segment in self.segments:
            _check_label("segment", segment.name)
            if segment.mtu < MIN_MTU:
                raise ValueError(f"segment {segment.name}: mtu {segment.mtu}: at least {MIN_MTU}")
        for one, other in combinations(self.segments, 2):
            if one.name == other.name:
                raise ValueError(f"segment {one.name}: the name is taken")
            if one.network.overlaps(other.network):
                raise ValueError(
                    f"segment {other.name}: {other.network} overlaps {one.network} of segment {one.name}"
                )

    def _check_interface(self, who: str, interface: InterfaceSpec) -> None:
        address = interface.address
        segment = next((item for item in self.segments if item.name == interface.segment), None)
        if segment is None:
            raise ValueError(f"{who}: there is no segment {interface.segment}")
        network = segment.network
        if address.network != network:
            raise ValueError(f"{who}: {address} is not in the segment {network}")
        if address.ip in (network.network_address, network.broadcast_address):
            raise ValueError(f"{who}: {address} is the segment's network or broadcast address")
        if interface.link.mtu and interface.link.mtu < MIN_MTU:
            raise ValueError(f"{who}: mtu {interface.link.mtu}: at least {MIN_MTU}")

    @staticmethod
    def _check_routes(who: str, interfaces: tuple[InterfaceSpec, ...], routes: tuple[RouteSpec, ...]) -> None:
        for route in routes:
            if not any(route.via in interface.address.network for interface in interfaces):
                raise ValueError(f"{who}: {route.via} is on none of its segments")


def namespace_name(cluster: str, machine: str) -> str:
    """Name of a machine's network namespace: `<cluster>.<machine>`."""
    return f"{cluster}.{machine}"


def bridge_name(number: int) -> str:
    """Name of the bridge of the segment with that number, counted from 0."""
    return f"br{number}"


def device_name(number: int) -> str:
    """Name of a machine's interface with that number, counted from 0."""
    return f"eth{number}"


def host_link_name(cluster: str) -> str:
    """Name of the veth in the machine's own namespace: `nk-<cluster>`, shortened with a hash if too long."""
    return shortened(f"nk-{cluster}")


def port_name(machine: str, number: int = 0) -> str:
    """Name of the switch's port for a machine's interface: the machine's name, with `.k` behind it for the k-th one
    after the first; shortened with a hash if too long.
    """
    return shortened(f"{machine}.{number}" if number else machine)


def shortened(name: str) -> str:
    """`name` if it can be a link's name, else its beginning and six hex digits of its hash."""
    if len(name) <= MAX_LINK_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: MAX_LINK_NAME - 7]}-{digest}"


def _check_label(what: str, name: str) -> None:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{what} name {name!r}: lower case letters, digits and '-', at most 63, no dots")
