"""Names of kube-proxy's iptables chains, and the jumps that lead into them.

Every cluster of the world shows the same names for the same Service, so greps and books fit. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePortName

SERVICES = "KUBE-SERVICES"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
FIREWALL = "KUBE-FIREWALL"
CANARY = "KUBE-PROXY-CANARY"

CANARY_TABLES = ("mangle", "nat", "filter")
FILTER_CHAINS = (SERVICES, EXTERNAL_SERVICES, FORWARD, NODE_PORTS, PROXY_FIREWALL)
NAT_CHAINS = (SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ)

_SERVICE_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
_FIXED = frozenset({*FILTER_CHAINS, *NAT_CHAINS, FIREWALL, CANARY})


def is_service_chain(chain: str) -> bool:
    """Whether the chain belongs to a service port, i.e. is ours to delete once no service needs it."""
    return chain.startswith(_SERVICE_PREFIXES)


def is_ours(chain: str) -> bool:
    """Whether a kube-proxy makes chains of this name."""
    return chain in _FIXED or is_service_chain(chain)


@dataclass(frozen=True, slots=True)
class PortChains:
    """The chains of one service port: cluster list, local list, external addresses, source range firewall."""

    cluster: str
    local: str
    external: str
    firewall: str


def port_chains(name: ServicePortName) -> PortChains:
    """The names for a service port: a prefix and 16 characters of a hash of name and protocol."""
    digest = _digest(name.text + name.protocol.lower())
    return PortChains(f"KUBE-SVC-{digest}", f"KUBE-SVL-{digest}", f"KUBE-EXT-{digest}", f"KUBE-FW-{digest}")


def endpoint_chain(name: ServicePortName, endpoint: Endpoint) -> str:
    """The name for one endpoint of a service port."""
    return f"KUBE-SEP-{_digest(name.text + name.protocol.lower() + endpoint.target)}"


_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = [high + low for high in _BASE32 for low in _BASE32]
"""Two characters of base32 for every ten bits."""


def _digest(text: str) -> str:
    """The first 16 characters of the base32 of a sha256, which are its first 80 bits.

    Written out because every endpoint of the cluster passes here, and `base64` is ten times slower.
    """
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10])
    pairs = _PAIRS
    return (
        pairs[bits >> 70]
        + pairs[bits >> 60 & 1023]
        + pairs[bits >> 50 & 1023]
        + pairs[bits >> 40 & 1023]
        + pairs[bits >> 30 & 1023]
        + pairs[bits >> 20 & 1023]
        + pairs[bits >> 10 & 1023]
        + pairs[bits & 1023]
    )


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a built-in chain that leads into one of ours."""

    table: str
    source: str
    target: str
    comment: str = ""
    only_new: bool = False

    @property
    def rule(self) -> str:
        """The rule without its chain, as iptables-save prints it."""
        state = "-m conntrack --ctstate NEW " if self.only_new else ""
        comment = f'-m comment --comment "{self.comment}" ' if self.comment else ""
        return f"{state}{comment}-j {self.target}"


_PORTALS = "kubernetes service portals"
_EXTERNAL_PORTALS = "kubernetes externally-visible service portals"
_BALANCER_FIREWALL = "kubernetes load balancer firewall"

JUMPS = (
    Jump("filter", "INPUT", EXTERNAL_SERVICES, _EXTERNAL_PORTALS, only_new=True),
    Jump("filter", "FORWARD", EXTERNAL_SERVICES, _EXTERNAL_PORTALS, only_new=True),
    Jump("filter", "INPUT", NODE_PORTS, "kubernetes health check service ports"),
    Jump("filter", "FORWARD", SERVICES, _PORTALS, only_new=True),
    Jump("filter", "OUTPUT", SERVICES, _PORTALS, only_new=True),
    Jump("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    Jump("filter", "INPUT", PROXY_FIREWALL, _BALANCER_FIREWALL, only_new=True),
    Jump("filter", "OUTPUT", PROXY_FIREWALL, _BALANCER_FIREWALL, only_new=True),
    Jump("filter", "FORWARD", PROXY_FIREWALL, _BALANCER_FIREWALL, only_new=True),
    Jump("nat", "OUTPUT", SERVICES, _PORTALS),
    Jump("nat", "PREROUTING", SERVICES, _PORTALS),
    Jump("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    Jump("filter", "INPUT", FIREWALL),
    Jump("filter", "OUTPUT", FIREWALL),
)
"""In the order of insertion: each goes to the top of its chain, so the last one is met first. Those into KUBE-FIREWALL
are the kubelet's as well.
"""
