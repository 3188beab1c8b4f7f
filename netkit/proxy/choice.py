"""Which endpoints a service port leads to on one node: the cluster list, the local list, and what if none.

Shared by all back ends and by everything that explains a flow. Pure functions of values.
Semantics of kube-proxy 1.33 (`pkg/proxy/topology.go`): readiness with fallback to draining endpoints,
topology hints, traffic policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from netkit.proxy.addresses import Address
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePort, TrafficPolicy


class Topology(StrEnum):
    """How far hints narrowed the cluster list."""

    CLUSTER = "cluster"
    ZONE = "zone"
    NODE = "node"


class Verdict(StrEnum):
    """What happens to a connection: translated to an endpoint, refused by ICMP, or met with silence."""

    FORWARD = "forward"
    REJECT = "reject"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class NodeView:
    """This node as the choice needs it. `zone` is empty without the topology label; `addresses` are its
    primary addresses (one per family).
    """

    name: str
    zone: str = ""
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The endpoints of one service port on one node.

    A list that no policy of the service asks for is empty. `reachable` is every endpoint of either list,
    once; `has_any` says that somewhere in the cluster an endpoint is usable, which tells refusal from
    silence.
    """

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    reachable: tuple[Endpoint, ...]
    has_any: bool
    topology: Topology

    def under(self, policy: TrafficPolicy) -> tuple[Endpoint, ...]:
        """The list a policy leads to."""
        return self.local if policy is TrafficPolicy.LOCAL else self.cluster

    def verdict(self, policy: TrafficPolicy) -> Verdict:
        """REJECT when there is no endpoint anywhere, DROP when there is one, but none for a Local policy."""
        if self.under(policy):
            return Verdict.FORWARD
        return Verdict.DROP if self.has_any else Verdict.REJECT


def choose(port: ServicePort, endpoints: Sequence[Endpoint], node: NodeView) -> Choice:
    """Sort out the endpoints of `port` as seen from `node`."""
    ready = tuple([endpoint for endpoint in endpoints if endpoint.ready])
    draining: tuple[Endpoint, ...] = ()
    if len(ready) < len(endpoints):
        draining = tuple([endpoint for endpoint in endpoints if endpoint.draining])
    topology = Topology.CLUSTER
    cluster: tuple[Endpoint, ...] = ()
    if port.uses_cluster_list:
        topology = topology_of(ready, node)
        cluster = _hinted(ready, node, topology) or draining
    local: tuple[Endpoint, ...] = ()
    if port.uses_local_list:
        local = _on_node(ready, node) or _on_node(draining, node)
    reachable = (
        cluster + tuple(endpoint for endpoint in local if endpoint not in cluster) if local else cluster
    )
    return Choice(cluster, local, reachable, bool(ready or draining), topology)


def topology_of(ready: Sequence[Endpoint], node: NodeView) -> Topology:
    """Whether hints apply. They do only when every ready endpoint has them and one names this node or zone.

    Unready endpoints have no say: they lose their hints first and would switch the whole feature off.
    """
    if not ready:
        return Topology.CLUSTER
    if _hints_name(node.name, [endpoint.node_hints for endpoint in ready]):
        return Topology.NODE
    if node.zone and _hints_name(node.zone, [endpoint.zone_hints for endpoint in ready]):
        return Topology.ZONE
    return Topology.CLUSTER


def _hints_name(wanted: str, hints: Sequence[frozenset[str]]) -> bool:
    return all(hints) and any(wanted in names for names in hints)


def _hinted(ready: tuple[Endpoint, ...], node: NodeView, topology: Topology) -> tuple[Endpoint, ...]:
    match topology:
        case Topology.NODE:
            return tuple(endpoint for endpoint in ready if node.name in endpoint.node_hints)
        case Topology.ZONE:
            return tuple(endpoint for endpoint in ready if node.zone in endpoint.zone_hints)
        case Topology.CLUSTER:
            return ready


def _on_node(endpoints: tuple[Endpoint, ...], node: NodeView) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.node and endpoint.node == node.name)
