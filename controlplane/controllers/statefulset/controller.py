"""The StatefulSet controller's loop: which StatefulSet to look at when. The work itself is `sync.Sync`."""

from __future__ import annotations

from controlplane.client.adoption import Adopter
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.statefulset.claims import may_be_claim_of
from controlplane.controllers.statefulset.history import History
from controlplane.controllers.statefulset.identity import is_member
from controlplane.controllers.statefulset.sync import Sync
from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig, labels, name, namespace, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, orphans_of
from controlplane.resources.catalog import (
    CONTROLLER_REVISION,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    STATEFUL_SET,
)

_RECHECK_SECONDS = 1.0


class StatefulSetController:
    """Keys are (namespace, name) of StatefulSets."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._sets = informers.of(STATEFUL_SET)
        self._pods = informers.of(POD)
        self._revisions = informers.of(CONTROLLER_REVISION)
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIM)
        self._pods.index_by(OWNER_INDEX, by_controller)
        self._revisions.index_by(OWNER_INDEX, by_controller)
        self._events = EventRecorder(client, "statefulset-controller")
        self._pod_writes: Expectations[NamespacedName] = Expectations(self._pods)
        self._revision_writes: Expectations[NamespacedName] = Expectations(self._revisions)
        self._lagging: set[NamespacedName] = set()
        self._loop = Controller("statefulset", self._reconcile)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)
        self._revisions.on_change(self._revision_changed)
        self._claims.on_change(self._claim_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._sets, self._pods, self._revisions, self._claims)

    # following the cluster

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self._loop.queue.add((namespace(obj), name(obj)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        self._wake_owners(old, new)
        if new is None or controller_of(new) is not None:
            return
        if old is not None and labels(old) == labels(new) and controller_of(old) is None:
            return
        for stateful_set in self._sets.items(namespace(new)):
            if is_member(stateful_set, new) and _selector(stateful_set).matches(labels(new)):
                self._loop.queue.add((namespace(stateful_set), name(stateful_set)))

    def _revision_changed(self, old: Object | None, new: Object | None) -> None:
        """Revisions are no news, as upstream has it, but for who waits for his own write."""
        owner = controller_of(new) if new is not None else None
        if new is not None and owner is not None:
            key = (namespace(new), owner["name"])
            if key in self._lagging:
                self._loop.queue.add(key)

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        """A claim that has gone may be one that a pod waits for, or that a new pod had to wait for."""
        if old is None or new is not None:
            return
        for stateful_set in self._sets.items(namespace(old)):
            if may_be_claim_of(stateful_set, old):
                self._loop.queue.add((namespace(stateful_set), name(stateful_set)))

    def _wake_owners(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            controller = controller_of(each) if each is not None else None
            if each is not None and controller is not None and controller["kind"] == STATEFUL_SET.kind:
                self._loop.queue.add((namespace(each), controller["name"]))

    # working

    async def _reconcile(self, key: NamespacedName) -> None:
        stateful_set = self._sets.get(*key)
        if stateful_set is None:
            self._pod_writes.forget(key)
            self._revision_writes.forget(key)
            self._lagging.discard(key)
            return
        if dig(stateful_set, "spec", "selector", default={}) == {}:
            text = "This stateful set is selecting all pods. A non-empty selector is required."
            self._events.event(STATEFUL_SET, stateful_set, WARNING, "SelectingAll", text)
            return
        if not (self._pod_writes.satisfied(key) and self._revision_writes.satisfied(key)):
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._lagging.add(key)
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        self._lagging.discard(key)
        sync = await self._prepare(key, stateful_set)
        await sync.run()
        if sync.recheck:
            self._loop.queue.add_after(key, sync.recheck)

    async def _prepare(self, key: NamespacedName, stateful_set: Object) -> Sync:
        selector = _selector(stateful_set)
        revisions = self._revisions.lookup(OWNER_INDEX, uid(stateful_set))
        revisions += self._revisions.lookup(OWNER_INDEX, orphans_of(key[0]))
        pods = self._pods.lookup(OWNER_INDEX, uid(stateful_set))
        pods += self._pods.lookup(OWNER_INDEX, orphans_of(key[0]))
        history = History(
            self._client,
            stateful_set,
            await Adopter(self._client, STATEFUL_SET, stateful_set, selector, CONTROLLER_REVISION).claim(
                revisions
            ),
            lambda stored: self._revision_writes.wrote(key, stored),
        )
        adopter = Adopter(self._client, STATEFUL_SET, stateful_set, selector, POD)
        return Sync(
            self._client,
            self._events,
            stateful_set,
            await adopter.claim(pod for pod in pods if is_member(stateful_set, pod)),
            history,
            lambda claim: self._claims.get(key[0], claim),
            lambda pod: self._pod_writes.wrote(key, pod),
            lambda pod: self._pod_writes.deleted(key, pod),
        )


def _selector(stateful_set: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(stateful_set, "spec", "selector"))
