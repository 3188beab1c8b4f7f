"""What the routers of a cluster hold: their routes, what each is for and where it came from, their BGP sessions.

Gathers the API's Nodes, the topology, the routers' kernels and daemons, and leaves all judgement to `netkit.podnet`.
Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.cluster import cluster_topology, routing
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.topology import Machine, Role, Topology
from netkit.cluster.topology_layout import router_ways, subnet
from netkit.fabric.spec import namespace_name
from netkit.kernel import bird, rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import open_namespace
from netkit.podnet.bgp import Session, sessions
from netkit.podnet.direct import node_address
from netkit.podnet.entries import Difference, Entry, differences
from netkit.podnet.paths import NoWay
from netkit.podnet.router_entries import RouterFacts, RouterRoute, described, expected, found

_API_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SessionView:
    """A BGP session. `neighbour` is the machine's name, "" for a stranger; `since` the time of day."""

    neighbour: str
    address: str
    asn: int
    state: str
    since: str
    imported: int
    exported: int


@dataclass(frozen=True, slots=True)
class RouterView:
    """A router as it is. `routes_by` is the cluster's `network.routes`; `problem` says why the daemon is silent."""

    router: str
    routes_by: str
    asn: int
    routes: tuple[RouterRoute, ...]
    sessions: tuple[SessionView, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RouterLook:
    """One router at one moment: what it should hold and what it holds."""

    name: str
    mode: str
    wanted: list[Entry]
    found: list[Entry]
    refused: tuple[NoWay, ...] = ()

    def differences(self) -> list[Difference]:
        """What is not as it should be."""
        return differences(self.wanted, self.found, self.refused)


@dataclass(frozen=True, slots=True)
class _Seen:
    facts: RouterFacts
    routes: list[rtnl_read.Route]
    links: dict[int, str]
    sessions: list[Session]
    problem: str


def routes(name: str, router: str = "", *, none_is_fine: bool = False) -> list[RouterView]:
    """All routers, or one. Raises KernelError, StatusError, and ClusterError when there is none of that name, or none
    at all unless `none_is_fine`.
    """
    profile = Profile(name)
    if none_is_fine and not cluster_topology.read(profile).of(Role.ROUTER):
        return []
    return asyncio.run(_routes(profile, router))


async def _routes(profile: Profile, router: str) -> list[RouterView]:
    facts, topology = profile.facts(), cluster_topology.read(profile)
    routers = topology.of(Role.ROUTER)
    if not routers:
        raise ClusterError(f"cluster {facts.name} has no routers", "see: netkit topology list")
    wanted = [machine for machine in routers if router in ("", machine.name)]
    if not wanted:
        raise ClusterError(
            f"cluster {facts.name} has no router {router}",
            f"there are: {', '.join(each.name for each in routers)}",
        )
    client = admin_client(profile, facts.server)
    try:
        async with asyncio.timeout(_API_SECONDS):
            nodes = (await client.list(NODE)).items
    finally:
        await client.close()
    return [_view(facts, machine, _see(profile, facts, topology, machine, nodes)) for machine in wanted]


def looks(
    profile: Profile, facts: ClusterFacts, topology: Topology, nodes: Sequence[Object]
) -> list[RouterLook]:
    """All routers as they are now. Raises KernelError."""
    result = []
    for machine in topology.of(Role.ROUTER):
        seen = _see(profile, facts, topology, machine, nodes)
        # BIRD remembers who has called once; a node that left, or has another address now, will not call again.
        known = [
            each for each in seen.sessions if each.established or each.neighbour in seen.facts.neighbours
        ]
        there = found(seen.routes, seen.links, known)
        result.append(RouterLook(machine.name, f"routes {facts.routes}", expected(seen.facts), there))
    return result


def _see(
    profile: Profile, cluster: ClusterFacts, topology: Topology, machine: Machine, nodes: Sequence[Object]
) -> _Seen:
    learned = cluster.routes == "bgp"
    router = router_ways(topology, machine)
    neighbours = {
        each.address: f"router {_owner(topology, each.address)}"
        for each in routing.speaker(topology, machine).neighbours
        if isinstance(each.address, IPv4Address)
    }
    for node in nodes:
        address = node_address(node)
        if address is not None and any(address in network for network in router.networks):
            neighbours[address] = f"node {node['metadata']['name']}"
    facts = RouterFacts(
        router,
        IPv4Network(cluster.pod_subnet),
        {subnet(topology, segment.name): segment.name for segment in topology.segments},
        nodes,
        know=cluster.routes != "none",
        learned=learned,
        neighbours=neighbours,
    )
    with open_namespace(namespace_name(cluster.name, machine.name)) as ns:
        there = rtnl_read.routes(ns)
        links = {link.index: link.name for link in rtnl_read.links(ns).values()}
    told: list[Session] = []
    problem = ""
    if learned:
        try:
            told = sessions(bird.ask(routing.control_socket(profile, machine.name), "show protocols all"))
        except KernelError as error:
            problem = str(error)
    return _Seen(facts, there, links, told, problem)


def _view(cluster: ClusterFacts, machine: Machine, seen: _Seen) -> RouterView:
    return RouterView(
        machine.name,
        cluster.routes,
        machine.asn if seen.facts.learned else 0,
        tuple(described(seen.facts, seen.routes, seen.links)),
        tuple(_session(seen, each) for each in seen.sessions) + _absent(seen),
        seen.problem,
    )


def _session(seen: _Seen, told: Session) -> SessionView:
    name = seen.facts.neighbours.get(told.neighbour, "").partition(" ")[2]
    return SessionView(
        name, str(told.neighbour), told.asn, told.state, told.since, told.imported, told.exported
    )


def _absent(seen: _Seen) -> tuple[SessionView, ...]:
    """Neighbours that there should be and that the daemon knows nothing of: nodes that do not call."""
    known = {each.neighbour for each in seen.sessions}
    neighbours = seen.facts.neighbours.items() if seen.facts.learned else ()
    return tuple(
        SessionView(name.partition(" ")[2], str(address), 0, "none", "", 0, 0)
        for address, name in neighbours
        if address not in known
    )


def _owner(topology: Topology, address: IPv4Address) -> str:
    return next(
        (m.name for m in topology.machines if any(each.address == address for each in m.interfaces)),
        str(address),
    )
