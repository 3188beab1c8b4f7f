"""Deletes objects whose owners are gone, and carries out foreground and orphaning deletion of owners.

It follows the metadata of all kinds. What the caches say is confirmed at the API before anything is deleted,
as the informers of different kinds are not at the same revision.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.informer import Informer, Informers
from controlplane.client.known_kinds import KnownKinds
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta.objects import is_being_deleted, metadata, name, namespace, uid
from controlplane.meta.owners import references
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_BY_OWNER = "owners"

Place = tuple[str, str, str, str]
"""apiVersion, kind, namespace, name."""


_GONE_LIMIT = 500
"""Deleted owners that are remembered: their kind may be gone before their dependents are looked at."""


class GarbageCollector:
    """Keys are places of objects; `kinds` are all served kinds, those that come later too.

    Events are left out, as nothing owns them.
    """

    def __init__(self, client: Client, informers: Informers, kinds: KnownKinds | Iterable[Kind]) -> None:
        self._client = client
        self._all_informers = informers
        self._known = KnownKinds.of(kinds)
        self._informers: dict[tuple[str, str], Informer] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._events = EventRecorder(client, "garbage-collector-controller")
        self._loop: Controller[Place] = Controller("garbage-collector", self._reconcile, workers=8)
        self._known.subscribe(self._follow, self._unfollow)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(*self._informers.values())

    def _follow(self, kind: Kind) -> None:
        if kind.kind == "Event" and kind.group in ("", "events.k8s.io"):
            return
        informer = self._all_informers.of(kind)
        self._informers[kind.api_version, kind.kind] = informer
        informer.index_by(_BY_OWNER, _owner_uids)
        informer.on_change(partial(self._changed, kind))

    def _unfollow(self, kind: Kind) -> None:
        self._informers.pop((kind.api_version, kind.kind), None)
        self._all_informers.drop(kind)

    def _remember(self, owner_uid: str) -> None:
        self._gone[owner_uid] = None
        while len(self._gone) > _GONE_LIMIT:
            self._gone.popitem(last=False)

    def _changed(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._remember(uid(old))
                self._wake(self._dependents(uid(old)))
                self._wake(self._waiting_owners(old))
            return
        if is_being_deleted(new) and metadata(new).get("finalizers"):
            self._wake([(kind, new)])
        if references(new) and (old is None or references(old) != references(new)):
            self._wake([(kind, new)])
        if old is not None and references(old) != references(new):
            self._wake(self._waiting_owners(old))
        if is_being_deleted(new) and (old is None or not is_being_deleted(old)):
            self._wake(self._waiting_owners(new))

    def _wake(self, objects: Iterable[tuple[Kind, Object]]) -> None:
        for kind, obj in objects:
            self._loop.queue.add((kind.api_version, kind.kind, namespace(obj), name(obj)))

    def _dependents(self, owner_uid: str) -> list[tuple[Kind, Object]]:
        return [
            (informer.kind, obj)
            for informer in self._informers.values()
            for obj in informer.lookup(_BY_OWNER, owner_uid)
        ]

    def _waiting_owners(self, obj: Object) -> list[tuple[Kind, Object]]:
        """Owners of the object that are being deleted in the foreground."""
        found = []
        for reference in references(obj):
            kind = self._known.resolve(reference["apiVersion"], reference["kind"])
            owner = self._cached_owner(reference, namespace(obj))
            if kind is not None and owner is not None and _has(owner, FOREGROUND):
                found.append((kind, owner))
        return found

    def _cached_owner(self, reference: Object, space: str) -> Object | None:
        kind = self._known.resolve(reference["apiVersion"], reference["kind"])
        informer = self._informers.get((kind.api_version, kind.kind)) if kind is not None else None
        if kind is None or informer is None:
            return None
        owner = informer.get(space if kind.namespaced else "", reference["name"])
        return owner if owner is not None and uid(owner) == reference["uid"] else None

    async def _reconcile(self, place: Place) -> None:
        informer = self._informers.get(place[:2])
        obj = informer.get(place[2], place[3]) if informer is not None else None
        if informer is None or obj is None:
            return
        kind = informer.kind
        if is_being_deleted(obj):
            if _has(obj, ORPHAN):
                await self._orphan(kind, obj)
            elif _has(obj, FOREGROUND):
                await self._delete_dependents(kind, obj)
            return
        if references(obj):
            await self._collect(kind, obj)

    # objects with owners

    async def _collect(self, kind: Kind, obj: Object) -> None:
        """Delete the object when no owner of it stands any more; else forget the owners that do not."""
        solid, dangling, waiting = [], [], []
        for reference in references(obj):
            owner = await self._find_owner(kind, obj, reference)
            if owner is None:
                dangling.append(reference)
            elif is_being_deleted(owner) and _has(owner, FOREGROUND):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if dangling or waiting:
                await self._set_owners(kind, obj, solid)
            return
        policy = "Background"
        if _has(obj, ORPHAN):
            policy = "Orphan"
        elif _has(obj, FOREGROUND) or (waiting and self._dependents(uid(obj))):
            # The owner is to go after all below it: so this object has to wait for its own dependents.
            policy = "Foreground"
        await self._delete(kind, obj, policy)

    async def _find_owner(self, kind: Kind, obj: Object, reference: Object) -> Object | None:
        """The owner as it stands, or None if there is no such object (any more)."""
        cached = self._cached_owner(reference, namespace(obj))
        if cached is not None:
            return cached
        if reference["uid"] in self._gone:
            return None
        owner_kind = self._known.resolve(reference["apiVersion"], reference["kind"])
        if owner_kind is None:
            # A kind we do not serve cannot be judged: what it owns stays.
            return reference
        if owner_kind.namespaced and not kind.namespaced:
            described = f"{reference['apiVersion']}/{reference['kind']}, name: {reference['name']}"
            text = f"ownerRef [{described}] is namespaced, its dependent is not"
            self._events.event(kind, obj, WARNING, "OwnerRefInvalidNamespace", text)
            return reference
        space = namespace(obj) if owner_kind.namespaced else ""
        try:
            found = await self._client.get(owner_kind, reference["name"], space)
        except NotFound:
            return None
        return found if uid(found) == reference["uid"] else None

    async def _delete(self, kind: Kind, obj: Object, policy: str) -> None:
        place = f"{kind.plural} {namespace(obj)}/{name(obj)}"
        try:
            await self._client.delete(
                kind,
                name(obj),
                namespace(obj),
                propagation=policy,
                uid=uid(obj),
                revision=metadata(obj).get("resourceVersion", ""),
            )
        except NotFound:
            return
        log.info("%s: deleted, its owners are gone", place)

    # owners that are being deleted

    async def _delete_dependents(self, kind: Kind, obj: Object) -> None:
        """Foreground: the owner goes when all dependents that block it have gone."""
        blocking = [
            (dependent_kind, dependent)
            for dependent_kind, dependent in self._dependents(uid(obj))
            if any(ref["uid"] == uid(obj) and ref.get("blockOwnerDeletion") for ref in references(dependent))
        ]
        self._wake(
            (each, dependent)
            for each, dependent in self._dependents(uid(obj))
            if not is_being_deleted(dependent)
        )
        if not blocking:
            await self._remove_finalizer(kind, obj, FOREGROUND)

    async def _orphan(self, kind: Kind, obj: Object) -> None:
        """The dependents forget the owner before it goes."""
        for dependent_kind, dependent in self._dependents(uid(obj)):
            kept = [ref for ref in references(dependent) if ref["uid"] != uid(obj)]
            try:
                await self._set_owners(dependent_kind, dependent, kept)
            except NotFound:
                continue
        await self._remove_finalizer(kind, obj, ORPHAN)

    async def _set_owners(self, kind: Kind, obj: Object, kept: list[Object]) -> None:
        """Conflict when the object has changed since it was cached; then the queue tries again."""
        patch = {
            "metadata": {
                "resourceVersion": metadata(obj)["resourceVersion"],
                "ownerReferences": kept or None,
            }
        }
        await self._client.patch(kind, name(obj), patch, namespace(obj))

    async def _remove_finalizer(self, kind: Kind, obj: Object, finalizer: str) -> None:
        """On a fresh copy, as the finalizers of others must survive."""
        fresh = await self._client.get(kind, name(obj), namespace(obj))
        if uid(fresh) != uid(obj):
            return
        kept = [each for each in metadata(fresh).get("finalizers") or () if each != finalizer]
        patch = {
            "metadata": {"resourceVersion": metadata(fresh)["resourceVersion"], "finalizers": kept or None}
        }
        try:
            await self._client.patch(kind, name(obj), patch, namespace(obj))
        except NotFound:
            return
        except Conflict:
            self._wake([(kind, obj)])


def _owner_uids(obj: Object) -> list[str]:
    return [reference["uid"] for reference in references(obj)]


def _has(obj: Object, finalizer: str) -> bool:
    return finalizer in (metadata(obj).get("finalizers") or ())
