"""The DaemonSet controller's loop: which DaemonSet to look at when. The work itself is `sync.Sync`."""

from __future__ import annotations

from controlplane.client.adoption import Adopter
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.daemonset.backoff import FailedPods
from controlplane.controllers.daemonset.history import History
from controlplane.controllers.daemonset.placement import Placement
from controlplane.controllers.daemonset.sync import Sync
from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, orphans_of
from controlplane.meta.pod_templates import template_of
from controlplane.resources.catalog import CONTROLLER_REVISION, DAEMON_SET, NODE, POD

_RECHECK_SECONDS = 1.0


class DaemonSetController:
    """Keys are (namespace, name) of DaemonSets."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._sets = informers.of(DAEMON_SET)
        self._pods = informers.of(POD)
        self._revisions = informers.of(CONTROLLER_REVISION)
        self._nodes = informers.of(NODE)
        self._pods.index_by(OWNER_INDEX, by_controller)
        self._revisions.index_by(OWNER_INDEX, by_controller)
        self._events = EventRecorder(client, "daemonset-controller")
        self._pod_writes: Expectations[NamespacedName] = Expectations(self._pods)
        self._revision_writes: Expectations[NamespacedName] = Expectations(self._revisions)
        self._lagging: set[NamespacedName] = set()
        self._placements: dict[NamespacedName, Placement] = {}
        self._failed_pods = FailedPods()
        self._loop = Controller("daemonset", self._reconcile)
        self._sets.on_change(self._set_changed)
        self._pods.on_change(self._pod_changed)
        self._revisions.on_change(self._revision_changed)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._sets, self._pods, self._revisions, self._nodes)

    # following the cluster

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None:
            return
        if old is not None and (new is None or uid(old) != uid(new)):
            self._failed_pods.forget(uid(old))
        self._loop.queue.add((namespace(obj), name(obj)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        self._dependent_changed(old, new)

    def _revision_changed(self, old: Object | None, new: Object | None) -> None:
        """A new revision with an owner is no news, as upstream has it, but for who waits for his own write."""
        owner = controller_of(new) if new is not None and old is None else None
        if new is None or owner is None or (namespace(new), owner["name"]) in self._lagging:
            self._dependent_changed(old, new)

    def _dependent_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake the DaemonSets that owned or own the object, or that may adopt it."""
        for each in (old, new):
            controller = controller_of(each) if each is not None else None
            if each is not None and controller is not None and controller["kind"] == DAEMON_SET.kind:
                self._loop.queue.add((namespace(each), controller["name"]))
        if new is None or controller_of(new) is not None:
            return
        if old is not None and labels(old) == labels(new) and controller_of(old) is None:
            return
        for daemon_set in self._sets.items(namespace(new)):
            if _selector(daemon_set).matches(labels(new)):
                self._loop.queue.add((namespace(daemon_set), name(daemon_set)))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake the DaemonSets for which the node is another one now."""
        for daemon_set in self._sets.items():
            placement = self._placement(daemon_set)
            if new is None:
                if old is not None:
                    placement.forget(name(old))
                changed = True
            elif old is None:
                changed = placement.of(new).should_run
            else:
                changed = placement.of(old) != placement.judge(new)
            if changed:
                self._loop.queue.add((namespace(daemon_set), name(daemon_set)))

    def _placement(self, daemon_set: Object) -> Placement:
        key = (namespace(daemon_set), name(daemon_set))
        placement = self._placements.get(key)
        if placement is None or placement.template != template_of(daemon_set):
            placement = self._placements[key] = Placement(daemon_set)
        return placement

    # working

    async def _reconcile(self, key: NamespacedName) -> None:
        daemon_set = self._sets.get(*key)
        if daemon_set is None:
            self._pod_writes.forget(key)
            self._revision_writes.forget(key)
            self._placements.pop(key, None)
            self._lagging.discard(key)
            return
        if dig(daemon_set, "spec", "selector", default={}) == {}:
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self._events.event(DAEMON_SET, daemon_set, WARNING, "SelectingAll", text)
            return
        if is_being_deleted(daemon_set):
            return
        if not self._revision_writes.satisfied(key):
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._lagging.add(key)
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        self._lagging.discard(key)
        may_act = self._pod_writes.satisfied(key)
        if not may_act:
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
        sync = await self._prepare(key, daemon_set)
        await sync.run(may_act=may_act)
        if sync.recheck:
            self._loop.queue.add_after(key, sync.recheck)

    async def _prepare(self, key: NamespacedName, daemon_set: Object) -> Sync:
        selector = _selector(daemon_set)
        claimed = []
        for kind, informer in ((POD, self._pods), (CONTROLLER_REVISION, self._revisions)):
            candidates = informer.lookup(OWNER_INDEX, uid(daemon_set))
            candidates += informer.lookup(OWNER_INDEX, orphans_of(key[0]))
            adopter = Adopter(self._client, DAEMON_SET, daemon_set, selector, kind)
            claimed.append(await adopter.claim(candidates))
        pods, revisions = claimed
        placement = self._placement(daemon_set)
        return Sync(
            self._client,
            self._events,
            daemon_set,
            {name(node): placement.of(node) for node in self._nodes.items()},
            pods,
            History(
                self._client,
                daemon_set,
                revisions,
                lambda stored: self._revision_writes.wrote(key, stored),
            ),
            self._failed_pods,
            lambda pod: self._pod_writes.wrote(key, pod),
            lambda pod: self._pod_writes.deleted(key, pod),
        )


def _selector(daemon_set: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(daemon_set, "spec", "selector"))
