"""ResourceQuota: a write that would use more of its namespace than its quotas allow is refused.

The last of the validating plug-ins: what it admits is written into the quotas' status before the object is stored, by
compare-and-swap, so that no two writes take the same room. Writes that wait at the same time are charged together.
A write that fails afterwards leaves its charge behind; the quota controller counts anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import utc_now
from controlplane.quota.charge import QuotaRefused, charged
from controlplane.quota.usage import evaluator_of
from controlplane.resources.core.quota import RESOURCE_QUOTA

_TRIES = 4
_UNCOUNTED = frozenset({("", "events"), ("events.k8s.io", "events"), ("", "bindings")})


@dataclass(slots=True, eq=False)
class _Waiter:
    """A write that waits to be charged; `quotas` are those it still has to be charged to (None: all)."""

    request: AdmissionRequest
    result: asyncio.Future[None]
    quotas: frozenset[str] | None = None

    def admit(self) -> None:
        if not self.result.done():
            self.result.set_result(None)

    def refuse(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class ResourceQuotaAdmission:
    """See `plugin.ValidatingPlugin`. One task at a time charges the writes of a namespace."""

    def __init__(self, objects: StoredObjects, clock: Callable[[], datetime] = utc_now) -> None:
        self._objects = objects
        self._clock = clock
        self._waiting: dict[str, list[_Waiter]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}

    async def validate(self, request: AdmissionRequest) -> None:
        kind, space = request.kind, request.namespace
        if request.subresource or not space or not kind.namespaced or request.obj is None:
            return
        if request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        if (kind.group, kind.plural) in _UNCOUNTED:
            return
        if not evaluator_of(kind.group, kind.plural).handles(request.operation):
            return
        if not await self._objects.list(RESOURCE_QUOTA, space):
            return
        waiter = _Waiter(request, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(space, []).append(waiter)
        if space not in self._workers:
            self._workers[space] = asyncio.create_task(self._work(space), name=f"quotas of {space}")
        await waiter.result

    async def _work(self, space: str) -> None:
        """Charge whoever waits until nobody does."""
        try:
            while waiters := self._waiting.pop(space, None):
                try:
                    await self._charge_all(space, waiters)
                except Exception as error:  # noqa: BLE001 - it is raised where the writes wait
                    for waiter in waiters:
                        waiter.refuse(error)
        finally:
            del self._workers[space]

    async def _charge_all(self, space: str, waiters: list[_Waiter]) -> None:
        """Judge each write with those before it counted in, then write each changed quota once.

        Quotas that somebody else wrote meanwhile are judged and charged again. Every waiter has its answer afterwards.
        """
        for tries_left in reversed(range(_TRIES)):
            stored = {name(quota): quota for quota in await self._objects.list(RESOURCE_QUOTA, space)}
            running = dict(stored)
            fitting = [waiter for waiter in waiters if self._fits(waiter, running)]
            lost = await self._store(quota for key, quota in running.items() if quota is not stored[key])
            for waiter in fitting:
                waiter.quotas = (waiter.quotas or frozenset()) & lost.keys()
                if not waiter.quotas:
                    waiter.admit()
                elif not tries_left:
                    waiter.refuse(lost[min(waiter.quotas)])
            waiters = [waiter for waiter in fitting if waiter.quotas]
            if not waiters:
                return

    def _fits(self, waiter: _Waiter, running: dict[str, Object]) -> bool:
        """Charge the write to the `running` quotas; False when it has its answer and nothing of it is to be stored."""
        request = waiter.request
        assert request.obj is not None
        evaluator = evaluator_of(request.kind.group, request.kind.plural)
        quotas = [quota for key, quota in running.items() if waiter.quotas is None or key in waiter.quotas]
        try:
            changed = charged(quotas, evaluator, request.obj, request.old, self._clock())
        except QuotaRefused as refusal:
            waiter.refuse(request.forbid(str(refusal)))
            return False
        if request.dry_run or not changed:
            waiter.admit()
            return False
        running.update({name(quota): quota for quota in changed})
        waiter.quotas = frozenset(name(quota) for quota in changed)
        return True

    async def _store(self, quotas: Iterable[Object]) -> dict[str, Conflict]:
        """Write the quotas' status; returns those that somebody else has changed. One that is gone limits nothing."""
        lost: dict[str, Conflict] = {}
        for quota in quotas:
            try:
                await self._objects.store_status(RESOURCE_QUOTA, quota)
            except NotFound:
                continue
            except Conflict as conflict:
                lost[name(quota)] = conflict
        return lost
