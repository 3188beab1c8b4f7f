"""How a node tells traffic of its own pods from everybody else's ("local detectors" of kube-proxy).

A detector is a value; back ends write it in their own syntax, `flows` asks it about one packet. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netkit.proxy.addresses import Address, Network


class DetectLocalMode(StrEnum):
    """Kubernetes' names for the ways to detect local traffic."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True, slots=True)
class SourceDetector:
    """Local is what comes from an address inside `network`: the cluster's pods, or this node's."""

    network: Network

    def is_local(self, source: Address, interface: str) -> bool:
        return source.version == self.network.version and source in self.network


@dataclass(frozen=True, slots=True)
class InterfaceDetector:
    """Local is what comes in by the interface `name`, or by any whose name starts with it if `prefix`."""

    name: str
    prefix: bool = False

    def is_local(self, source: Address, interface: str) -> bool:
        return interface.startswith(self.name) if self.prefix else interface == self.name


Detector = SourceDetector | InterfaceDetector
"""None in its place means: nothing is known to be local."""
