"""The kernel's load balancer as values: virtual servers, the real servers behind them, protocols and schedulers.

Shared by the driver `ipvs`, its fake and everybody who wants servers. Pure.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

Address = IPv4Address | IPv6Address

SCHEDULERS: Final = (
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf",
)  # fmt: skip
"""Schedulers of the kernel; each is a module of its own, `ip_vs_` and the name."""

SOURCE_HASH_PORT: Final = 0x0010
"""Flag of `sh` and `mh`: the client's port counts as well as its address (`ipvsadm -b sh-port`, `mh-port`)."""

SOURCE_HASH_FALLBACK: Final = 0x0008
"""Flag of `sh` and `mh`: a server that cannot be used is replaced by another (`sh-fallback`, `mh-fallback`)."""

SCHEDULER_FLAGS: Final = 0x0038
"""The three flags that mean something to a scheduler."""

_FLAG_NAMES: Final = {
    "sh": {SOURCE_HASH_FALLBACK: "sh-fallback", SOURCE_HASH_PORT: "sh-port"},
    "mh": {SOURCE_HASH_FALLBACK: "mh-fallback", SOURCE_HASH_PORT: "mh-port"},
}
_OPTIONS: Final = {
    socket.IPPROTO_TCP: "-t",
    socket.IPPROTO_UDP: "-u",
    socket.IPPROTO_SCTP: "--sctp-service",
}
_SCHEDULER_FLAG_BITS: Final = {0x0008: "flag-1", 0x0010: "flag-2", 0x0020: "flag-3"}


class Transport(IntEnum):
    """Protocols that can be balanced, by their IP protocol number."""

    TCP = socket.IPPROTO_TCP
    UDP = socket.IPPROTO_UDP
    SCTP = socket.IPPROTO_SCTP


@dataclass(frozen=True, slots=True)
class ServerKey:
    """What a virtual server is found by."""

    address: Address
    port: int
    transport: Transport
    text: str = field(init=False, compare=False, repr=False, default="")
    """Address and port: `10.96.0.1:80`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", host_port(self.address, self.port))

    @property
    def option(self) -> str:
        """The server as ipvsadm's options name it: `-t 10.96.0.1:80`."""
        return f"{_OPTIONS[self.transport]} {self.text}"

    def __str__(self) -> str:
        return f"{self.text}/{self.transport.name}"


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server. `persistence`: seconds a client stays with its real server, 0 for not at all.

    `flags` are those of the scheduler (SOURCE_HASH_PORT, ...).
    """

    key: ServerKey
    scheduler: str = "rr"
    persistence: int = 0
    flags: int = 0

    @property
    def options(self) -> str:
        """Scheduler, persistence and flags as ipvsadm prints them: `rr persistent 10800`."""
        words = [self.scheduler]
        if self.persistence:
            words.append(f"persistent {self.persistence}")
        names = _FLAG_NAMES.get(self.scheduler, _SCHEDULER_FLAG_BITS)
        flags = [names.get(bit, name) for bit, name in _SCHEDULER_FLAG_BITS.items() if self.flags & bit]
        return " ".join([*words, f"({','.join(flags)})"] if flags else words)


@dataclass(frozen=True, slots=True)
class Target:
    """Address and port of a real server."""

    address: Address
    port: int
    text: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", host_port(self.address, self.port))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server as it stands: its weight (0: no new connections) and how many connections it has."""

    target: Target
    weight: int
    active: int = 0
    inactive: int = 0

    @property
    def connections(self) -> int:
        """All connections the kernel still remembers, also those that are over and only wait to be forgotten."""
        return self.active + self.inactive


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which idle connections are forgotten; 0 means "as it is" when set."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


def host_port(address: Address, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
