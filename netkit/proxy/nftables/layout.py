"""What a layout of the nftables mode has to say, and the settings it says it from. Pure values.

A layout renders; `book` decides what of it must be written. `kube_proxy` and `compact` are the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from netkit.kernel.nft.objects import Chain, Element, SetSpec, TableWriter
from netkit.proxy.addresses import Address, Network
from netkit.proxy.choice import Choice, NodeView
from netkit.proxy.detector import Detector
from netkit.proxy.services import ServicePort


@dataclass(frozen=True, slots=True)
class NftablesSettings:
    """What decides over the rules besides Services and endpoints.

    `node_port_ips` are the addresses node ports answer on, None means every address of the node but loopback.
    `service_ranges` are those that cluster IPs are taken from.
    """

    node: NodeView
    detector: Detector | None = None
    masquerade_all: bool = False
    masquerade_bit: int = 14
    node_port_ips: tuple[Address, ...] | None = None
    service_ranges: tuple[Network, ...] = ()

    @property
    def mark(self) -> int:
        """The bit of the packet mark that asks for masquerading."""
        return 1 << self.masquerade_bit


Placed = tuple[str, Element]
"""An element and the set it is in."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the table's contents.

    `chains` holds the rules of chains as messages, `sets` what these rules need, `elements` entries of shared sets
    and maps, which two parts may both claim. `anonymous` are the chains that have an anonymous set, by the set's
    number in a transaction. `rules` counts.
    """

    chains: Mapping[str, bytes] = field(default_factory=dict)
    sets: Mapping[str, SetSpec] = field(default_factory=dict)
    elements: Sequence[Placed] = ()
    anonymous: Mapping[int, str] = field(default_factory=dict)
    rules: int = 0


NOTHING = Part()


@dataclass(frozen=True, slots=True)
class Frame:
    """What does not depend on Services: chains in order with their rules as messages, sets, and their elements."""

    chains: Sequence[tuple[Chain, bytes]]
    sets: Sequence[SetSpec]
    elements: Sequence[Placed]
    rules: int


class Layout(Protocol):
    """One way to say in a table what the Services ask for."""

    writer: TableWriter
    settings: NftablesSettings
    alternatives: Collection[str]
    """Sets of which packets ask one after the other, until one has the key they look for."""
    numbered: Collection[str]
    """Maps that are asked next, for that key and a number of four bytes, whose range depends on which set it was."""

    def frame(self) -> Frame:
        """The part that does not depend on Services."""

    def port(self, port: ServicePort, choice: Choice) -> Part:
        """All that serves one service port."""
