"""A table of rows as values: what is written in a file, read, checked and with every symbol resolved. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from controlplane.errors import Object
from netkit.proxy.addresses import Family, host_port
from netkit.proxy.flows import Destination
from netkit.proxy.services import Protocol

Address = IPv4Address | IPv6Address

MODES = ("iptables", "nftables", "ipvs", "userspace")
"""The words under `modes:`. Variants and layouts of one mode give the same answers."""


class Outcome(StrEnum):
    """How connections end."""

    ENDPOINTS = "endpoints"
    REJECT = "reject"
    DROP = "drop"
    NONE = "none"
    CLOSED = "closed"


class Sticky(StrEnum):
    """Whether connections keep to one endpoint: each as it likes, all to one, or to one per address called."""

    NO = "no"
    ALL = "all"
    EACH = "each"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a row wants to see. `endpoints` are `address:port`; `masqueraded` None is not looked at.

    With `skip`, the reason, the row does not run in that mode.
    """

    outcome: Outcome
    endpoints: frozenset[str] = frozenset()
    masqueraded: bool | None = None
    sticky: Sticky = Sticky.NO
    skip: str = ""


class Place(StrEnum):
    """What kind of machine a connection comes from."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections come from. `machine` is a pod's or node's name; `source` None: as routing has it."""

    place: Place
    machine: str
    source: Address | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What is called. `kind` is None for an address that was written literally."""

    address: Address
    port: int
    kind: Destination | None = None

    def __str__(self) -> str:
        return host_port(self.address, self.port)


@dataclass(frozen=True)
class Row:
    """One case. `targets` are called in turn. `settings` is a KubeProxyConfiguration without its mode, as JSON."""

    cluster: str
    name: str
    covers: str
    node: str
    settings: str
    origin: Origin
    service: tuple[str, str] | None
    service_port: str
    targets: tuple[Target, ...]
    protocol: Protocol
    family: Family
    expected: Mapping[str, Expectation]
    written: Mapping[str, str] = field(compare=False, default_factory=dict)
    """`from` and `to` in the file's own words."""

    @property
    def title(self) -> str:
        return f"{self.cluster}: {self.name}"


@dataclass(frozen=True)
class PodPlan:
    """A pod that must exist: its node, its addresses, and where it listens."""

    name: str
    node: str
    addresses: tuple[Address, ...]
    listens: frozenset[tuple[Address, int, Protocol]] = frozenset()


@dataclass(frozen=True)
class Cluster:
    """The objects that a group of rows shares, defaults filled in. `bridges` are nodes whose pods hang on a bridge."""

    name: str
    objects: tuple[Object, ...]
    nodes: Mapping[str, Object]
    pods: Mapping[str, PodPlan]
    bridges: frozenset[str] = frozenset()
    closed: tuple[str, ...] = ()
    """Chains in which the nodes' iptables drop what nobody accepts."""

    def of_kind(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]


@dataclass(frozen=True)
class NodePlan:
    """A node that must exist. The first address of a family is its primary one.

    `gateways` are its addresses on the links of its pods, `clients` those of the pod that is no endpoint (`pod on
    NODE`). With `bridge` its pods hang on cni0.
    """

    name: str
    addresses: tuple[Address, ...]
    gateways: tuple[Address, ...]
    clients: tuple[Address, ...]
    bridge: bool = False
    owned: tuple[Address, ...] = ()
    """Further addresses, on its loopback link, which no Node object tells."""


@dataclass(frozen=True)
class Plan:
    """The network that all rows of a file need."""

    nodes: tuple[NodePlan, ...]
    pods: tuple[PodPlan, ...]
    service_addresses: tuple[Address, ...]
    outside: tuple[Address, ...]
    """Addresses of the client outside; the first of a family is the usual one."""
    loopback: tuple[Address, ...] = ()
    """Loopback addresses that the client outside sends packets to, as if they were the node's."""


@dataclass(frozen=True)
class Table:
    """All rows of a file."""

    path: Path
    clusters: Mapping[str, Cluster]
    rows: tuple[Row, ...]
    plan: Plan
