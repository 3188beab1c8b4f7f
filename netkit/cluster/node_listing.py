"""What `netkit node list` shows: the nodes as the cluster has them, and what the API says of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.resources.catalog import NODE, POD
from netkit.cluster.access import admin_client
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.roster_request import read_roster

_ANSWER_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node. `state` is running, stopped or moving, `ready` True, False or Unknown, as the Node's condition says.

    `cut`: its cable is pulled, or the switch keeps it from another machine.
    """

    node: str
    state: str
    ready: str
    schedulable: bool
    address: str
    pod_range: str
    pods: int
    cut: bool


def list_nodes(cluster: str) -> list[NodeLine]:
    """All nodes in the order they came. Works without the API too: then nothing is known of ranges and pods.

    Raises NoSuchCluster.
    """
    profile = Profile(cluster)
    facts, roster = read_roster(profile)
    try:
        nodes, pods = asyncio.run(_from_api(profile, facts))
    except (ConnectionFailed, StatusError, TimeoutError, OSError):
        nodes, pods = {}, Counter()
    cut = {*roster.cut, *(end for pair in roster.apart for end in pair)}
    return [
        NodeLine(
            node=record.name,
            state=record.state,
            ready=conditions.status_of(found, "Ready") or "Unknown",
            schedulable=not dig(found, "spec", "unschedulable", default=False),
            address=str(record.address),
            pod_range=dig(found, "spec", "podCIDR", default=""),
            pods=pods[record.name],
            cut=record.name in cut,
        )
        for record in roster.nodes
        for found in [nodes.get(record.name, {})]
    ]


async def _from_api(profile: Profile, facts: ClusterFacts) -> tuple[dict[str, Object], Counter[str]]:
    client = admin_client(profile, facts.server)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            nodes = {name(node): node for node in (await client.list(NODE)).items}
            pods = Counter(dig(pod, "spec", "nodeName", default="") for pod in (await client.list(POD)).items)
            return nodes, pods
    finally:
        await client.close()
