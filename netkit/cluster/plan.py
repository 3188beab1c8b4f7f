"""Where everything of a cluster gets its address: configuration in, numbers out. Pure.

Without a topology everything is on one segment: .1 is the machine that runs it all, .2 the control plane, .9 the
outside client, .11 and up the nodes. `topology_layout` says how it is with one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netkit.cluster.config import ClusterConfig, RouteSource
from netkit.cluster.profile import MachineFacts
from netkit.cluster.roster import NodeRecord, Roster
from netkit.cluster.topology import CLIENT, CONTROL_PLANE, Machine, Role, Topology, plain
from netkit.cluster.topology_layout import (
    address_of,
    fabric,
    gateway,
    path_mtu,
    place,
    router_ways,
    with_nodes,
)
from netkit.fabric.spec import SWITCH, FabricSpec, namespace_name
from netkit.podnet.router_routes import Router
from netkit.podnet.underlay import Underlay

__all__ = ["API_PORT", "CLIENT", "CONTROL_PLANE", "KUBELET_PORT", "Plan"]

API_PORT: Final = 6443
"""Port of the API on the segment."""

KUBELET_PORT: Final = 10250
_IN_ORDER: Final = (Role.CONTROL_PLANE, Role.NODE, Role.CLIENT, Role.ROUTER)
"""In which a person wants to read of machines."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The configuration with all choices made. `segment` is the range for all segments that the configuration gives
    none, `api_port` the loopback's. `roster` has the nodes of a cluster that runs; None: those it begins with.
    `netem`: the kernel has it, for what cables do to packets.
    """

    config: ClusterConfig
    segment: IPv4Network
    api_port: int
    roster: Roster | None = None
    netem: bool = False

    @property
    def topology(self) -> Topology:
        """With all addresses."""
        config = self.config
        first = place(config.topology or plain(config.node_names(), config.network.mtu), self.segment)
        if self.roster is None:
            return first
        return with_nodes(first, {node.name: node.address for node in self.roster.nodes})

    def current(self) -> Roster:
        """The nodes as they are now, or shall be at first."""
        return self.roster or Roster(tuple(NodeRecord(*pair) for pair in self.nodes.items()))

    def with_roster(self, roster: Roster) -> Plan:
        """The plan with these nodes."""
        return replace(self, roster=roster)

    @property
    def control_plane(self) -> IPv4Address:
        return address_of(self.topology.of(Role.CONTROL_PLANE)[0])

    @property
    def nodes(self) -> dict[str, IPv4Address]:
        """Node names to their addresses."""
        return {machine.name: address_of(machine) for machine in self.topology.of(Role.NODE)}

    @property
    def routers(self) -> tuple[Machine, ...]:
        return self.topology.of(Role.ROUTER)

    @property
    def learned(self) -> bool:
        """Whether machines learn from each other, by BGP, which way leads where."""
        return bool(self.routers) and self.config.network.routes is RouteSource.BGP

    def underlay(self, name: str) -> Underlay:
        """What node `name` has to know of the network between the nodes."""
        topology = self.topology
        machine = topology.machine(name)
        return Underlay(gateway(topology, machine), path_mtu(topology, machine), self.learned)

    def router_ways(self) -> tuple[Router, ...]:
        """The routers, and which way leads where from each."""
        return tuple(router_ways(self.topology, router) for router in self.routers)

    @property
    def routers_know(self) -> bool:
        """Whether there are routers and they know which node has which pods."""
        return bool(self.routers) and self.config.network.routes is not RouteSource.NONE

    def node_labels(self, name: str) -> dict[str, str]:
        """The labels that the topology gives to node `name`."""
        topology = self.topology
        machine = topology.machine(name)
        zone = next((each for each in topology.zones if each.name == machine.zone), None)
        found = dict(machine.labels)
        if zone is not None:
            found["topology.kubernetes.io/zone"] = zone.name
            if zone.region:
                found["topology.kubernetes.io/region"] = zone.region
        return found

    @property
    def kubernetes_service(self) -> IPv4Address:
        """Cluster address of the API: the first of the Service range."""
        return self.config.network.service_subnet[1]

    @property
    def cluster_dns(self) -> IPv4Address:
        """Cluster address pods are told to ask for names: the tenth of the Service range."""
        return self.config.network.service_subnet[10]

    @property
    def server(self) -> str:
        """The API as programs on this machine reach it."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def inside_server(self) -> str:
        """The API as machines of the cluster reach it."""
        return f"https://{self.control_plane}:{API_PORT}"

    def fabric(self) -> FabricSpec:
        made = fabric(self.topology, self.config.name, learned=self.learned)
        return replace(made, unplugged=self.current().unplugged)

    def machines(self) -> tuple[MachineFacts, ...]:
        """The machines in the order a person wants to read them."""
        cluster = self.config.name
        found = [
            MachineFacts(
                machine.name, machine.role, namespace_name(cluster, machine.name), str(address_of(machine))
            )
            for role in _IN_ORDER
            for machine in self.topology.of(role)
        ]
        return (*found, MachineFacts(SWITCH, "switch", namespace_name(cluster, SWITCH), ""))
