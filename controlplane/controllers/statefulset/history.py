"""The ControllerRevisions of one StatefulSet: found, made, numbered and cut to the history limit.

Used by one reconcile. All writes carry the resourceVersion they were decided on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from controlplane.client.client import Client
from controlplane.errors import AlreadyExists, NotFound, Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, labels, name, namespace, uid
from controlplane.meta.owners import owner_reference
from controlplane.meta.pod_templates import safe_hash, template_of
from controlplane.meta.revisions import in_order, next_number, template_patch
from controlplane.resources.catalog import CONTROLLER_REVISION, STATEFUL_SET

log = logging.getLogger(__name__)

HASH_LABEL = "controller.kubernetes.io/hash"

_PREFIX_LIMIT = 223


@dataclass(frozen=True, slots=True)
class Revisions:
    """The revision pods are at, the one they go to, and the count of hash collisions so far."""

    current: Object
    update: Object
    collisions: int


class History:
    """`revisions` are all that the StatefulSet controls; `wrote` is told of each revision written."""

    def __init__(
        self,
        client: Client,
        stateful_set: Object,
        revisions: Iterable[Object],
        wrote: Callable[[Object], None],
    ) -> None:
        self._client = client
        self._set = stateful_set
        self._revisions = in_order(revisions)
        self._wrote = wrote

    async def construct(self) -> Revisions:
        """Find or make the revision of the present template, and find the one the pods are at."""
        collisions = dig(self._set, "status", "collisionCount", default=0)
        patch = template_patch(self._set)
        number = next_number(self._revisions)
        equal = [each for each in self._revisions if each.get("data") == patch]
        if not equal:
            update, collisions = await self._create(patch, number, collisions)
        elif uid(equal[-1]) == uid(self._revisions[-1]):
            update = equal[-1]
        else:
            # Rolled back: the old revision becomes the newest.
            update = await self._renumber(equal[-1], number)
        wanted = dig(self._set, "status", "currentRevision", default="")
        current = next((each for each in self._revisions if name(each) == wanted), update)
        return Revisions(current, update, collisions)

    async def truncate(self, revisions: Revisions, in_use: Set[str]) -> None:
        """Delete the oldest revisions beyond the limit that neither the set nor a pod (`in_use`: names) needs."""
        needed = {name(revisions.current), name(revisions.update)} | in_use
        idle = [each for each in self._revisions if name(each) not in needed]
        limit = int(dig(self._set, "spec", "revisionHistoryLimit", default=10))
        # A negative limit, which the API lets pass, keeps everything.
        surplus = max(0, len(idle) - limit) if limit >= 0 else 0
        for each in idle[:surplus]:
            try:
                await self._client.delete(CONTROLLER_REVISION, name(each), namespace(each), uid=uid(each))
            except NotFound:
                continue
            log.info("%s/%s: deleted old controller revision", namespace(each), name(each))

    async def _create(self, patch: Object, number: int, collisions: int) -> tuple[Object, int]:
        """The new revision; names taken by other templates are passed over and counted."""
        while True:
            wanted = self._new(patch, number, collisions)
            try:
                created = await self._client.create(CONTROLLER_REVISION, wanted)
            except AlreadyExists:
                found = await self._client.get(CONTROLLER_REVISION, name(wanted), namespace(wanted))
                if found.get("data") == patch:
                    return found, collisions
                collisions += 1
                continue
            self._wrote(created)
            return created, collisions

    def _new(self, patch: Object, number: int, collisions: int) -> Object:
        hash_ = safe_hash(template_of(self._set), collisions)
        return {
            "apiVersion": CONTROLLER_REVISION.api_version,
            "kind": CONTROLLER_REVISION.kind,
            "metadata": {
                "name": f"{name(self._set)[:_PREFIX_LIMIT]}-{hash_}",
                "namespace": namespace(self._set),
                "labels": {**labels(template_of(self._set)), HASH_LABEL: hash_},
                "annotations": dict(annotations_of(self._set)),
                "ownerReferences": [owner_reference(STATEFUL_SET.api_version, STATEFUL_SET.kind, self._set)],
            },
            "data": patch,
            "revision": number,
        }

    async def _renumber(self, revision: Object, number: int) -> Object:
        patch = {
            "metadata": {"resourceVersion": revision["metadata"]["resourceVersion"]},
            "revision": number,
        }
        stored = await self._client.patch(CONTROLLER_REVISION, name(revision), patch, namespace(revision))
        self._wrote(stored)
        return stored
