"""Creates and deletes pods until as many are active as wanted, and reports status.

Run by `control_loop`, once for each flavour. It never acts before its cache has seen its own last writes, so it cannot
over-create.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from controlplane.client.adoption import Adopter
from controlplane.client.batches import Failure, slow_start
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.client.pod_control import PodControl, namespace_is_terminating
from controlplane.controllers.replicaset.flavours import REPLICA_SETS, Flavour
from controlplane.controllers.replicaset.ranking import pods_to_delete
from controlplane.controllers.replicaset.status import status_of
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, orphans_of
from controlplane.meta.pod_templates import pod_from, template_of
from controlplane.meta.pods import is_active, is_ready, seconds_until_available
from controlplane.resources.catalog import POD

log = logging.getLogger(__name__)

_BURST = 500
_RECHECK_SECONDS = 1.0


class ReplicaSetController:
    """Keys are (namespace, name) of the objects of the flavour's kind."""

    def __init__(self, client: Client, informers: Informers, flavour: Flavour = REPLICA_SETS) -> None:
        self._client = client
        self._kind = flavour.kind
        self._selector = flavour.selector
        self._sets = informers.of(flavour.kind)
        self._pods = informers.of(POD)
        self._sets.index_by(OWNER_INDEX, by_controller)
        self._pods.index_by(OWNER_INDEX, by_controller)
        self._control = PodControl(client, EventRecorder(client, flavour.component), flavour.kind)
        self._expectations: Expectations[NamespacedName] = Expectations(self._pods)
        self._loop = Controller(flavour.kind.singular, self._reconcile, workers=8)
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
            if pod is not None and controller is not None and controller["kind"] == self._kind.kind:
                self._loop.queue.add((namespace(pod), controller["name"]))
        if new is None or controller_of(new) is not None:
            return
        if old is not None and labels(old) == labels(new) and controller_of(old) is None:
            return
        for replica_set in self._sets.items(namespace(new)):
            if self._selector(replica_set).matches(labels(new)):
                self._loop.queue.add((namespace(replica_set), name(replica_set)))

    async def _reconcile(self, key: NamespacedName) -> None:
        replica_set = self._sets.get(*key)
        if replica_set is None:
            self._expectations.forget(key)
            return
        caught_up = self._expectations.satisfied(key)
        candidates = self._pods.lookup(OWNER_INDEX, uid(replica_set))
        candidates += self._pods.lookup(OWNER_INDEX, orphans_of(key[0]))
        adopter = Adopter(self._client, self._kind, replica_set, self._selector(replica_set), POD)
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
        pod = pod_from(template_of(replica_set), self._kind.api_version, self._kind.kind, replica_set)

        async def create(_: int) -> None:
            self._expectations.wrote(key, await self._control.create(replica_set, pod))

        _, failures = await slow_start(count, create)
        return [failure for failure in failures if not namespace_is_terminating(failure)]

    async def _delete(
        self, key: NamespacedName, replica_set: Object, pods: Sequence[Object]
    ) -> list[Failure]:
        async def delete(number: int) -> None:
            if await self._control.delete(replica_set, pods[number]):
                self._expectations.deleted(key, pods[number])

        _, failures = await slow_start(len(pods), delete, initial=len(pods))
        return failures

    def _related_pods(self, replica_set: Object) -> list[Object]:
        """Active pods of all sets of the same owner, this one included."""
        controller = controller_of(replica_set)
        sets = [replica_set]
        if controller is not None:
            sets = self._sets.lookup(OWNER_INDEX, controller["uid"])
        pods = (pod for each in sets for pod in self._pods.lookup(OWNER_INDEX, uid(each)))
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
        status = status_of(replica_set, pods, failures, difference, moment)
        if status != replica_set.get("status", {}):
            await self._client.update_status(self._kind, {**replica_set, "status": status})
        wait = dig(replica_set, "spec", "minReadySeconds", default=0)
        waiting = [seconds_until_available(pod, wait, moment) for pod in pods if is_ready(pod)]
        soonest = min((seconds for seconds in waiting if seconds > 0), default=0.0)
        if soonest:
            self._loop.queue.add_after(key, soonest + 0.01)


def _wanted(replica_set: Object) -> int:
    return int(dig(replica_set, "spec", "replicas", default=1))
