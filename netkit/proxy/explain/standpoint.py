"""Where an explanation looks from: the proxy of one node and what it goes by, and who calls.

Made by whoever gathers objects and settings. Pure values and what follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from netkit.proxy.addresses import Address, Family, Network, networks_of
from netkit.proxy.choice import NodeView
from netkit.proxy.detector import Detector, InterfaceDetector, SourceDetector
from netkit.proxy.flows import Caller, FlowSettings
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings


class Origin(StrEnum):
    """Where the caller is, in the words of `--from`."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Source:
    """Who calls. `name` is the pod's or the node's (empty: any of the kind), `node` where a pod runs.

    `interface` is the one by which its packets come in, empty if that is not known; `bridged`: it is a bridge.
    """

    origin: Origin
    address: Address
    name: str = ""
    node: str = ""
    interface: str = ""
    bridged: bool = False


@dataclass(frozen=True, slots=True)
class Standpoint:
    """The proxy of one family on one node.

    `local_addresses` are all addresses of the node's kernel (empty: not known, the Node's own are taken);
    `pod_ranges` what the Node says of its pods; `service_ranges` those that cluster IPs are taken from.
    """

    node: NodeView
    family: Family
    settings: ProxySettings
    local_addresses: tuple[Address, ...] = ()
    pod_ranges: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ()
    detector: Detector | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detector", self.settings.detector(self.family, self.pod_ranges))

    @property
    def mode(self) -> ProxyMode:
        return self.settings.mode

    @property
    def mode_text(self) -> str:
        """The mode, with the layout where it is not upstream's."""
        compact = self.settings.nftables_layout is NftablesLayout.COMPACT
        return (
            f"{self.mode} {NftablesLayout.COMPACT}"
            if self.mode is ProxyMode.NFTABLES and compact
            else self.mode
        )

    @property
    def flow_settings(self) -> FlowSettings:
        return FlowSettings(self.settings.masquerade_all, self.detector is not None)

    @property
    def primary(self) -> Address | None:
        """The node's own address of this family."""
        return next((item for item in self.node.addresses if item.version == self.family.version), None)

    def is_local_address(self, address: Address) -> bool:
        return address.is_loopback or address in (self.local_addresses or self.node.addresses)

    def caller(self, source: Source) -> Caller:
        """What the node takes the caller for: its rules look at addresses and interfaces, not at intentions."""
        if self.detector is not None and self.detector.is_local(source.address, self.interface(source)):
            return Caller.POD
        return Caller.NODE if self.is_local_address(source.address) else Caller.OUTSIDE

    def interface(self, source: Source) -> str:
        """The interface the packet comes in by, as far as a detector may ask; empty for the node's own packets.

        If nobody knows better, pods of this node come in by the interface the detector was told, and others do not.
        """
        if source.origin is Origin.NODE or source.interface:
            return source.interface
        return (
            self.detector.name
            if self.is_pod_here(source) and isinstance(self.detector, InterfaceDetector)
            else "eth0"
        )

    def is_pod_here(self, source: Source) -> bool:
        """Whether a pod of this node calls; without a node's name, one does."""
        return source.origin is Origin.POD and source.node in ("", self.node.name)

    def node_port_ranges(self) -> Sequence[Network]:
        return self.settings.node_port_ranges(self.family)

    def answers_node_ports(self, address: Address) -> str:
        """Why a local address of the node does not take NodePorts; empty when it does."""
        if not self.is_local_address(address):
            return f"{address} is not an address of {self.node.name}"
        if self.mode is ProxyMode.USERSPACE:
            return ""
        if address.is_loopback and (why := self._no_loopback()):
            return why
        ranges = self.node_port_ranges()
        if ranges:
            listed = ", ".join(str(item) for item in ranges)
            return "" if any(address in item for item in ranges) else f"nodePortAddresses has only {listed}"
        everywhere = self.mode is not ProxyMode.NFTABLES or self.settings.node_port_addresses
        if everywhere or address in self.node.addresses:
            return ""
        return (
            "without nodePortAddresses the nftables mode takes NodePorts on the node's primary address only"
        )

    def _no_loopback(self) -> str:
        if self.mode is not ProxyMode.IPTABLES:
            return f"the {self.mode} mode takes no NodePorts on loopback addresses"
        if self.family is Family.IPV6:
            return "NodePorts on ::1 are never taken"
        if not self.settings.localhost_node_ports:
            return "iptables.localhostNodePorts is off"
        return ""

    def drops_unused(self, address: Address) -> bool:
        """Whether packets to a cluster IP that nobody serves are dropped; only nftables cares for them."""
        ranges = networks_of(self.family, self.service_ranges)
        return self.mode is ProxyMode.NFTABLES and any(address in network for network in ranges)


def detector_text(detector: Detector | None) -> str:
    """How pods are recognised, in words."""
    match detector:
        case None:
            return "no way to recognise pods is configured"
        case SourceDetector(network):
            return f"pods are recognised by an address in {network}"
        case InterfaceDetector(name, prefix):
            return f"pods are recognised by the interface {name}{'*' if prefix else ''} they come in by"
