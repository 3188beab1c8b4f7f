"""What the emulated hardware of a cluster is: one segment, a switch, machines on it. Pure values and names.

Made by `netkit.cluster` from its configuration; read by `fabric.build`. Touches nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

SWITCH: Final = "switch"
"""Name of the machine that is the segment's switch."""

BRIDGE: Final = "br0"
"""The switch's bridge."""

HOST_PORT: Final = "host"
"""The switch's port that leads to the machine's own network."""

MAX_LINK_NAME: Final = 15
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MIN_MTU: Final = 1280


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine on the segment: `name` is a DNS label, `address` its address with the segment's prefix
    length.
    """

    name: str
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class FabricSpec:
    """The whole of it. `mtu` in bytes; `host_address` is the machine's own address on the segment (the
    machines' default gateway), `host_link` the name of its link (`host_link_name`). Ports of `unplugged` machines
    are down.

    Raises ValueError, with what is wrong, for values that cannot work together.
    """

    cluster: str
    segment: IPv4Network
    mtu: int
    machines: tuple[MachineSpec, ...]
    host_address: IPv4Interface
    host_link: str
    unplugged: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _check_label("cluster", self.cluster)
        if not 0 < len(self.host_link) <= MAX_LINK_NAME or "/" in self.host_link:
            raise ValueError(f"host link {self.host_link!r}: 1 to {MAX_LINK_NAME} characters without '/'")
        if self.mtu < _MIN_MTU:
            raise ValueError(f"mtu {self.mtu}: at least {_MIN_MTU}")
        owners: dict[IPv4Address, str] = {self.host_address.ip: "the host"}
        self._check_address("the host", self.host_address)
        names = {SWITCH, HOST_PORT}
        for machine in self.machines:
            _check_label("machine", machine.name)
            if machine.name in names:
                raise ValueError(f"machine {machine.name}: the name is taken")
            names.add(machine.name)
            self._check_address(f"machine {machine.name}", machine.address)
            if machine.address.ip in owners:
                raise ValueError(
                    f"machine {machine.name}: {machine.address.ip} belongs to {owners[machine.address.ip]}"
                )
            owners[machine.address.ip] = machine.name

    def _check_address(self, who: str, address: IPv4Interface) -> None:
        if address.network != self.segment:
            raise ValueError(f"{who}: {address} is not in the segment {self.segment}")
        if address.ip in (self.segment.network_address, self.segment.broadcast_address):
            raise ValueError(f"{who}: {address} is the segment's network or broadcast address")


def namespace_name(cluster: str, machine: str) -> str:
    """Name of a machine's network namespace: `<cluster>.<machine>`."""
    return f"{cluster}.{machine}"


def host_link_name(cluster: str) -> str:
    """Name of the veth in the machine's own namespace: `nk-<cluster>`, shortened with a hash if too long."""
    return shortened(f"nk-{cluster}")


def port_name(machine: str) -> str:
    """Name of the switch's port for a machine: the machine's name, shortened with a hash if too long."""
    return shortened(machine)


def shortened(name: str) -> str:
    """`name` if it can be a link's name, else its beginning and six hex digits of its hash."""
    if len(name) <= MAX_LINK_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: MAX_LINK_NAME - 7]}-{digest}"


def _check_label(what: str, name: str) -> None:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{what} name {name!r}: lower case letters, digits and '-', at most 63, no dots")
