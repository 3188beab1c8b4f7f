"""What one service port needs in the kernel in IPVS mode: virtual servers, entries of sets, addresses to own.

Called by `book`, which adds up the plans of all ports. Pure: values in, values out. Layout and choice of endpoints
are those of kube-proxy 1.33 (`pkg/proxy/ipvs/proxier.go`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from netkit.kernel.ipvs_values import SOURCE_HASH_PORT, ServerKey, Target, Transport, VirtualServer
from netkit.proxy.addresses import Address
from netkit.proxy.choice import Choice, NodeView
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.flows import node_admitted
from netkit.proxy.ipvs import sets
from netkit.proxy.ipvs.sets import SetKind, ip_port
from netkit.proxy.services import Protocol, ServicePort

TRANSPORTS: Final = {
    Protocol.TCP: Transport.TCP,
    Protocol.UDP: Transport.UDP,
    Protocol.SCTP: Transport.SCTP,
}


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The node's own addresses. `local`: all that do not count as service addresses, i.e. those of other devices
    than kube-ipvs0 without loopback and link-local ones; `node_ports`: those of them on which NodePorts answer.
    """

    local: frozenset[Address] = frozenset()
    node_ports: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """A virtual server and the real servers that shall be behind it, each with weight 1."""

    server: VirtualServer
    targets: frozenset[Target]


@dataclass(frozen=True, slots=True)
class PortPlan:
    """All that one service port needs. `kept_from_node` are the load balancer addresses the node may not call."""

    servers: tuple[ServerPlan, ...] = ()
    entries: frozenset[tuple[SetKind, str]] = frozenset()
    bound: frozenset[Address] = frozenset()
    kept_from_node: tuple[Address, ...] = ()


def plan_port(
    port: ServicePort,
    endpoints: Sequence[Endpoint],
    choice: Choice,
    node: NodeView,
    network: NodeNetwork,
    scheduler: str,
) -> PortPlan:
    """The plan of `port`; `choice` is what `choose` makes of `endpoints`."""
    return _Planning(port, endpoints, choice, node, network, scheduler).plan()


class _Planning:
    """The making of one plan; holds what every step needs."""

    def __init__(
        self,
        port: ServicePort,
        endpoints: Sequence[Endpoint],
        choice: Choice,
        node: NodeView,
        network: NodeNetwork,
        scheduler: str,
    ) -> None:
        self.port = port
        self.endpoints = endpoints
        self.node = node
        self.network = network
        self.scheduler = scheduler
        self.cluster = _targets(choice.cluster)
        # One virtual server serves pods, nodes and the world alike. With a Local policy and nothing here, it leads
        # to other nodes rather than nowhere, for the sake of the pods.
        self.local = _targets(choice.local or choice.cluster)
        self.external_targets = self.local if port.external_local else self.cluster

    def plan(self) -> PortPlan:
        servers: dict[ServerKey, ServerPlan] = {}
        for plan in self._servers():
            servers.setdefault(plan.server.key, plan)
        bound = {self.port.cluster_ip, *self._foreign(self.port.external_ips)}
        bound.update(self._foreign(self.port.load_balancer_ips))
        return PortPlan(
            tuple(servers.values()),
            frozenset(self._entries()),
            frozenset(bound),
            tuple(self._kept_from_node()),
        )

    def _servers(self) -> Iterator[ServerPlan]:
        port = self.port
        internal = self.local if port.internal_local else self.cluster
        yield self._server(port.cluster_ip, port.port, internal)
        for address in (*port.external_ips, *port.load_balancer_ips):
            yield self._server(address, port.port, self.external_targets)
        if port.node_port:
            for address in self.network.node_ports:
                yield self._server(address, port.node_port, self.external_targets)

    def _server(self, address: Address, number: int, targets: frozenset[Target]) -> ServerPlan:
        key = ServerKey(address, number, TRANSPORTS[self.port.protocol])
        flags = SOURCE_HASH_PORT if self.scheduler == "mh" else 0
        return ServerPlan(VirtualServer(key, self.scheduler, self.port.affinity_seconds or 0, flags), targets)

    def _foreign(self, addresses: Sequence[Address]) -> Iterator[Address]:
        """Addresses that the node does not have anyway, and so must get on kube-ipvs0."""
        return (address for address in addresses if address not in self.network.local)

    def _entries(self) -> Iterator[tuple[SetKind, str]]:
        port = self.port
        for endpoint in self.endpoints:
            if endpoint.node and endpoint.node == self.node.name:
                address = endpoint.address
                yield sets.LOOP_BACK, ip_port(address, port.protocol, endpoint.port, address)
        yield sets.CLUSTER_IP, ip_port(port.cluster_ip, port.protocol, port.port)
        for address in port.external_ips:
            kind = sets.EXTERNAL_IP_LOCAL if port.external_local else sets.EXTERNAL_IP
            yield kind, ip_port(address, port.protocol, port.port)
        for address in port.load_balancer_ips:
            yield from self._load_balancer(address)
        if port.node_port and self.network.node_ports:
            yield from self._node_port()
        if port.health_check_port:
            yield sets.HEALTH_CHECK_NODE_PORT, str(port.health_check_port)

    def _load_balancer(self, address: Address) -> Iterator[tuple[SetKind, str]]:
        port = self.port
        entry = ip_port(address, port.protocol, port.port)
        yield sets.LOAD_BALANCER, entry
        if port.external_local:
            yield sets.LOAD_BALANCER_LOCAL, entry
        if not port.source_ranges:
            return
        yield sets.LOAD_BALANCER_FW, entry
        for network in port.source_ranges:
            yield sets.LOAD_BALANCER_SOURCE_CIDR, ip_port(address, port.protocol, port.port, network)
        if node_admitted(port, self.node):
            yield sets.LOAD_BALANCER_SOURCE_IP, ip_port(address, port.protocol, port.port, address)

    def _node_port(self) -> Iterator[tuple[SetKind, str]]:
        port = self.port
        kinds = sets.NODE_PORTS[port.protocol][: 2 if port.external_local else 1]
        for kind in kinds:
            if port.protocol is Protocol.SCTP:
                for address in self.network.node_ports:
                    yield kind, ip_port(address, port.protocol, port.node_port)
            else:
                yield kind, str(port.node_port)

    def _kept_from_node(self) -> Iterator[Address]:
        if self.port.source_ranges and not node_admitted(self.port, self.node):
            yield from self.port.load_balancer_ips


def _targets(endpoints: Sequence[Endpoint]) -> frozenset[Target]:
    return frozenset(Target(endpoint.address, endpoint.port) for endpoint in endpoints)
