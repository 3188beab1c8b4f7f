"""The ReplicaSet controller: creates and deletes pods until as many are active as wanted, and reports status.

Run by `control_loop`. It never acts before its cache has seen its own last writes, so it cannot over-create.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from controlplane.client.adoption import Adopter
from controlplane.client.batches import Failure, slow_start
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.replicaset.ranking import pods_to_delete
from controlplane.errors import NotFound, Object, StatusError
from controlplane.meta import conditions
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import clone, dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import controller_of, owner_reference
from controlplane.meta.pods import is_active, is_available, is_ready, seconds_until_available
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import POD, REPLICA_SET

log = logging.getLogger(__name__)

_BURST = 500
_RECHECK_SECONDS = 1.0
_OWNER_INDEX = "controller"


def _owner_values(obj: Object) -> tuple[str]:
    """Index of objects by their controller's uid; orphans by namespace."""
    controller = controller_of(obj)
    return (controller["uid"] if controller else f"orphans of {namespace(obj)}",)


class ReplicaSetController:
    """Keys are (namespace, name) of ReplicaSets."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._sets = informers.of(REPLICA_SET)
        self._pods = informers.of(POD)
        self._sets.index_by(_OWNER_INDEX, _owner_values)
        self._pods.index_by(_OWNER_INDEX, _owner_values)
        self._events = EventRecorder(client, "replicaset-controller")
        self._expectations: Expectations[NamespacedName] = Expectations(self._pods)
        self._loop = Controller("replicaset", self._reconcile, workers=8)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._sets, self._pods)

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self._loop.queue.add((namespace(obj), name(obj)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake the sets that owned or own the pod, or that may adopt it."""
        for pod in (old, new):
            controller = controller_of(pod) if pod is not None else None
            if pod is not None and controller is not None and controller["kind"] == REPLICA_SET.kind:
                self._loop.queue.add((namespace(pod), controller["name"]))
        if new is None or controller_of(new) is not None:
            return
        if old is not None and labels(old) == labels(new) and controller_of(old) is None:
            return
        for replica_set in self._sets.items(namespace(new)):
            if _selector(replica_set).matches(labels(new)):
                self._loop.queue.add((namespace(replica_set), name(replica_set)))

    async def _reconcile(self, key: NamespacedName) -> None:
        replica_set = self._sets.get(*key)
        if replica_set is None:
            self._expectations.forget(key)
            return
        caught_up = self._expectations.satisfied(key)
        candidates = self._pods.lookup(_OWNER_INDEX, uid(replica_set))
        candidates += self._pods.lookup(_OWNER_INDEX, f"orphans of {key[0]}")
        adopter = Adopter(self._client, REPLICA_SET, replica_set, _selector(replica_set), POD)
        pods = await adopter.claim(pod for pod in candidates if is_active(pod))
        failures: list[Failure] = []
        difference = len(pods) - _wanted(replica_set)
        if not caught_up:
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
        elif not is_being_deleted(replica_set):
            failures = await self._manage(key, replica_set, pods)
        await self._report(key, replica_set, pods, failures, difference)
        if failures:
            raise failures[0]

    async def _manage(self, key: NamespacedName, replica_set: Object, pods: list[Object]) -> list[Failure]:
        difference = len(pods) - _wanted(replica_set)
        if difference < 0:
            log.debug("%s/%s: creating %d pods", *key, -difference)
            return await self._create(key, replica_set, min(-difference, _BURST))
        if difference > 0:
            related = self._related_pods(replica_set)
            chosen = pods_to_delete(pods, related, min(difference, _BURST), datetime.now(UTC))
            log.debug("%s/%s: deleting %d pods", *key, len(chosen))
            return await self._delete(key, replica_set, chosen)
        return []

    async def _create(self, key: NamespacedName, replica_set: Object, count: int) -> list[Failure]:
        pod = _new_pod(replica_set)

        async def create(_: int) -> None:
            try:
                created = await self._client.create(POD, pod)
            except StatusError as error:
                if not _namespace_is_terminating(error):
                    self._event(replica_set, WARNING, "FailedCreate", f"Error creating: {error}")
                raise
            self._expectations.wrote(key, created)
            self._event(replica_set, NORMAL, "SuccessfulCreate", f"Created pod: {name(created)}")

        _, failures = await slow_start(count, create)
        return [failure for failure in failures if not _namespace_is_terminating(failure)]

    async def _delete(
        self, key: NamespacedName, replica_set: Object, pods: Sequence[Object]
    ) -> list[Failure]:
        async def delete(number: int) -> None:
            pod = pods[number]
            try:
                await self._client.delete(POD, name(pod), namespace(pod), uid=uid(pod))
            except NotFound:
                return
            except StatusError as error:
                self._event(replica_set, WARNING, "FailedDelete", f"Error deleting: {error}")
                raise
            self._expectations.deleted(key, pod)
            self._event(replica_set, NORMAL, "SuccessfulDelete", f"Deleted pod: {name(pod)}")

        _, failures = await slow_start(len(pods), delete, initial=len(pods))
        return failures

    def _related_pods(self, replica_set: Object) -> list[Object]:
        """Active pods of all sets of the same owner, this one included."""
        controller = controller_of(replica_set)
        sets = [replica_set]
        if controller is not None:
            sets = self._sets.lookup(_OWNER_INDEX, controller["uid"])
        pods = (pod for each in sets for pod in self._pods.lookup(_OWNER_INDEX, uid(each)))
        return [pod for pod in pods if is_active(pod)]

    async def _report(
        self,
        key: NamespacedName,
        replica_set: Object,
        pods: list[Object],
        failures: list[Failure],
        difference: int,
    ) -> None:
        moment = datetime.now(UTC)
        status = _status(replica_set, pods, failures, difference, moment)
        if status != replica_set.get("status", {}):
            await self._client.update_status(REPLICA_SET, {**replica_set, "status": status})
        wait = dig(replica_set, "spec", "minReadySeconds", default=0)
        waiting = [seconds_until_available(pod, wait, moment) for pod in pods if is_ready(pod)]
        soonest = min((seconds for seconds in waiting if seconds > 0), default=0.0)
        if soonest:
            self._loop.queue.add_after(key, soonest + 0.01)

    def _event(self, replica_set: Object, type_: str, reason: str, message: str) -> None:
        self._events.event(REPLICA_SET, replica_set, type_, reason, message)


