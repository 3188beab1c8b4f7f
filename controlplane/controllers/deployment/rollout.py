"""One reconcile of one Deployment: reads what is, asks the pure rules, writes ReplicaSets and status.

Made by `controller` for each key. All writes carry the resourceVersion they were decided on, so a stale cache
leads to a Conflict and another try, never to a wrong size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from controlplane.client.client import Client
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.pod_control import namespace_is_terminating
from controlplane.controllers.deployment import plan, revisions, sizes, status, templates
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object, StatusError
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import clone, dig, is_being_deleted, name, namespace, uid
from controlplane.meta.owners import is_controlled_by, owner_reference
from controlplane.meta.pod_templates import template_of
from controlplane.meta.pods import is_finished
from controlplane.resources.catalog import DEPLOYMENT, REPLICA_SET

log = logging.getLogger(__name__)


class Rollout:
    """`sets` are the Deployment's ReplicaSets; `pods_of(set)` its pods; `wrote_set(object)` is told of each
    write.

    After `run`, `deployment` is the newest state known and `recheck` the seconds until it must be looked at
    again (0 = only when something changes).
    """

    def __init__(
        self,
        client: Client,
        events: EventRecorder,
        deployment: Object,
        sets: list[Object],
        pods_of: Callable[[Object], list[Object]],
        wrote_set: Callable[[Object], None],
    ) -> None:
        self.deployment = deployment
        self.recheck = 0.0
        self._client = client
        self._events = events
        self._sets = {uid(each): each for each in sets}
        self._pods_of = pods_of
        self._wrote_set = wrote_set
        self._moment = datetime.now(UTC)

    async def run(self) -> None:
        """Do what is to be done now. Raises StatusError; then the key has to be tried again."""
        if is_being_deleted(self.deployment):
            await self._sync_revision(create=False)
            await self._write_status(self._counts())
            return
        await self._note_pause()
        if dig(self.deployment, "spec", "paused", default=False):
            await self._sync()
            return
        await self._sync_revision(create=False)
        if plan.needs_scaling(self.deployment, self._all()):
            await self._sync()
        elif sizes.is_rolling(self.deployment):
            await self._roll()
        else:
            await self._recreate()

    def _all(self) -> list[Object]:
        return list(self._sets.values())

    def _split(self) -> tuple[Object | None, list[Object]]:
        """The set of the present template, and all others."""
        new = revisions.find_new(self.deployment, self._all())
        return new, [each for each in self._all() if new is None or uid(each) != uid(new)]

    # strategies

    async def _sync(self) -> None:
        """Follow the size alone: paused, or resized."""
        await self._sync_revision(create=False)
        new, old = self._split()
        for each, size in plan.scale(self.deployment, new, old):
            await self._resize(each, size)
        if dig(self.deployment, "spec", "paused", default=False):
            await self._clean_up()
        await self._write_status(self._counts())

    async def _roll(self) -> None:
        new = await self._sync_revision(create=True)
        assert new is not None
        _, old = self._split()
        steps = plan.grow_new(self.deployment, new, [new, *old]) or plan.shrink_old(self.deployment, new, old)
        for each, size in steps:
            await self._resize(each, size)
        if not steps and status.is_complete(self.deployment, self.deployment.get("status") or {}):
            await self._clean_up()
        await self._write_rollout_status()

    async def _recreate(self) -> None:
        """All old pods go before the first new one is made."""
        new, old = self._split()
        running = sizes.active(old)
        for each in running:
            await self._resize(each, 0)
        if not running and not self._old_pods_remain(old):
            new = await self._sync_revision(create=True)
            assert new is not None
            if sizes.wanted(new) != sizes.wanted(self.deployment):
                await self._resize(new, sizes.wanted(self.deployment))
            if status.is_complete(self.deployment, self.deployment.get("status") or {}):
                await self._clean_up()
        await self._write_rollout_status()

    def _old_pods_remain(self, old: Sequence[Object]) -> bool:
        if sizes.status_sum(old, "replicas") > 0:
            return True
        return any(not is_finished(pod) for each in old for pod in self._pods_of(each))

    # ReplicaSets

    async def _sync_revision(self, *, create: bool) -> Object | None:
        """Bring the set of the present template, and the Deployment, to the right revision; make it if asked
        to.
        """
        new, old = self._split()
        number = revisions.next_revision(old)
        if new is None:
            return await self._create_set(number, old) if create else None
        wanted = revisions.set_annotations(self.deployment, new, number)
        wait = dig(self.deployment, "spec", "minReadySeconds", default=0)
        if wanted != annotations_of(new) or wait != dig(new, "spec", "minReadySeconds", default=0):
            changed = clone(new)
            changed["metadata"]["annotations"] = wanted
            changed["spec"]["minReadySeconds"] = wait
            new = await self._update_set(changed)
        await self._set_revision(annotations_of(new).get(revisions.REVISION, ""))
        if status.has_deadline(self.deployment) and status.progressing(self.deployment) is None:
            text = f'Found new replica set "{name(new)}"'
            await self._set_progressing("True", status.FOUND_NEW_SET, text)
        return new

    async def _create_set(self, number: int, old: Sequence[Object]) -> Object:
        wanted = self._new_set(number, old)
        try:
            created = await self._client.create(REPLICA_SET, wanted)
        except AlreadyExists:
            return await self._use_existing(wanted)
        except StatusError as error:
            if namespace_is_terminating(error):
                # Nothing can be made there any more, and nobody is left to be told.
                raise Conflict(str(error)) from error
            text = f'Failed to create new replica set "{name(wanted)}": {error}'
            if status.has_deadline(self.deployment):
                await self._set_progressing("False", status.CREATE_ERROR, text)
            self._event(WARNING, status.CREATE_ERROR, text)
            raise
        self._keep(created)
        if sizes.wanted(created) > 0:
            text = f"Scaled up replica set {name(created)} from 0 to {sizes.wanted(created)}"
            self._event(NORMAL, "ScalingReplicaSet", text)
        await self._set_revision(str(number))
        if status.has_deadline(self.deployment):
            text = f'Created new replica set "{name(created)}"'
            await self._set_progressing("True", status.NEW_SET_CREATED, text)
        return created

    def _new_set(self, number: int, old: Sequence[Object]) -> Object:
        collisions = dig(self.deployment, "status", "collisionCount", default=0)
        template = template_of(self.deployment)
        hash_ = templates.template_hash(template, collisions)
        template = templates.with_hash(template, hash_)
        selector = clone(dig(self.deployment, "spec", "selector", default={}))
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), templates.HASH_LABEL: hash_}
        spec: Object = {
            "replicas": plan.new_set_size(self.deployment, old, 0),
            "selector": selector,
            "template": template,
        }
        wait = dig(self.deployment, "spec", "minReadySeconds", default=0)
        if wait:
            spec["minReadySeconds"] = wait
        return {
            "apiVersion": REPLICA_SET.api_version,
            "kind": REPLICA_SET.kind,
            "metadata": {
                "name": templates.replica_set_name(name(self.deployment), hash_),
                "namespace": namespace(self.deployment),
                "labels": template["metadata"]["labels"],
                "annotations": revisions.set_annotations(self.deployment, None, number),
                "ownerReferences": [
                    owner_reference(DEPLOYMENT.api_version, DEPLOYMENT.kind, self.deployment)
                ],
            },
            "spec": spec,
        }

    async def _use_existing(self, wanted: Object) -> Object:
        """The name is taken: by our own set that the cache lacks, or by another template of the same hash."""
        found = await self._client.get(REPLICA_SET, name(wanted), namespace(wanted))
        mine = is_controlled_by(found, uid(self.deployment))
        if mine and templates.same_template(template_of(found), template_of(wanted)):
            self._keep(found)
            return found
        state = {**(self.deployment.get("status") or {})}
        state["collisionCount"] = state.get("collisionCount", 0) + 1
        await self._write_status(state)
        raise Conflict(f"{name(wanted)}: hash collision, trying the next hash")

    async def _resize(self, replica_set: Object, size: int) -> None:
        """Write the size and the size annotations, as far as they differ, and tell of a change."""
        wanted = {**annotations_of(replica_set), **revisions.size_annotations(self.deployment)}
        same_size = sizes.wanted(replica_set) == size
        if same_size and wanted == annotations_of(replica_set):
            return
        changed = clone(replica_set)
        changed["metadata"]["annotations"] = wanted
        changed["spec"]["replicas"] = size
        await self._update_set(changed)
        if not same_size:
            self._event(NORMAL, "ScalingReplicaSet", plan.describe(replica_set, size))

    async def _update_set(self, changed: Object) -> Object:
        stored = await self._client.update(REPLICA_SET, changed)
        self._keep(stored)
        return stored

    def _keep(self, replica_set: Object) -> None:
        self._sets[uid(replica_set)] = replica_set
        self._wrote_set(replica_set)

    async def _clean_up(self) -> None:
        """Delete history beyond the limit."""
        _, old = self._split()
        for each in revisions.expired_history(self.deployment, old):
            try:
                await self._client.delete(REPLICA_SET, name(each), namespace(each), uid=uid(each))
            except NotFound:
                continue
            log.info("%s/%s: deleted old replica set", namespace(each), name(each))

    # the Deployment itself

    async def _note_pause(self) -> None:
        """Keep the reason of Progressing in step with `spec.paused`, so that the deadline does not run
        meanwhile.
        """
        if not status.has_deadline(self.deployment):
            return
        current = status.progressing(self.deployment) or {}
        if current.get("reason") == status.TIMED_OUT:
            return
        noted = current.get("reason") == status.PAUSED
        paused = dig(self.deployment, "spec", "paused", default=False)
        if paused and not noted:
            await self._set_progressing("Unknown", status.PAUSED, "Deployment is paused")
        elif noted and not paused:
            await self._set_progressing("Unknown", status.RESUMED, "Deployment is resumed")

    async def _set_revision(self, number: str) -> None:
        if annotations_of(self.deployment).get(revisions.REVISION, "") == number:
            return
        metadata = self.deployment["metadata"]
        notes = {**annotations_of(self.deployment), revisions.REVISION: number}
        self.deployment = await self._client.update(
            DEPLOYMENT, {**self.deployment, "metadata": {**metadata, "annotations": notes}}
        )

    async def _set_progressing(self, state: str, reason: str, text: str) -> None:
        current = self.deployment.get("status") or {}
        new = status.condition(status.PROGRESSING, state, reason, text, self._moment)
        listed = status.with_condition(current.get("conditions") or [], new)
        await self._write_status({**current, "conditions": listed})

    def _counts(self) -> Object:
        new, _ = self._split()
        return status.counts(self.deployment, self._all(), new, self._moment)

    async def _write_rollout_status(self) -> None:
        new, _ = self._split()
        fresh = status.rollout_status(self.deployment, self._all(), new, self._moment)
        await self._write_status(fresh)
        self.recheck = status.recheck_after(self.deployment, fresh, self._moment)

    async def _write_status(self, fresh: Object) -> None:
        if fresh != (self.deployment.get("status") or {}):
            self.deployment = await self._client.update_status(
                DEPLOYMENT, {**self.deployment, "status": fresh}
            )

    def _event(self, type_: str, reason: str, message: str) -> None:
        self._events.event(DEPLOYMENT, self.deployment, type_, reason, message)
