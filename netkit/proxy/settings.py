"""Configuration of a proxy agent, in the words of KubeProxyConfiguration, and what it means for rules.

Made by whoever starts an agent. Pure values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address

from netkit.proxy.addresses import Address, Family, Network, addresses_of, networks_of
from netkit.proxy.detector import DetectLocalMode, Detector, InterfaceDetector, SourceDetector

_LOOPBACK = ip_address("127.0.0.0")


class ProxyMode(StrEnum):
    """Kubernetes' names of the ways to program Services."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"
    IPVS = "ipvs"
    USERSPACE = "userspace"


class NftablesLayout(StrEnum):
    """How the nftables mode lays its table out.

    `kube-proxy` is upstream's: a chain per service port, a verdict map that leads to it. `compact` keeps endpoints
    in data maps, so that the kernel has no chain to validate when one changes.
    """

    KUBE_PROXY = "kube-proxy"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class IPVSSettings:
    """The `ipvs` section of KubeProxyConfiguration. Times are seconds, 0 leaves the kernel's value alone."""

    scheduler: str = "rr"
    exclude_cidrs: tuple[str, ...] = ()
    strict_arp: bool = False
    tcp_timeout: float = 0.0
    tcp_fin_timeout: float = 0.0
    udp_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class ConntrackSettings:
    """The `conntrack` section of KubeProxyConfiguration. Times are seconds; 0 leaves the kernel's value alone.

    `max_per_core` entries for each core, but at least `minimum`, may be tracked.
    """

    max_per_core: int = 32768
    minimum: int = 131072
    tcp_established_timeout: float = 86400.0
    tcp_close_wait_timeout: float = 3600.0
    tcp_be_liberal: bool = False
    udp_timeout: float = 0.0
    udp_stream_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Defaults are kube-proxy's. Times are seconds.

    `cluster_cidr`: pod ranges, one per family, separated by commas. `min_sync_period` is the time between
    two syncs in the long run; `sync_burst` of them may follow each other at once. Every `sync_period` the
    rules are looked after, every `full_sync_period` they are written in full. `node_address`: this node's
    primary address (one per family, separated by commas); when empty, the Node object's InternalIPs are
    taken. `healthz_bind_address` and `metrics_bind_address` are where the proxy's own servers listen (empty:
    no such server); a taken one is tried again, or ends the agent with `bind_address_hard_fail`.
    """

    mode: ProxyMode = ProxyMode.IPTABLES
    nftables_layout: NftablesLayout = NftablesLayout.KUBE_PROXY
    ipvs: IPVSSettings = field(default_factory=IPVSSettings)
    conntrack: ConntrackSettings = field(default_factory=ConntrackSettings)
    cluster_cidr: str = ""
    detect_local_mode: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    bridge_interface: str = ""
    interface_name_prefix: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    localhost_node_ports: bool = True
    node_port_addresses: tuple[str, ...] = ()
    node_address: str = ""
    min_sync_period: float = 1.0
    sync_burst: int = 2
    sync_period: float = 30.0
    full_sync_period: float = 3600.0
    healthz_bind_address: str = "0.0.0.0:10256"
    metrics_bind_address: str = "127.0.0.1:10249"
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.masquerade_bit <= 31:
            raise ValueError(f"masquerade_bit must be between 0 and 31, not {self.masquerade_bit}")
        if self.sync_burst < 1:
            raise ValueError(f"sync_burst must be at least 1, not {self.sync_burst}")
        if self.min_sync_period < 0 or self.sync_period <= 0 or self.full_sync_period <= 0:
            raise ValueError("min_sync_period must not be negative, the other periods must be positive")

    def detector(self, family: Family, pod_cidrs: Sequence[str] = ()) -> Detector | None:
        """How pods are recognised; None if this family has no range. `pod_cidrs`: the Node's own."""
        match self.detect_local_mode:
            case DetectLocalMode.CLUSTER_CIDR:
                ranges = networks_of(family, self.cluster_cidr.split(","))
                return SourceDetector(ranges[0]) if ranges else None
            case DetectLocalMode.NODE_CIDR:
                ranges = networks_of(family, pod_cidrs)
                return SourceDetector(ranges[0]) if ranges else None
            case DetectLocalMode.BRIDGE_INTERFACE:
                return InterfaceDetector(self.bridge_interface)
            case DetectLocalMode.INTERFACE_NAME_PREFIX:
                return InterfaceDetector(self.interface_name_prefix, prefix=True)

    def node_port_ranges(self, family: Family) -> tuple[Network, ...]:
        """Where NodePorts answer; empty means on every address of the node.

        Also so when the ranges are all of the other family, or one of them is the whole family.
        """
        ranges = networks_of(family, self.node_port_addresses)
        return () if any(network.prefixlen == 0 for network in ranges) else ranges

    def loopback_node_ports(self, family: Family) -> bool:
        """Whether NodePorts are to answer on 127.0.0.0/8: never in IPv6, and only where the ranges allow it."""
        if family is not Family.IPV4 or not self.localhost_node_ports:
            return False
        ranges = networks_of(family, self.node_port_addresses)
        return not ranges or any(network.is_loopback or _LOOPBACK in network for network in ranges)

    def node_addresses(self, found: Sequence[str]) -> tuple[Address, ...]:
        """This node's primary addresses, one per family; `found` are those of its Node object."""
        texts = self.node_address.split(",") if self.node_address else found
        return tuple(addresses[0] for family in Family if (addresses := addresses_of(family, texts)))
