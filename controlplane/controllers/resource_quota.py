"""The quota controller: counts what the objects of a namespace use, and writes it into its quotas' status.

Admission adds to the status what it lets in; this controller sets the limits from the spec and takes away what was
deleted. It reads a quota, lets writes that are already charged reach the store, counts, and writes against lost races:
so it never forgets a charge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.client.known_kinds import KnownKinds
from controlplane.errors import Object
from controlplane.meta.objects import dig, name, namespace
from controlplane.meta.pods import is_finished
from controlplane.meta.quantity import Quantity
from controlplane.meta.timestamps import utc_now
from controlplane.quota.amounts import mask, parsed, texts
from controlplane.quota.usage import evaluator_of, used_by
from controlplane.resources.catalog import POD, RESOURCE_QUOTA
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 0.1
_RESYNC_SECONDS = 300.0
_COUNT = "count/"
_CLAIMS = "persistentvolumeclaims"
_EVENTS = frozenset({"events"})


class ResourceQuotaController:
    """Keys are (namespace, name) of quotas. `kinds` are all served kinds, those that come later too; `settle` is how
    long, in seconds, a write may take from its charge to the store.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        kinds: KnownKinds | Iterable[Kind],
        clock: Callable[[], datetime] = utc_now,
        settle: float = _SETTLE_SECONDS,
    ) -> None:
        self._client = client
        self._clock = clock
        self._settle = settle
        self._informers = informers
        self._quotas = informers.of(RESOURCE_QUOTA)
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._loop: Controller[NamespacedName] = Controller("resource quota", self._reconcile)
        self._quotas.on_change(self._quota_changed)
        KnownKinds.of(kinds).subscribe(self._follow, self._unfollow)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run(self._quotas))
            group.create_task(self._resync())

    async def _resync(self) -> None:
        """Once in a while everything is counted anew: what failed after it was charged."""
        while True:
            await asyncio.sleep(_RESYNC_SECONDS)
            for quota in self._quotas.items():
                self._loop.queue.add((namespace(quota), name(quota)))

    def _follow(self, kind: Kind) -> None:
        if kind.namespaced and kind.plural not in _EVENTS:
            self._kinds[kind.group, kind.plural] = kind
            self._informers.of(kind).on_change(self._freed_by(kind))

    def _unfollow(self, kind: Kind) -> None:
        self._kinds.pop((kind.group, kind.plural), None)

    def _quota_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and dig(new, "spec", "hard") != dig(new, "status", "hard"):
            self._loop.queue.add((namespace(new), name(new)))

    def _freed_by(self, kind: Kind) -> Callable[[Object | None, Object | None], None]:
        evaluator = evaluator_of(kind.group, kind.plural)

        def changed(old: Object | None, new: Object | None) -> None:
            """Admission sees what is taken, not what is given back."""
            if old is None or (new is not None and not _gives_back(kind, old, new)):
                return
            for quota in self._quotas.items(namespace(old)):
                if evaluator.resources(dig(quota, "spec", "hard", default=())):
                    self._loop.queue.add((namespace(quota), name(quota)))

        return changed

    async def _reconcile(self, key: NamespacedName) -> None:
        if self._quotas.get(*key) is None:
            return
        # The controller may list and watch everything, and get nothing.
        listed = await self._client.list(RESOURCE_QUOTA, key[0], field_selector=f"metadata.name={key[1]}")
        if not listed.items:
            return
        (quota,) = listed.items
        await asyncio.sleep(self._settle)
        hard = parsed(dig(quota, "spec", "hard", default={}))
        status = quota.get("status") or {}
        used = {**parsed(status.get("used")), **await self._used(quota)}
        new = {"hard": texts(hard), "used": texts(mask(used, hard))}
        if new != {"hard": status.get("hard"), "used": status.get("used")}:
            await self._client.update_status(RESOURCE_QUOTA, {**quota, "status": new})

    async def _used(self, quota: Object) -> dict[str, Quantity]:
        hard = dig(quota, "spec", "hard", default={})
        used: dict[str, Quantity] = {}
        for group, plural in sorted(_resources(hard)):
            kind = self._kinds.get((group, plural))
            if kind is None:
                continue
            listed = await self._client.list(kind, namespace(quota))
            used.update(used_by(evaluator_of(group, plural), quota, listed.items, self._clock()))
        return used


def _gives_back(kind: Kind, old: Object, new: Object) -> bool:
    """Whether a change may lower what the object uses."""
    if (kind.group, kind.plural) == ("", POD.plural):
        return is_finished(new) and not is_finished(old)
    if (kind.group, kind.plural) == ("", "services"):
        return bool(old.get("spec") != new.get("spec"))
    if (kind.group, kind.plural) == ("", _CLAIMS):
        path = ("spec", "resources", "requests")
        return bool(dig(old, *path) != dig(new, *path))
    return False


def _resources(hard: Object) -> set[tuple[str, str]]:
    """Group and plural of all resources that the names of a quota are about."""
    found: set[tuple[str, str]] = set()
    for resource in hard:
        if resource.startswith(_COUNT):
            plural, _, group = resource.removeprefix(_COUNT).partition(".")
            found.add((group, plural))
            continue
        for plural in ("pods", "services", _CLAIMS):
            if evaluator_of("", plural).resources((resource,)):
                found.add(("", plural))
                break
        else:
            found.add(("", resource))
    return found
