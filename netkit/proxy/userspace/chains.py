"""Names of the chains of kube-proxy's userspace mode, and the jumps that lead into them. Pure.

Names, comments and places are those of Kubernetes up to 1.25 (`pkg/proxy/userspace/proxier.go`).
"""

from __future__ import annotations

from dataclasses import dataclass

PORTALS_CONTAINER = "KUBE-PORTALS-CONTAINER"
PORTALS_HOST = "KUBE-PORTALS-HOST"
NODE_PORT_CONTAINER = "KUBE-NODEPORT-CONTAINER"
NODE_PORT_HOST = "KUBE-NODEPORT-HOST"
NODE_PORT_NON_LOCAL = "KUBE-NODEPORT-NON-LOCAL"

CHAINS = {
    PORTALS_CONTAINER: "nat",
    PORTALS_HOST: "nat",
    NODE_PORT_CONTAINER: "nat",
    NODE_PORT_HOST: "nat",
    NODE_PORT_NON_LOCAL: "filter",
}
"""All chains, with their tables, in the order in which packets meet them."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule of a built-in chain that leads into one of ours. `match` is what stands before its target."""

    source: str
    target: str
    match: str
    first: bool
    """Whether it is put at the top of its chain; else it comes last."""

    @property
    def table(self) -> str:
        return CHAINS[self.target]

    @property
    def rule(self) -> str:
        """The rule without its chain, as iptables-save prints it."""
        return f"{self.match} -j {self.target}"


_PORTALS = '-m comment --comment "handle ClusterIPs; NOTE: this must be before the NodePort rules"'
_NODE_PORTS = (
    "-m addrtype --dst-type LOCAL "
    '-m comment --comment "handle service NodePorts; NOTE: this must be the last rule in the chain"'
)
_NON_LOCAL = '-m comment --comment "Ensure that non-local NodePort traffic can flow"'

JUMPS = (
    Jump("PREROUTING", PORTALS_CONTAINER, _PORTALS, first=True),
    Jump("PREROUTING", NODE_PORT_CONTAINER, _NODE_PORTS, first=False),
    Jump("OUTPUT", PORTALS_HOST, _PORTALS, first=True),
    Jump("OUTPUT", NODE_PORT_HOST, _NODE_PORTS, first=False),
    Jump("INPUT", NODE_PORT_NON_LOCAL, _NON_LOCAL, first=True),
)
