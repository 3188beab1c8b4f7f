"""What becomes of one connection to a service address: the table of the Service semantics as a function.

Back ends make the kernel behave so; tests and explanations ask this. Pure; no rules, no chains.
Describes the iptables and nftables modes (ipvs differs for external Local).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netkit.proxy.addresses import Address
from netkit.proxy.choice import Choice, NodeView, Verdict
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePort, TrafficPolicy


class Destination(StrEnum):
    """Which kind of address of the Service was called."""

    CLUSTER_IP = "cluster IP"
    NODE_PORT = "node port"
    EXTERNAL_IP = "external IP"
    LOAD_BALANCER = "load balancer IP"


class Caller(StrEnum):
    """Who called, as the node that translates the connection sees it.

    POD is what the local detector takes for a pod; without a detector pods are OUTSIDE.
    """

    OUTSIDE = "outside"
    POD = "pod"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Flow:
    """The fate of a connection. `masqueraded` says whether the endpoint sees the node instead of the client;
    an endpoint that reaches itself is masqueraded whatever it says (see `masquerades`).
    """

    verdict: Verdict
    endpoints: tuple[Endpoint, ...] = ()
    masqueraded: bool = False

    def masquerades(self, source: Address, endpoint: Endpoint) -> bool:
        """Whether the source is rewritten once `endpoint` is picked: hairpin traffic always is."""
        return self.masqueraded or source == endpoint.address


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """What of the proxy's configuration decides over masquerading."""

    masquerade_all: bool = False
    detects_local: bool = True


def answer(
    port: ServicePort,
    choice: Choice,
    destination: Destination,
    caller: Caller,
    source: Address,
    node: NodeView,
    settings: FlowSettings,
) -> Flow:
    """The fate of a connection of `caller` from `source` to `port` by way of `destination` on `node`.

    It is what the Service asks for. The iptables mode, as kube-proxy's, has no rule in OUTPUT that refuses the node's
    own calls of external addresses without endpoints: they leave the node (`explain.fate.unruled`).
    """
    if destination is Destination.CLUSTER_IP:
        masqueraded = settings.masquerade_all or (settings.detects_local and caller is not Caller.POD)
        return _under(choice, port.internal_policy, masqueraded)
    if destination is Destination.LOAD_BALANCER and choice.has_any and not admitted(port, source, node):
        return Flow(Verdict.DROP)
    if not port.external_local:
        return _under(choice, TrafficPolicy.CLUSTER, True)
    if caller is Caller.POD:
        return _under(choice, TrafficPolicy.CLUSTER, False)
    if caller is Caller.NODE:
        return _under(choice, TrafficPolicy.CLUSTER, True)
    return _under(choice, TrafficPolicy.LOCAL, False)


def admitted(port: ServicePort, source: Address, node: NodeView) -> bool:
    """Whether the source ranges let `source` call the load balancer addresses.

    When this node itself is inside a range, the load balancer's own address is as well: a node that owns the
    address talks to it from it.
    """
    if not port.source_ranges or any(source in network for network in port.source_ranges):
        return True
    return node_admitted(port, node) and source in port.load_balancer_ips


def node_admitted(port: ServicePort, node: NodeView) -> bool:
    """Whether this node's own address lies in one of the source ranges."""
    return any(address in network for network in port.source_ranges for address in node.addresses)


def _under(choice: Choice, policy: TrafficPolicy, masqueraded: bool) -> Flow:
    verdict = choice.verdict(policy)
    if verdict is not Verdict.FORWARD:
        return Flow(verdict)
    return Flow(verdict, choice.under(policy), masqueraded)
