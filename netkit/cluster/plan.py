"""Where everything of a cluster gets its address: configuration in, numbers out. Pure.

On the segment: .1 is the machine that runs it all, .2 the control plane, .9 the outside client, .11 and up the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from netkit.cluster.config import ClusterConfig
from netkit.cluster.profile import MachineFacts
from netkit.cluster.roster import FIRST_NODE, NodeRecord, Roster
from netkit.fabric.spec import SWITCH, FabricSpec, MachineSpec, host_link_name, namespace_name

CONTROL_PLANE: Final = "control-plane"
CLIENT: Final = "client"
API_PORT: Final = 6443
"""Port of the API on the segment."""

KUBELET_PORT: Final = 10250
_HOST, _CONTROL_PLANE, _CLIENT = 1, 2, 9


@dataclass(frozen=True, slots=True)
class Plan:
    """The configuration with all choices made. `api_port` is the loopback's.

    `roster` has the nodes of a cluster that runs; None: those it begins with.
    """

    config: ClusterConfig
    segment: IPv4Network
    api_port: int
    roster: Roster | None = None

    def _at(self, number: int) -> IPv4Interface:
        return IPv4Interface((self.segment[number], self.segment.prefixlen))

    @property
    def control_plane(self) -> IPv4Address:
        return self._at(_CONTROL_PLANE).ip

    @property
    def nodes(self) -> dict[str, IPv4Address]:
        """Node names to their addresses on the segment."""
        return {node.name: node.address for node in self.current().nodes}

    def current(self) -> Roster:
        """The nodes as they are now, or shall be at first."""
        if self.roster is not None:
            return self.roster
        return Roster(
            tuple(
                NodeRecord(name, self._at(FIRST_NODE + index).ip)
                for index, name in enumerate(self.config.node_names())
            )
        )

    def with_roster(self, roster: Roster) -> Plan:
        """The plan with these nodes."""
        return replace(self, roster=roster)

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
        machines = [
            MachineSpec(CONTROL_PLANE, self._at(_CONTROL_PLANE)),
            MachineSpec(CLIENT, self._at(_CLIENT)),
        ]
        machines += [
            MachineSpec(name, IPv4Interface((ip, self.segment.prefixlen))) for name, ip in self.nodes.items()
        ]
        return FabricSpec(
            cluster=self.config.name,
            segment=self.segment,
            mtu=self.config.network.mtu,
            machines=tuple(machines),
            host_address=self._at(_HOST),
            host_link=host_link_name(self.config.name),
            unplugged=self.current().unplugged,
        )

    def machines(self) -> tuple[MachineFacts, ...]:
        """The machines in the order a person wants to read them."""
        roles = {CONTROL_PLANE: "control-plane", CLIENT: "outside client"}
        spec = self.fabric()
        facts = [
            MachineFacts(
                m.name, roles.get(m.name, "node"), namespace_name(spec.cluster, m.name), str(m.address.ip)
            )
            for m in spec.machines
        ]
        facts.sort(key=lambda machine: list(roles).index(machine.name) if machine.name in roles else -1)
        nodes = [machine for machine in facts if machine.role == "node"]
        others = [machine for machine in facts if machine.role != "node"]
        switch = MachineFacts(SWITCH, "switch", namespace_name(spec.cluster, SWITCH), "")
        return (others[0], *nodes, *others[1:], switch)
