"""Names of what kube-proxy's IPVS mode keeps in the kernel besides virtual servers: the sets, and the device.

Every cluster in IPVS mode shows the same names, so greps and books fit. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from netkit.kernel.ipset import SetType
from netkit.proxy.addresses import Address, Family, Network
from netkit.proxy.services import Protocol

DEVICE: Final = "kube-ipvs0"
"""The dummy device that holds all service addresses, so that their packets come in here and meet IPVS."""

_NAME_LENGTH: Final = 31


@dataclass(frozen=True, slots=True)
class SetKind:
    """One of the sets. `name` is that of IPv4, `comment` what rules that match it say."""

    name: str
    type: SetType
    comment: str

    def name_for(self, family: Family) -> str:
        """The name in the kernel. IPv6 has its own, cut to the length that sets' names can have."""
        if family is Family.IPV4:
            return self.name
        return self.name.replace("KUBE-", "KUBE-6-", 1)[:_NAME_LENGTH]


LOOP_BACK = SetKind(
    "KUBE-LOOP-BACK",
    SetType.HASH_IP_PORT_IP,
    "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
)
CLUSTER_IP = SetKind(
    "KUBE-CLUSTER-IP", SetType.HASH_IP_PORT, "Kubernetes service cluster ip + port for masquerade purpose"
)
EXTERNAL_IP = SetKind(
    "KUBE-EXTERNAL-IP",
    SetType.HASH_IP_PORT,
    "Kubernetes service external ip + port for masquerade and filter purpose",
)
EXTERNAL_IP_LOCAL = SetKind(
    "KUBE-EXTERNAL-IP-LOCAL",
    SetType.HASH_IP_PORT,
    "Kubernetes service external ip + port with externalTrafficPolicy=local",
)
LOAD_BALANCER = SetKind("KUBE-LOAD-BALANCER", SetType.HASH_IP_PORT, "Kubernetes service lb portal")
LOAD_BALANCER_FW = SetKind(
    "KUBE-LOAD-BALANCER-FW",
    SetType.HASH_IP_PORT,
    "Kubernetes service load balancer ip + port for load balancer with sourceRange",
)
LOAD_BALANCER_LOCAL = SetKind(
    "KUBE-LOAD-BALANCER-LOCAL",
    SetType.HASH_IP_PORT,
    "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
)
LOAD_BALANCER_SOURCE_IP = SetKind(
    "KUBE-LOAD-BALANCER-SOURCE-IP",
    SetType.HASH_IP_PORT_IP,
    "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
)
LOAD_BALANCER_SOURCE_CIDR = SetKind(
    "KUBE-LOAD-BALANCER-SOURCE-CIDR",
    SetType.HASH_IP_PORT_NET,
    "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
)
NODE_PORT_TCP = SetKind(
    "KUBE-NODE-PORT-TCP", SetType.BITMAP_PORT, "Kubernetes nodeport TCP port for masquerade purpose"
)
NODE_PORT_LOCAL_TCP = SetKind(
    "KUBE-NODE-PORT-LOCAL-TCP",
    SetType.BITMAP_PORT,
    "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
)
NODE_PORT_UDP = SetKind(
    "KUBE-NODE-PORT-UDP", SetType.BITMAP_PORT, "Kubernetes nodeport UDP port for masquerade purpose"
)
NODE_PORT_LOCAL_UDP = SetKind(
    "KUBE-NODE-PORT-LOCAL-UDP",
    SetType.BITMAP_PORT,
    "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
)
NODE_PORT_SCTP = SetKind(
    "KUBE-NODE-PORT-SCTP-HASH",
    SetType.HASH_IP_PORT,
    "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
)
NODE_PORT_LOCAL_SCTP = SetKind(
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
    SetType.HASH_IP_PORT,
    "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
)
HEALTH_CHECK_NODE_PORT = SetKind(
    "KUBE-HEALTH-CHECK-NODE-PORT", SetType.BITMAP_PORT, "Kubernetes health check node port"
)
IPVS_IPS = SetKind("KUBE-IPVS-IPS", SetType.HASH_IP, "Addresses on the ipvs interface")

SETS: Final = (
    LOOP_BACK, CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL, LOAD_BALANCER, LOAD_BALANCER_FW, LOAD_BALANCER_LOCAL,
    LOAD_BALANCER_SOURCE_IP, LOAD_BALANCER_SOURCE_CIDR, NODE_PORT_TCP, NODE_PORT_LOCAL_TCP, NODE_PORT_UDP,
    NODE_PORT_LOCAL_UDP, NODE_PORT_SCTP, NODE_PORT_LOCAL_SCTP, HEALTH_CHECK_NODE_PORT, IPVS_IPS,
)  # fmt: skip
"""All of them; they exist also when they are empty."""

NODE_PORTS: Final = {
    Protocol.TCP: (NODE_PORT_TCP, NODE_PORT_LOCAL_TCP),
    Protocol.UDP: (NODE_PORT_UDP, NODE_PORT_LOCAL_UDP),
    Protocol.SCTP: (NODE_PORT_SCTP, NODE_PORT_LOCAL_SCTP),
}
"""By protocol: the set of all NodePorts, and that of those whose external policy is Local."""


def ip_port(address: Address, protocol: Protocol, port: int, third: Address | Network | None = None) -> str:
    """An entry of an address, a port, and with `third` an address or a network."""
    text = f"{address},{protocol.lower()}:{port}"
    return text if third is None else f"{text},{third}"
