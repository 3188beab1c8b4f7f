"""Deletes finished Jobs when their `ttlSecondsAfterFinished` are over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.timestamps import parse, utc_now
from controlplane.resources.batch.job_status import is_finished, is_true
from controlplane.resources.catalog import JOB

log = logging.getLogger(__name__)


def seconds_left(job: Object, now: datetime) -> float | None:
    """How long a finished Job is kept at `now` (aware); None when it is kept for good or has not finished."""
    limit = dig(job, "spec", "ttlSecondsAfterFinished")
    if limit is None or not is_finished(job) or is_being_deleted(job):
        return None
    ended = next(
        (
            c["lastTransitionTime"]
            for c in dig(job, "status", "conditions", default=())
            if c.get("type") in ("Complete", "Failed") and is_true(job, c["type"])
        ),
        None,
    )
    if not ended:
        return None
    return float(limit - (now - parse(ended)).total_seconds())


class TtlAfterFinishedController:
    """Keys are (namespace, name) of Jobs; `clock` gives the present as aware datetime."""

    def __init__(self, client: Client, informers: Informers, clock: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._jobs = informers.of(JOB)
        self._loop: Controller[NamespacedName] = Controller("ttl after finished", self._reconcile, workers=1)
        self._jobs.on_change(self._job_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._jobs)

    def _job_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            left = seconds_left(new, self._clock())
            if left is not None:
                self._loop.queue.add_after((namespace(new), name(new)), left)

    async def _reconcile(self, key: NamespacedName) -> None:
        if self._jobs.get(*key) is None:
            return
        # The time may have been prolonged since: only the newest state decides.
        try:
            job = await self._client.get(JOB, key[1], key[0])
        except NotFound:
            return
        left = seconds_left(job, self._clock())
        if left is None:
            return
        if left > 0:
            self._loop.queue.add_after(key, left)
            return
        log.info("%s/%s: deleting, it finished long enough ago", *key)
        try:
            await self._client.delete(JOB, key[1], key[0], propagation="Foreground", uid=uid(job))
        except NotFound:
            return
