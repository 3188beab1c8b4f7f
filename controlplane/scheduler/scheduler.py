"""The scheduler's loop: takes pods from the queue, decides, assumes, binds in the background, reports
failures.

Run by `control_loop`. Decisions are made one after the other against a snapshot that already counts earlier
ones; bindings are stored side by side.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Mapping

from controlplane.client.client import Client
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.informer import Informers
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Conflict, NotFound, Object, StatusError
from controlplane.meta import conditions
from controlplane.meta.labels import NOTHING, LabelSelector, Requirement
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import controller_of
from controlplane.meta.pods import is_finished
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import (
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    REPLICA_SET,
    REPLICATION_CONTROLLER,
    SERVICE,
    STATEFUL_SET,
    STORAGE_CLASS,
)
from controlplane.scheduler.filters import Rejection, feasible_nodes, with_volumes
from controlplane.scheduler.queue import Entry, SchedulingQueue
from controlplane.scheduler.scores import Question, ranked
from controlplane.scheduler.snapshot import PodInfo, Snapshot
from controlplane.scheduler.volumes import Volumes

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_DECISIONS_PER_TURN = 16
_STATUS_ATTEMPTS = 3
_SPREAD_KINDS = (REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET)
"""Whose pods are spread by default."""


class Scheduler:
    """Schedules the pods that ask for `scheduler_name`. `chance` breaks ties between equally good nodes."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        scheduler_name: str = NAME,
        chance: random.Random | None = None,
    ) -> None:
        self._client = client
        self._name = scheduler_name
        self._chance = chance or random.Random()
        self._pods = informers.of(POD)
        self._nodes = informers.of(NODE)
        self._services = informers.of(SERVICE)
        self._owners = {kind.kind: informers.of(kind) for kind in _SPREAD_KINDS}
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIM)
        self._volumes = informers.of(PERSISTENT_VOLUME)
        self._classes = informers.of(STORAGE_CLASS)
        self._storage = Volumes(
            self._claims.get,
            lambda volume: self._volumes.get("", volume),
            lambda storage_class: self._classes.get("", storage_class),
        )
        self._filters = with_volumes(self._storage)
        self._events = EventRecorder(client, scheduler_name)
        self._queue = SchedulingQueue()
        self._snapshot = Snapshot()
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)
        for informer in (self._claims, self._volumes, self._classes):
            informer.on_change(self._storage_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        storage = (self._claims, self._volumes, self._classes)
        for informer in (self._nodes, self._pods, self._services, *self._owners.values(), *storage):
            await informer.synced()
        self._recover()
        try:
            async with asyncio.TaskGroup() as group:
                decisions = 0
                while True:
                    entry = await self._queue.pop()
                    self._schedule(group, entry)
                    decisions += 1
                    if decisions % _DECISIONS_PER_TURN == 0:
                        await asyncio.sleep(0)
        finally:
            self._queue.close()

    def _recover(self) -> None:
        """After a crash of the loop: bindings that were under way then may not have been stored."""
        for pod in self._pods.items():
            if not dig(pod, "spec", "nodeName") and self._is_mine(pod):
                self._snapshot.forget(uid(pod))
                self._queue.put(pod)

    # following the cluster

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._snapshot.set_node(new)
            if old is None or _node_essence(old) != _node_essence(new):
                self._queue.wake(now=True)
        elif old is not None:
            self._snapshot.remove_node(name(old))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._queue.remove(uid(old))
                self._snapshot.remove_pod(uid(old))
                if dig(old, "spec", "nodeName"):
                    self._queue.wake(now=False)
        elif dig(new, "spec", "nodeName"):
            self._queue.remove(uid(new))
            self._snapshot.set_pod(new)
            if old is None or is_finished(old) != is_finished(new) or labels(old) != labels(new):
                self._queue.wake(now=False)
        elif self._is_mine(new) and not self._snapshot.is_assumed(uid(new)):
            self._enqueue(new)
        else:
            self._queue.remove(uid(new))

    def _storage_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.wake(now=False)

    def _enqueue(self, pod: Object) -> None:
        """Changes of status alone (such as our own report) are no reason to try again."""
        waiting = self._queue.known(uid(pod))
        if waiting is not None and _pod_essence(waiting) == _pod_essence(pod):
            self._queue.refresh(pod)
        else:
            self._queue.put(pod)

    def _is_mine(self, pod: Object) -> bool:
        return (
            dig(pod, "spec", "schedulerName", default=NAME) == self._name
            and not is_being_deleted(pod)
            and not is_finished(pod)
            and not dig(pod, "spec", "schedulingGates")
        )

    # deciding

    def _schedule(self, group: asyncio.TaskGroup, entry: Entry) -> None:
        pod = PodInfo(entry.pod)
        nodes = self._snapshot.nodes()
        if not nodes:
            message = "no nodes available to schedule pods"
            group.create_task(self._report(entry.pod, "SchedulerError", message))
            self._queue.put_back(entry, retry=False)
            return
        unmet = self._storage.unmet(pod)
        if unmet:
            group.create_task(self._report(entry.pod, "Unschedulable", explain_for_all(len(nodes), unmet)))
            self._queue.put_back(entry, retry=False)
            return
        feasible, rejected = feasible_nodes(pod, nodes, self._filters)
        if not feasible:
            group.create_task(self._report(entry.pod, "Unschedulable", explain(len(nodes), rejected)))
            self._queue.put_back(entry, retry=False)
            return
        chosen = feasible[0]
        if len(feasible) > 1:
            scored = ranked(Question(pod, nodes, self._group_of(entry.pod)), feasible)
            best = max(total for total, _ in scored)
            chosen = self._chance.choice([node for total, node in scored if total == best])
        self._snapshot.assume(pod, chosen.name)
        group.create_task(self._bind(entry, chosen.name))

    def _group_of(self, pod: Object) -> LabelSelector:
        """The selector that takes in the pod's siblings: of its Services and of what controls it, joined."""
        wanted: dict[str, str] = {}
        for service in self._services.items(namespace(pod)):
            selector = dig(service, "spec", "selector", default={})
            if selector and selector.items() <= labels(pod).items():
                wanted.update(selector)
        requirements = list(LabelSelector.from_map(wanted).requirements)
        controller = controller_of(pod)
        informer = self._owners.get(controller["kind"]) if controller is not None else None
        if controller is not None and informer is not None:
            requirements += _selector(informer.get(namespace(pod), controller["name"]))
        return LabelSelector(tuple(requirements)) if requirements else NOTHING

    # acting

    async def _bind(self, entry: Entry, node: str) -> None:
        pod = entry.pod
        binding: Object = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(POD, binding, namespace(pod), name(pod), "binding")
        except (StatusError, ConnectionFailed) as error:
            self._binding_failed(entry, node, error)
            return
        text = f"Successfully assigned {namespace(pod)}/{name(pod)} to {node}"
        self._events.event(POD, pod, NORMAL, "Scheduled", text)
        log.debug("%s/%s: assigned to %s", namespace(pod), name(pod), node)

    def _binding_failed(self, entry: Entry, node: str, error: StatusError | ConnectionFailed) -> None:
        """Take the decision back and, if the pod still stands unbound, try again after the back-off."""
        pod = entry.pod
        if not self._snapshot.forget(uid(pod)):
            return
        current = self._pods.get(namespace(pod), name(pod))
        if current is None or uid(current) != uid(pod) or isinstance(error, NotFound):
            return
        log.warning("%s/%s: not bound to %s: %s", namespace(pod), name(pod), node, error)
        self._events.event(POD, pod, WARNING, "FailedScheduling", f"binding rejected: {error}")
        if not dig(current, "spec", "nodeName") and self._is_mine(current):
            entry.pod = current
            self._queue.put_back(entry, retry=True)

    async def _report(self, pod: Object, reason: str, message: str) -> None:
        """Say in an event and in the pod's condition why it waits."""
        self._events.event(POD, pod, WARNING, "FailedScheduling", message)
        condition: Object = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": now(),
            "reason": reason,
            "message": message,
        }
        current: Object | None = pod
        for _ in range(_STATUS_ATTEMPTS):
            if current is None or uid(current) != uid(pod) or dig(current, "spec", "nodeName"):
                return
            known = conditions.of(current, "PodScheduled") or {}
            if all(known.get(key) == condition[key] for key in ("status", "reason", "message")):
                return
            status = dict(current.get("status") or {})
            status["conditions"] = conditions.with_condition(status.get("conditions"), condition)
            try:
                await self._client.update_status(POD, {**current, "status": status})
            except Conflict:
                current = await self._reread(pod)
            except (StatusError, ConnectionFailed) as error:
                log.info("%s/%s: condition not written: %s", namespace(pod), name(pod), error)
                return
            else:
                return

    async def _reread(self, pod: Object) -> Object | None:
        try:
            return await self._client.get(POD, name(pod), namespace(pod))
        except (StatusError, ConnectionFailed):
            return None


