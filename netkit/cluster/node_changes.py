"""`netkit node add`, `remove`, `stop`, `start`, `readdress`: machines that come, go and move while the cluster works.

The keepers do the work (`membership`); here is asked for it, and waited until the API has it too. Who is interrupted,
or fails, asks for what was before. What the API's client needs is imported while the keepers work already.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import TYPE_CHECKING

from netkit.cluster import cluster_topology
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.roster import MAX_NODES, NodeRecord, NodeState, Roster, free_addresses, free_names
from netkit.cluster.roster_request import ask, node_of, read_roster, uninterrupted
from netkit.cluster.topology import Role, Segment, Topology

if TYPE_CHECKING:
    from controlplane.client.client import Client

_READY_SECONDS = 60.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What became of a node, and how long that took."""

    node: str
    address: str
    what: str
    seconds: float


Report = Callable[[NodeChange], None]
Progress = Callable[[str], None]


def add(cluster: str, name: str, count: int, report: Report, segment: str = "") -> list[NodeChange]:
    """Add a node of that name ("": the next free one), or several; returns when they are Ready.

    `segment` is where they are ("": where the first node is); they are in the zone of the nodes there. Raises
    ClusterError; then none of them is left.
    """
    profile = Profile(cluster)
    with _changing(profile) as (facts, roster):
        fresh = _new_nodes(profile, facts, roster, name, count, segment)
        began = _Clock()
        try:
            ask(profile, roster.with_nodes(fresh))
            changes = _until_ready(profile, facts, fresh, began, "joined", report)
        except BaseException:
            with uninterrupted():
                names = [node.name for node in fresh]
                ask(profile, roster.without(names))
                _forget(profile, facts, names)
            raise
    return changes


def remove(
    cluster: str, names: Sequence[str], *, force: bool, seconds: float, progress: Progress, report: Report
) -> list[NodeChange]:
    """Remove nodes for good, with all that is on them. Unless `force`, their pods are evicted first (`drain`), but for
    those of nodes that are stopped, which nobody can tell to go. What an earlier removal left is removed as well.

    Raises ClusterError; nodes that could not be drained stay as they are.
    """
    profile = Profile(cluster)
    with _changing(profile) as (facts, roster):
        gone = list(dict.fromkeys(names))
        for name in gone:
            if not _is_left(profile, facts, name):
                node_of(profile, roster, name)
        if not set(roster.names()) - set(gone):
            raise ClusterError(
                f"{' and '.join(gone)}: a cluster needs one node at least",
                f"remove the whole cluster: netkit down -p {cluster}",
            )
        began = _Clock()
        running = [
            node.name for node in roster.nodes if node.name in gone and node.state is NodeState.RUNNING
        ]
        if running and not force:
            _drain(profile, facts, running, seconds, progress)
        with uninterrupted():
            ask(profile, roster.without(gone))
            _forget(profile, facts, gone)
        addresses = {machine.name: machine.address for machine in facts.machines}
        changes = [NodeChange(name, addresses.get(name, ""), "gone", began.seconds()) for name in gone]
    for change in changes:
        report(change)
    return changes


def stop(cluster: str, name: str) -> NodeChange:
    """Pull a node's plugs: its processes die at once and its cable goes dead. Nobody is told. Raises ClusterError."""
    profile = Profile(cluster)
    with _changing(profile) as (_, roster):
        node = node_of(profile, roster, name)
        if node.state is NodeState.STOPPED:
            raise ClusterError(f"node {name} is stopped already", f"start it: netkit node start {name}")
        began = _Clock()
        with uninterrupted():
            ask(profile, roster.with_nodes([replace(node, state=NodeState.STOPPED)]))
        return NodeChange(name, str(node.address), "stopped", began.seconds())


def start(cluster: str, name: str, report: Report) -> NodeChange:
    """Start a stopped node again; returns when it is Ready. Raises ClusterError."""
    profile = Profile(cluster)
    with _changing(profile) as (facts, roster):
        node = node_of(profile, roster, name)
        if node.state is NodeState.RUNNING:
            raise ClusterError(f"node {name} runs already")
        began = _Clock()
        running = replace(node, state=NodeState.RUNNING)
        ask(profile, roster.with_nodes([running]))
        return _until_ready(profile, facts, [running], began, "started", report)[0]


def readdress(cluster: str, name: str, address: IPv4Address, report: Report) -> NodeChange:
    """Give a node another address on the segment while its pods go on; returns when it is Ready with it.

    Raises ClusterError; then it has its old one.
    """
    profile = Profile(cluster)
    with _changing(profile) as (facts, roster):
        node = node_of(profile, roster, name)
        _check_address(cluster_topology.read(profile), name, address)
        if node.state is NodeState.STOPPED:
            raise ClusterError(f"node {name} is stopped", f"start it first: netkit node start {name}")
        began = _Clock()
        moved = replace(node, address=address)
        try:
            ask(profile, roster.with_nodes([replace(node, state=NodeState.MOVING)]))
            ask(profile, roster.with_nodes([moved]))
            return _until_ready(profile, facts, [moved], began, "moved", report)[0]
        except BaseException:
            with uninterrupted():
                ask(profile, roster.with_nodes([replace(node, state=NodeState.MOVING)]))
                ask(profile, roster)
            raise


