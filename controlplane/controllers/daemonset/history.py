"""The ControllerRevisions of one DaemonSet: made, numbered, freed of doubles and cut to the history limit.

Used by one reconcile. All writes carry the resourceVersion they were decided on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from controlplane.client.client import Client
from controlplane.controllers.daemonset.placement import HASH_LABEL
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, labels, name, namespace, uid
from controlplane.meta.owners import owner_reference
from controlplane.meta.pod_templates import safe_hash, template_of
from controlplane.meta.revisions import in_order, next_number, number, template_patch
from controlplane.resources.catalog import CONTROLLER_REVISION, DAEMON_SET, POD

log = logging.getLogger(__name__)


class History:
    """`revisions` are all that the DaemonSet controls; `wrote` is told of each revision written.

    After `construct`, `current` is the revision of the present template and `old` are all others.
    """

    def __init__(
        self, client: Client, daemon_set: Object, revisions: Iterable[Object], wrote: Callable[[Object], None]
    ) -> None:
        self.current: Object = {}
        self.old: list[Object] = []
        self._client = client
        self._daemon_set = daemon_set
        self._revisions = list(revisions)
        self._wrote = wrote

    @property
    def hash(self) -> str:
        """What pods of the present template are labelled with."""
        return labels(self.current)[HASH_LABEL]

    async def construct(self, pods: Sequence[Object]) -> None:
        """Find or make the revision of the present template. `pods` are all of the DaemonSet's.

        Raises Conflict for a collision of hashes, after having it counted in the status.
        """
        patch = template_patch(self._daemon_set)
        current: list[Object] = []
        for each in self._revisions:
            revision = each
            if HASH_LABEL not in labels(revision):
                marks = {**labels(revision), HASH_LABEL: name(revision)}
                revision = await self._patch(revision, {"metadata": {"labels": marks}})
            (current if revision.get("data") == patch else self.old).append(revision)
        self.old = in_order(self.old)
        wanted = next_number(self.old)
        if not current:
            self.current = await self._snapshot(patch, wanted)
            return
        kept = in_order(current)[-1]
        await self._drop_doubles(kept, current, pods)
        if number(kept) < wanted:
            kept = await self._patch(kept, {"revision": wanted})
        self.current = kept

    async def clean_up(self, pods: Sequence[Object]) -> None:
        """Delete the oldest revisions beyond the limit that no pod is of."""
        limit = dig(self._daemon_set, "spec", "revisionHistoryLimit", default=10)
        surplus = len(self.old) - limit
        if surplus <= 0:
            return
        alive = {labels(pod).get(HASH_LABEL) for pod in pods}
        idle = [each for each in self.old if labels(each).get(HASH_LABEL) not in alive]
        for revision in idle[:surplus]:
            await self._delete(revision)

    async def _snapshot(self, patch: Object, revision: int) -> Object:
        owner = self._daemon_set
        hash_ = safe_hash(template_of(owner), dig(owner, "status", "collisionCount", default=0))
        wanted: Object = {
            "apiVersion": CONTROLLER_REVISION.api_version,
            "kind": CONTROLLER_REVISION.kind,
            "metadata": {
                "name": f"{name(owner)}-{hash_}",
                "namespace": namespace(owner),
                "labels": {**labels(template_of(owner)), HASH_LABEL: hash_},
                "annotations": dict(annotations_of(owner)),
                "ownerReferences": [owner_reference(DAEMON_SET.api_version, DAEMON_SET.kind, owner)],
            },
            "data": patch,
            "revision": revision,
        }
        try:
            created = await self._client.create(CONTROLLER_REVISION, wanted)
        except AlreadyExists:
            return await self._existing(wanted)
        self._wrote(created)
        return created

    async def _existing(self, wanted: Object) -> Object:
        """The name is taken: by our own revision that the cache lacks, or by another template of the same hash."""
        found = await self._client.get(CONTROLLER_REVISION, name(wanted), namespace(wanted))
        if found.get("data") == wanted["data"]:
            return found
        fresh = await self._client.get(DAEMON_SET, name(self._daemon_set), namespace(self._daemon_set))
        known, count = (
            dig(each, "status", "collisionCount", default=0) for each in (self._daemon_set, fresh)
        )
        if known == count:
            status = {**(fresh.get("status") or {}), "collisionCount": count + 1}
            await self._client.update_status(DAEMON_SET, {**fresh, "status": status})
        raise Conflict(f"{name(wanted)}: hash collision, trying the next hash")

    async def _drop_doubles(self, kept: Object, current: Sequence[Object], pods: Sequence[Object]) -> None:
        """Of several revisions with the present template one stays, and its hash is what all their pods get."""
        doubles = [each for each in current if uid(each) != uid(kept)]
        if not doubles:
            return
        hash_ = labels(kept)[HASH_LABEL]
        theirs = {labels(each).get(HASH_LABEL) for each in doubles}
        for pod in pods:
            if labels(pod).get(HASH_LABEL) in theirs - {hash_}:
                patch = {"metadata": {"labels": {HASH_LABEL: hash_}}}
                await self._client.patch(POD, name(pod), patch, namespace(pod))
        for each in doubles:
            await self._delete(each)

    async def _patch(self, revision: Object, patch: Object) -> Object:
        metadata = {**patch.get("metadata", {}), "resourceVersion": revision["metadata"]["resourceVersion"]}
        stored = await self._client.patch(
            CONTROLLER_REVISION, name(revision), {**patch, "metadata": metadata}, namespace(revision)
        )
        self._wrote(stored)
        return stored

    async def _delete(self, revision: Object) -> None:
        try:
            await self._client.delete(
                CONTROLLER_REVISION, name(revision), namespace(revision), uid=uid(revision)
            )
        except NotFound:
            return
        log.info("%s/%s: deleted old controller revision", namespace(revision), name(revision))
