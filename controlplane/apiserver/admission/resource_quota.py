"""ResourceQuota: a write that would use more of its namespace than its quotas allow is refused.

The last of the validating plug-ins: what it admits is written into the quotas' status before the object is stored, by
compare-and-swap, so that no two writes take the same room. A write that fails afterwards leaves its charge behind; the
quota controller counts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.errors import Conflict, NotFound
from controlplane.meta.objects import name
from controlplane.quota.charge import QuotaRefused, charged
from controlplane.quota.usage import evaluator_of
from controlplane.resources.core.quota import RESOURCE_QUOTA

_TRIES = 4
_UNCOUNTED = frozenset({("", "events"), ("events.k8s.io", "events"), ("", "bindings")})


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ResourceQuotaAdmission:
    """See `plugin.ValidatingPlugin`. Writes of one namespace are charged one after the other."""

    def __init__(self, objects: StoredObjects, clock: Callable[[], datetime] = _utc_now) -> None:
        self._objects = objects
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def validate(self, request: AdmissionRequest) -> None:
        kind = request.kind
        if request.subresource or not request.namespace or not kind.namespaced or request.obj is None:
            return
        if request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        if (kind.group, kind.plural) in _UNCOUNTED:
            return
        if not evaluator_of(kind.group, kind.plural).handles(request.operation):
            return
        if not await self._objects.list(RESOURCE_QUOTA, request.namespace):
            return
        lock = self._locks.setdefault(request.namespace, asyncio.Lock())
        async with lock:
            await self._charge(request)

    async def _charge(self, request: AdmissionRequest) -> None:
        """Charge each quota once; those that somebody else wrote meanwhile are judged and charged again."""
        assert request.obj is not None
        evaluator = evaluator_of(request.kind.group, request.kind.plural)
        left: set[str] | None = None
        for tries_left in reversed(range(_TRIES)):
            quotas = [
                quota
                for quota in await self._objects.list(RESOURCE_QUOTA, request.namespace)
                if left is None or name(quota) in left
            ]
            try:
                changed = charged(quotas, evaluator, request.obj, request.old, self._clock())
            except QuotaRefused as refusal:
                raise request.forbid(str(refusal)) from refusal
            if request.dry_run:
                return
            left = set()
            for quota in changed:
                try:
                    await self._objects.store_status(RESOURCE_QUOTA, quota)
                except NotFound:
                    continue
                except Conflict:
                    if not tries_left:
                        raise
                    left.add(name(quota))
            if not left:
                return