class _Clock:
    """When a change began: for people, and to tell a node's new signs of life from its old ones."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)
        self._began = time.monotonic()

    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)


@contextmanager
def _changing(profile: Profile) -> Iterator[tuple[ClusterFacts, Roster]]:
    """The cluster, for one command at a time. Raises NoSuchCluster, and ClusterError while another one changes it."""
    read_roster(profile)
    with profile.lock():
        yield read_roster(profile)


def _new_nodes(
    profile: Profile, facts: ClusterFacts, roster: Roster, name: str, count: int, segment: str
) -> list[NodeRecord]:
    if count < 1 or len(roster.nodes) + count > MAX_NODES:
        raise ClusterError(
            f"{count} more node(s) cannot be added: there are {len(roster.nodes)}, at most {MAX_NODES} are possible"
        )
    if name and count > 1:
        raise ClusterError("a name goes with one node only", "leave the name or --count out")
    if name:
        _check_name(profile, facts, name)
    machines = [machine.name for machine in facts.machines]
    names = [name] if name else list(islice(free_names(roster, machines), count))
    topology = cluster_topology.read(profile)
    network = _subnet(_segment(topology, segment or _first_segment(topology)))
    addresses = list(islice(free_addresses(network, set(_taken_addresses(topology))), count))
    if len(addresses) < count:
        raise ClusterError(f"segment {network} has no address left for another node")
    return [NodeRecord(*pair) for pair in zip(names, addresses, strict=True)]


def _check_name(profile: Profile, facts: ClusterFacts, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} cannot be a node's name", "use up to 40 lower-case letters, digits and dashes"
        )
    if facts.machine(name) is not None:
        raise ClusterError(f"cluster {profile.name} has a machine {name} already")
    ours = (
        profile.pki / f"{name}.crt",
        profile.pki / f"{name}-kubelet.crt",
        profile.ledger / f"{name}.jsonl",
    )
    if name == "host" or any(path.exists() for path in ours):
        raise ClusterError(f"the name {name} is taken by a part of the cluster", "choose another")


def _first_segment(topology: Topology) -> str:
    """The segment that the first node is on."""
    return topology.of(Role.NODE)[0].interfaces[0].segment


def _segment(topology: Topology, name: str) -> Segment:
    found = next((segment for segment in topology.segments if segment.name == name), None)
    if found is None:
        names = ", ".join(segment.name for segment in topology.segments)
        raise ClusterError(f"there is no segment {name}", f"there are: {names}")
    return found


def _subnet(segment: Segment) -> IPv4Network:
    assert segment.subnet is not None, "the topology of a cluster that is up has all its ranges"
    return segment.subnet


def _taken_addresses(topology: Topology) -> dict[IPv4Address, str]:
    """Who has which address."""
    return {
        interface.address: "this machine" if machine.role is Role.HOST else machine.name
        for machine in topology.machines
        for interface in machine.interfaces
        if interface.address is not None
    }


def _check_address(topology: Topology, name: str, address: IPv4Address) -> None:
    on = topology.machine(name).interfaces[0].segment
    segment = _subnet(_segment(topology, on))
    if address not in segment or address in (segment.network_address, segment.broadcast_address):
        raise ClusterError(f"{address} is not an address of the segment {segment}")
    owner = _taken_addresses(topology).get(address)
    if owner is not None:
        raise ClusterError(f"{address} belongs to {owner}" + (" already" if owner == name else ""))


def _is_left(profile: Profile, facts: ClusterFacts, name: str) -> bool:
    """Whether there is such a node, or an earlier removal that was killed or failed left something of it."""
    machine = facts.machine(name)
    if machine is not None:
        return machine.role == "node"
    from netkit.cluster.node_api import api, is_registered

    async def work() -> bool:
        async with api(profile, facts.server) as client:
            return await is_registered(client, name)

    return asyncio.run(work())


def _until_ready(
    profile: Profile,
    facts: ClusterFacts,
    nodes: Sequence[NodeRecord],
    began: _Clock,
    what: str,
    report: Report,
) -> list[NodeChange]:
    from netkit.cluster.node_api import api, until_ready

    changes: dict[str, NodeChange] = {}

    async def one(client: Client, node: NodeRecord) -> None:
        await until_ready(client, node.name, began.moment, str(node.address))
        changes[node.name] = NodeChange(node.name, str(node.address), what, began.seconds())
        report(changes[node.name])

    async def everyone() -> None:
        async with api(profile, facts.server) as client:
            await asyncio.gather(*(one(client, node) for node in nodes))

    async def in_time() -> None:
        try:
            await asyncio.wait_for(everyone(), _READY_SECONDS)
        except TimeoutError:
            late = ", ".join(node.name for node in nodes if node.name not in changes)
            raise ClusterError(
                f"not Ready within {_READY_SECONDS:.0f} s: {late}", f"logs are in {profile.logs}"
            ) from None

    asyncio.run(in_time())
    return [changes[node.name] for node in nodes]


def _drain(
    profile: Profile, facts: ClusterFacts, nodes: Sequence[str], seconds: float, progress: Progress
) -> None:
    from netkit.cluster.node_api import api, set_unschedulable
    from netkit.cluster.node_draining import empty

    async def work() -> None:
        async with api(profile, facts.server) as client:
            cordoned: list[str] = []
            try:
                # All at once, or the pods of one would come to the next.
                for node in nodes:
                    if await set_unschedulable(client, node, True):
                        cordoned.append(node)
                for node in nodes:
                    await empty(client, node, force=False, seconds=seconds, report=progress)
            except BaseException:
                for node in cordoned:
                    await set_unschedulable(client, node, False)
                raise

    asyncio.run(work())


def _forget(profile: Profile, facts: ClusterFacts, nodes: Sequence[str]) -> None:
    from netkit.cluster.node_api import api, forget

    async def work() -> None:
        async with api(profile, facts.server) as client:
            for node in nodes:
                await forget(client, node)

    asyncio.run(work())
