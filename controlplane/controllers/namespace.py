"""Empties namespaces that are being deleted, says what is left in them, and lets them go when nothing is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.client.known_kinds import KnownKinds
from controlplane.errors import NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import clone, dig, is_being_deleted, metadata, name, namespace
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import NAMESPACE
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

FINALIZER = "kubernetes"
_RECHECK_SECONDS = 5.0


class NamespaceController:
    """Keys are names of namespaces; `kinds` are all served kinds, of which the namespaced ones are emptied."""

    def __init__(self, client: Client, informers: Informers, kinds: KnownKinds | Iterable[Kind]) -> None:
        self._client = client
        self._informers = informers
        self._known = KnownKinds.of(kinds)
        self._namespaces = informers.of(NAMESPACE)
        self._loop: Controller[str] = Controller("namespace", self._reconcile)
        self._namespaces.on_change(self._namespace_changed)
        self._known.subscribe(self._follow)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._namespaces)

    def _follow(self, kind: Kind) -> None:
        # Events come in masses, and nothing holds them back when they are deleted.
        if _has_content(kind) and kind.kind != "Event":
            self._informers.of(kind).on_change(self._content_changed)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and is_being_deleted(new):
            self._loop.queue.add(name(new))

    def _content_changed(self, old: Object | None, new: Object | None) -> None:
        """Something left a namespace that waits for it, or slipped in while it was closing."""
        obj = new or old
        if obj is None or (old is not None and new is not None):
            return
        found = self._namespaces.get("", namespace(obj))
        if found is not None and is_being_deleted(found):
            self._loop.queue.add(name(found))

    async def _reconcile(self, key: str) -> None:
        found = self._namespaces.get("", key)
        if found is None or not is_being_deleted(found):
            return
        finalizers = dig(found, "spec", "finalizers", default=[])
        if FINALIZER not in finalizers:
            return
        await self._known.refresh()
        kinds = [kind for kind in self._known.preferred if _has_content(kind)]
        await asyncio.gather(*(self._empty(kind, key) for kind in kinds))
        remaining = [(kind, await self._content(kind, key)) for kind in kinds]
        await self._report(key, [(kind, items) for kind, items in remaining if items])
        if any(items for _, items in remaining):
            # What leaves wakes this key; the timer is for objects no informer of ours shows.
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        await self._finalize(key)

    async def _empty(self, kind: Kind, key: str) -> None:
        if any(not is_being_deleted(obj) for obj in await self._content(kind, key)):
            await self._client.delete_collection(kind, key, propagation="Background")

    async def _content(self, kind: Kind, key: str) -> Sequence[Object]:
        try:
            return (await self._client.list(kind, key)).items
        except NotFound:
            return ()  # the kind is served no more

    async def _report(self, key: str, remaining: Sequence[tuple[Kind, Sequence[Object]]]) -> None:
        """Write the conditions kubectl shows for a namespace that does not go away."""
        found = await self._client.get(NAMESPACE, key)
        status = dict(found.get("status") or {})
        listed = status.get("conditions") or []
        for condition in _conditions(remaining):
            known = conditions.find(listed, condition["type"])
            same = known is not None and all(
                known.get(field) == condition[field] for field in ("status", "reason", "message")
            )
            if not same:
                listed = conditions.with_condition(listed, condition)
        status.update(phase="Terminating", conditions=listed)
        if status != found.get("status"):
            await self._client.update_status(NAMESPACE, {**found, "status": status})

    async def _finalize(self, key: str) -> None:
        found = clone(await self._client.get(NAMESPACE, key))
        kept = [each for each in dig(found, "spec", "finalizers", default=[]) if each != FINALIZER]
        found["spec"] = {**(found.get("spec") or {}), "finalizers": kept}
        try:
            await self._client.update(NAMESPACE, found, "finalize")
        except NotFound:
            return
        log.info("%s: namespace is empty and gone", key)


def _has_content(kind: Kind) -> bool:
    return kind.namespaced and "deletecollection" in kind.verbs


def _conditions(remaining: Sequence[tuple[Kind, Sequence[Object]]]) -> list[Object]:
    """The five conditions of a terminating namespace, in upstream's words."""
    counts = {f"{kind.plural}.{kind.group}": len(items) for kind, items in remaining}
    finalizers: Counter[str] = Counter(
        finalizer
        for _, items in remaining
        for obj in items
        for finalizer in metadata(obj).get("finalizers") or ()
    )
    content = "Some resources are remaining: " + ", ".join(
        f"{resource} has {count} resource instances" for resource, count in sorted(counts.items())
    )
    held = "Some content in the namespace has finalizers remaining: " + ", ".join(
        f"{finalizer} in {count} resource instances" for finalizer, count in sorted(finalizers.items())
    )
    rows = [
        (
            "NamespaceDeletionDiscoveryFailure", False,
            "ResourcesDiscovered", "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure", False,
            "ParsedGroupVersions", "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure", False,
            "ContentDeleted", "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining", bool(counts),
            "SomeResourcesRemain" if counts else "ContentRemoved",
            content if counts else "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining", bool(finalizers),
            "SomeFinalizersRemain" if finalizers else "ContentHasNoFinalizers",
            held if finalizers else "All content-preserving finalizers finished",
        ),
    ]  # fmt: skip
    return [
        {
            "type": type_,
            "status": "True" if status else "False",
            "lastTransitionTime": now(),
            "reason": reason,
            "message": message,
        }
        for type_, status, reason, message in rows
    ]