def explain(count: int, rejected: Mapping[str, Rejection]) -> str:
    """Upstream's sentence about a pod that fits nowhere among `count` nodes."""
    reasons: Counter[str] = Counter()
    helpless: Counter[str] = Counter()
    for rejection in rejected.values():
        reasons.update(rejection.reasons)
        victims = "No preemption victims found for incoming pod"
        helpless[victims if rejection.resolvable else "Preemption is not helpful for scheduling"] += 1
    head = f"0/{count} nodes are available: "
    return f"{head}{_histogram(reasons)}. preemption: {head}{_histogram(helpless)}."


def explain_for_all(count: int, reason: str) -> str:
    """Upstream's sentence when one reason rules out all of `count` nodes before any is looked at."""
    head = f"0/{count} nodes are available: "
    return f"{head}{reason}. preemption: {head}{count} Preemption is not helpful for scheduling."


def _selector(owner: Object | None) -> tuple[Requirement, ...]:
    """What the pods of a workload have in common; a ReplicationController's selector is a plain map."""
    selector = dig(owner, "spec", "selector", default={})
    if owner is not None and owner["kind"] == REPLICATION_CONTROLLER.kind:
        return LabelSelector.from_map(selector).requirements
    return LabelSelector.from_object(selector).requirements


def _histogram(counts: Counter[str]) -> str:
    return ", ".join(sorted(f"{number} {text}" for text, number in counts.items()))


def _node_essence(node: Object) -> tuple[object, ...]:
    """What of a node decides about pods."""
    return (
        labels(node),
        dig(node, "spec", "taints", default=[]),
        dig(node, "spec", "unschedulable", default=False),
        dig(node, "status", "allocatable"),
    )


def _pod_essence(pod: Object) -> tuple[object, ...]:
    """What of a waiting pod decides where it fits."""
    return (labels(pod), pod.get("spec"))
