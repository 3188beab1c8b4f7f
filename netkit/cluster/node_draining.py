"""`netkit node cordon`, `uncordon`, `drain`: keeping pods off a node, and having those that are there move.

Pods are evicted as `kubectl drain` does: through the eviction API, which keeps to disruption budgets. Pods of
DaemonSets stay, as they would come back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.client.client import Client
from controlplane.errors import NotFound, Object, TooManyRequests
from controlplane.meta import objects
from controlplane.meta.objects import name, namespace, namespaced_name, uid
from controlplane.meta.owners import controller_of
from controlplane.meta.pods import is_finished
from controlplane.resources.catalog import POD
from netkit.cluster.errors import ClusterError
from netkit.cluster.node_api import api, pods_of, set_unschedulable
from netkit.cluster.profile import Profile
from netkit.cluster.roster_request import node_of, read_roster

_AGAIN_SECONDS = 0.25
_MIRROR = "kubernetes.io/config.mirror"
_NAMED = 3

Report = Callable[[str], None]
"""Called with `NAMESPACE/POD` as soon as that pod is gone."""


@dataclass(frozen=True, slots=True)
class Schedulability:
    """Whether pods may come to the node now; `changed` by this command."""

    node: str
    schedulable: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """The pods that left the node."""

    node: str
    evicted: tuple[str, ...]


def set_schedulable(cluster: str, nodes: Sequence[str], schedulable: bool) -> list[Schedulability]:
    """Cordon or uncordon nodes. Raises NoSuchCluster, ClusterError."""
    profile = Profile(cluster)
    facts, roster = read_roster(profile)
    for node in nodes:
        node_of(profile, roster, node)

    async def change() -> list[Schedulability]:
        async with api(profile, facts.server) as client:
            return [
                Schedulability(node, schedulable, await set_unschedulable(client, node, not schedulable))
                for node in nodes
            ]

    return asyncio.run(change())


def drain(cluster: str, node: str, *, force: bool, seconds: float, report: Report) -> Drained:
    """Cordon a node, evict its pods and wait until they are gone, `seconds` at most.

    Pods without a controller, which nobody makes anew, are evicted with `force` only. Raises ClusterError.
    """
    profile = Profile(cluster)
    facts, roster = read_roster(profile)
    node_of(profile, roster, node)

    async def work() -> Drained:
        async with api(profile, facts.server) as client:
            return await empty(client, node, force=force, seconds=seconds, report=report)

    return asyncio.run(work())


async def empty(client: Client, node: str, *, force: bool, seconds: float, report: Report) -> Drained:
    """The same with a client. A node that is refused or not empty in time stays cordoned only if it was so before."""
    cordoned = await set_unschedulable(client, node, True)
    try:
        leaving = [pod for pod in await pods_of(client, node) if _leaves(pod)]
        lone = [
            namespaced_name(pod) for pod in leaving if controller_of(pod) is None and not is_finished(pod)
        ]
        if lone and not force:
            raise ClusterError(
                f"{node} has pods that nobody would make anew: {_listed(lone)}", "--force evicts them as well"
            )
        return Drained(node, await _evict_all(client, node, leaving, seconds, report))
    except BaseException:
        if cordoned:
            await asyncio.shield(set_unschedulable(client, node, False))
        raise


async def _evict_all(
    client: Client, node: str, pods: Sequence[Object], seconds: float, report: Report
) -> tuple[str, ...]:
    left = {namespaced_name(pod) for pod in pods}
    told: dict[str, str] = {}

    async def evict(pod: Object) -> None:
        await _evict(client, pod, told)
        left.discard(namespaced_name(pod))
        report(namespaced_name(pod))

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(evict(pod))

    try:
        await asyncio.wait_for(all_of_them(), seconds)
    except TimeoutError:
        why = next((told[pod] for pod in sorted(left) if pod in told), "")
        raise ClusterError(
            f"{node} still has pods after {seconds:.0f} s: {_listed(sorted(left))}",
            why or "wait longer with --timeout",
        ) from None
    return tuple(sorted(map(namespaced_name, pods)))


async def _evict(client: Client, pod: Object, told: dict[str, str]) -> None:
    """Have the pod evicted as soon as its budget allows it, and wait for its end. `told`: why it takes so long."""
    who = name(pod), namespace(pod)
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": who[0], "namespace": who[1]},
        "deleteOptions": {"preconditions": {"uid": uid(pod)}},
    }  # fmt: skip
    while True:
        try:
            await client.create(POD, eviction, who[1], who[0], "eviction")
            break
        except TooManyRequests as refusal:
            told[namespaced_name(pod)] = str(refusal)
            await asyncio.sleep(_AGAIN_SECONDS)
        except NotFound:
            return
    while True:
        try:
            if uid(await client.get(POD, *who)) != uid(pod):
                return
        except NotFound:
            return
        await asyncio.sleep(_AGAIN_SECONDS)


def _leaves(pod: Object) -> bool:
    owner = controller_of(pod)
    return _MIRROR not in objects.annotations(pod) and (owner is None or owner.get("kind") != "DaemonSet")


def _listed(pods: Sequence[str]) -> str:
    more = f" and {len(pods) - _NAMED} more" if len(pods) > _NAMED else ""
    return ", ".join(pods[:_NAMED]) + more