def _wanted(replica_set: Object) -> int:
    return int(dig(replica_set, "spec", "replicas", default=1))


def _selector(replica_set: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(replica_set, "spec", "selector"))


def _new_pod(replica_set: Object) -> Object:
    template = clone(dig(replica_set, "spec", "template", default={}))
    described = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{name(replica_set)}-",
        "namespace": namespace(replica_set),
        "ownerReferences": [owner_reference(REPLICA_SET.api_version, REPLICA_SET.kind, replica_set)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if described.get(field):
            metadata[field] = described[field]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec", {})}


def _namespace_is_terminating(error: Failure) -> bool:
    return isinstance(error, StatusError) and any(
        cause.reason == "NamespaceTerminating" for cause in error.causes
    )


def _status(
    replica_set: Object, pods: list[Object], failures: list[Failure], difference: int, moment: datetime
) -> Object:
    """The status as upstream writes it: counts of zero are left out, except `replicas`."""
    old = replica_set.get("status") or {}
    wait = dig(replica_set, "spec", "minReadySeconds", default=0)
    template_labels = (dig(replica_set, "spec", "template", "metadata", "labels", default={})).items()
    counts = {
        "fullyLabeledReplicas": sum(template_labels <= labels(pod).items() for pod in pods),
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "availableReplicas": sum(is_available(pod, wait, moment) for pod in pods),
        "observedGeneration": dig(replica_set, "metadata", "generation", default=0),
    }
    status: Object = {"replicas": len(pods), **{key: value for key, value in counts.items() if value}}
    listed = old.get("conditions") or []
    failure = conditions.find(listed, "ReplicaFailure")
    if failures and failure is None:
        reason = "FailedCreate" if difference < 0 else "FailedDelete"
        listed = conditions.with_condition(
            listed,
            {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": now(),
                "reason": reason,
                "message": str(failures[0]),
            },
        )
    elif not failures and failure is not None:
        listed = conditions.without(listed, "ReplicaFailure")
    if listed:
        status["conditions"] = listed
    return status
