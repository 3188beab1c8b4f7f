"""The Deployment controller's loop: which Deployment to look at when. The work itself is `rollout.Rollout`."""

from __future__ import annotations

from controlplane.client.adoption import Adopter
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.deployment.rollout import Rollout
from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig, labels, name, namespace, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, orphans_of
from controlplane.resources.catalog import DEPLOYMENT, POD, REPLICA_SET

_RECHECK_SECONDS = 1.0


class DeploymentController:
    """Keys are (namespace, name) of Deployments."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._deployments = informers.of(DEPLOYMENT)
        self._sets = informers.of(REPLICA_SET)
        self._pods = informers.of(POD)
        self._sets.index_by(OWNER_INDEX, by_controller)
        self._pods.index_by(OWNER_INDEX, by_controller)
        self._events = EventRecorder(client, "deployment-controller")
        self._own_writes: Expectations[NamespacedName] = Expectations(self._deployments)
        self._set_writes: Expectations[NamespacedName] = Expectations(self._sets)
        self._loop = Controller("deployment", self._reconcile)
        self._deployments.on_change(self._deployment_changed)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._deployments, self._sets, self._pods)

    def _deployment_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self._loop.queue.add((namespace(obj), name(obj)))

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake the Deployments that owned or own the set, or that may adopt it."""
        for each in (old, new):
            controller = controller_of(each) if each is not None else None
            if each is not None and controller is not None and controller["kind"] == DEPLOYMENT.kind:
                self._loop.queue.add((namespace(each), controller["name"]))
        if new is None or controller_of(new) is not None:
            return
        for deployment in self._deployments.items(namespace(new)):
            if _selector(deployment).matches(labels(new)):
                self._loop.queue.add((namespace(deployment), name(deployment)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """The last pod of an old set is what a recreation waits for."""
        controller = controller_of(old) if old is not None and new is None else None
        if old is None or controller is None:
            return
        replica_set = self._sets.get(namespace(old), controller["name"])
        owner = controller_of(replica_set) if replica_set is not None else None
        if owner is not None:
            self._loop.queue.add((namespace(old), owner["name"]))

    async def _reconcile(self, key: NamespacedName) -> None:
        deployment = self._deployments.get(*key)
        if deployment is None:
            self._own_writes.forget(key)
            self._set_writes.forget(key)
            return
        if not (self._own_writes.satisfied(key) and self._set_writes.satisfied(key)):
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        if dig(deployment, "spec", "selector", default={}) == {}:
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self._events.event(DEPLOYMENT, deployment, WARNING, "SelectingAll", text)
            await self._observe(deployment)
            return
        adopter = Adopter(self._client, DEPLOYMENT, deployment, _selector(deployment), REPLICA_SET)
        candidates = self._sets.lookup(OWNER_INDEX, uid(deployment))
        candidates += self._sets.lookup(OWNER_INDEX, orphans_of(key[0]))
        rollout = Rollout(
            self._client,
            self._events,
            deployment,
            await adopter.claim(candidates),
            lambda replica_set: self._pods.lookup(OWNER_INDEX, uid(replica_set)),
            lambda stored: self._set_writes.wrote(key, stored),
        )
        try:
            await rollout.run()
        finally:
            self._own_writes.wrote(key, rollout.deployment)
        if rollout.recheck:
            self._loop.queue.add_after(key, rollout.recheck)

    async def _observe(self, deployment: Object) -> None:
        """Say that the present spec was seen, though nothing is done about it."""
        status = deployment.get("status") or {}
        generation = dig(deployment, "metadata", "generation", default=0)
        if status.get("observedGeneration", 0) < generation:
            fresh = {**deployment, "status": {**status, "observedGeneration": generation}}
            await self._client.update_status(DEPLOYMENT, fresh)


def _selector(deployment: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(deployment, "spec", "selector"))
