"""What `netkit status` shows: the machines and processes of a cluster, and what its API says.

Reads only. Works also when the API does not answer: that is then the first problem named.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.meta import objects
from controlplane.resources import catalog
from netkit.cluster.access import admin_client
from netkit.cluster.keeper import ACTIVE, STANDBY, recorded_processes
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile
from netkit.cluster.roster import NodeState, Roster, RosterFile
from netkit.kernel import netns, process

_ANSWER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    label: str
    pid: int
    state: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`ready` is True, False or Unknown, as the Node's condition says."""

    name: str
    ready: str
    pods: int
    pod_cidr: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    name: str
    type: str
    cluster_ip: str
    ports: str
    endpoints: int


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """`problems` is empty when `healthy`."""

    name: str
    server: str
    segment: str
    pod_subnet: str
    service_subnet: str
    healthy: bool
    problems: tuple[str, ...]
    machines: tuple[MachineFacts, ...]
    processes: tuple[ProcessStatus, ...]
    nodes: tuple[NodeStatus, ...]
    services: tuple[ServiceStatus, ...]


def read_status(name: str) -> ClusterStatus:
    """The state of cluster `name` now. Raises NoSuchCluster."""
    profile = Profile(name)
    facts = profile.facts()
    processes = _processes(profile)
    problems = [f"process {entry.label} is {entry.state}" for entry in processes if entry.state != "running"]
    problems += [
        f"namespace {machine.namespace} is missing"
        for machine in facts.machines
        if not netns.exists(machine.namespace)
    ]
    roster = RosterFile(profile.directory).read() or Roster()
    problems += _cuts(roster)
    status = _empty(facts, processes)
    try:
        nodes, services = asyncio.run(_from_api(profile, facts))
    except (ConnectionFailed, StatusError, TimeoutError, OSError) as error:
        problems.insert(0, f"the API at {facts.server} does not answer: {str(error) or 'timed out'}")
    else:
        stopped = {node.name for node in roster.nodes if node.state is NodeState.STOPPED}
        problems += [
            f"node {node.name} is not ready"
            for node in nodes
            if node.ready != "True" and node.name not in stopped
        ]
        status = replace(status, nodes=nodes, services=services)
    return replace(status, healthy=not problems, problems=tuple(problems))


def _cuts(roster: Roster) -> list[str]:
    """What is off or cut on purpose: no fault, but what a cluster that is not well is not well for."""
    found = [
        f"node {node.name} is {node.state}" for node in roster.nodes if node.state is not NodeState.RUNNING
    ]
    found += [f"the cable of {name} is cut" for name in roster.cut]
    found += [f"nothing passes between {one} and {other}: the segment is cut" for one, other in roster.apart]
    return found


def _empty(facts: ClusterFacts, processes: tuple[ProcessStatus, ...]) -> ClusterStatus:
    return ClusterStatus(
        name=facts.name,
        server=facts.server,
        segment=facts.segment,
        pod_subnet=facts.pod_subnet,
        service_subnet=facts.service_subnet,
        healthy=False,
        problems=(),
        machines=facts.machines,
        processes=processes,
        nodes=(),
        services=(),
    )


def _processes(profile: Profile) -> tuple[ProcessStatus, ...]:
    """One line per part of the cluster. Of several records of one part the running one counts."""
    found: dict[str, ProcessStatus] = {}
    for entry in recorded_processes(profile.ledger):
        pid, start = entry.pid_and_start()
        known = found.get(entry.detail)
        if known is None or known.state != "running":
            state = "running" if process.alive(pid, start) else "dead"
            found[entry.detail] = ProcessStatus(entry.detail, pid, state)
    order = {ACTIVE: 0, STANDBY: 1, "control-plane": 2}
    return tuple(sorted(found.values(), key=lambda entry: (order.get(entry.label, 3), entry.label)))


async def _from_api(
    profile: Profile, facts: ClusterFacts
) -> tuple[tuple[NodeStatus, ...], tuple[ServiceStatus, ...]]:
    client = admin_client(profile, facts.server)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await _nodes(client), await _services(client)
    finally:
        await client.close()


async def _nodes(client: Client) -> tuple[NodeStatus, ...]:
    nodes = (await client.list(catalog.NODE)).items
    pods = (await client.list(catalog.POD)).items
    counts: dict[str, int] = {}
    for pod in pods:
        node = pod.get("spec", {}).get("nodeName", "")
        counts[node] = counts.get(node, 0) + 1
    return tuple(
        NodeStatus(
            name=objects.name(node),
            ready=_ready(node),
            pods=counts.get(objects.name(node), 0),
            pod_cidr=node.get("spec", {}).get("podCIDR", ""),
        )
        for node in nodes
    )


def _ready(node: Object) -> str:
    for condition in node.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return str(condition.get("status"))
    return "Unknown"


async def _services(client: Client) -> tuple[ServiceStatus, ...]:
    services = (await client.list(catalog.SERVICE)).items
    slices = (await client.list(catalog.ENDPOINT_SLICE)).items
    ready: dict[str, int] = {}
    for item in slices:
        owner = f"{objects.namespace(item)}/{objects.labels(item).get('kubernetes.io/service-name', '')}"
        usable = [
            endpoint
            for endpoint in item.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
        ]
        ready[owner] = ready.get(owner, 0) + len(usable)
    return tuple(
        ServiceStatus(
            name=objects.namespaced_name(service),
            type=service["spec"].get("type", "ClusterIP"),
            cluster_ip=service["spec"].get("clusterIP", "") or "<none>",
            ports=",".join(_port(port) for port in service["spec"].get("ports") or ()) or "<none>",
            endpoints=ready.get(objects.namespaced_name(service), 0),
        )
        for service in services
    )


def _port(port: Object) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"
