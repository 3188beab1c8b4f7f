"""One pass over one Job: create or delete pods, then move what has ended into the status.

Called by the Job controller with what it found; talks to the API only through what the controller hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from controlplane.client.batches import Failure
from controlplane.client.controller import NamespacedName
from controlplane.client.events import NORMAL, WARNING
from controlplane.controllers.job.backoff import Failures, remaining_of_index
from controlplane.controllers.job.counting import Counted, pending_indexes
from controlplane.controllers.job.pod_control import JobPods
from controlplane.controllers.job.pods import (
    for_removal,
    has_limit_per_index,
    is_indexed,
    is_suspended,
    is_tracked,
    new_pod,
    only_failed_are_replaced,
)
from controlplane.controllers.job.policies import index_annotations
from controlplane.controllers.job.tracking import is_settled, plan, settle, tidy
from controlplane.controllers.job.verdict import (
    COMPLETE,
    FAILED,
    FAILURE,
    SUCCESS,
    condition,
    finished_condition,
    is_complete,
    reached,
    seconds_to_deadline,
)
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import clone, dig, is_being_deleted, uid
from controlplane.meta.pods import is_ready
from controlplane.meta.timestamps import format_time

_BURST = 500


class Surroundings(Protocol):
    """What a pass needs of its controller."""

    @property
    def control(self) -> JobPods: ...

    def present(self) -> datetime: ...

    def again_after(self, key: NamespacedName, seconds: float) -> None: ...

    def failures(self, key: NamespacedName) -> Failures: ...

    def remember(self, key: NamespacedName, failures: Failures) -> None: ...

    def event(self, job: Object, type_: str, reason: str, message: str) -> None: ...

    async def store(self, key: NamespacedName, job: Object, status: Object) -> Object: ...


class JobSync:
    """See the module; made anew for each pass."""

    def __init__(self, controller: Surroundings, key: NamespacedName, job: Object, counted: Counted) -> None:
        self._controller = controller
        self._key = key
        self._job = job
        self._counted = counted
        self._now = controller.present()
        self._active = len(counted.active)
        self._ready = counted.ready
        self._terminating = counted.terminating
        self._status: Object = clone(job.get("status") or {})
        self._failures = controller.failures(key).with_finished(counted.new_succeeded, counted.new_failed)

    async def run(self) -> None:
        if not self._status.get("startTime") and not is_suspended(self._job):
            self._status["startTime"] = format_time(self._now)
        judged = {**self._job, "status": self._status}
        finished = finished_condition(judged, self._counted, self._now)
        left = seconds_to_deadline(judged, self._now)
        if left is not None and left > 0:
            self._controller.again_after(self._key, left)
        errors: Sequence[Failure] = ()
        if finished is not None:
            errors = await self._end(self._counted.active)
            if self._active:
                finished = None
        else:
            managed = not is_being_deleted(self._job)
            if managed:
                errors = await self._manage()
            if is_complete(self._job, self._counted, self._active):
                finished = reached(self._now)
            elif managed:
                self._suspended_or_resumed()
        await self._track(finished)
        if errors:
            raise errors[0]

    async def _end(self, pods: Sequence[Object]) -> Sequence[Failure]:
        """Delete pods that are still to be counted."""
        deleted, errors = await self._controller.control.delete(self._key, self._job, pods)
        self._deleted(deleted)
        return errors

    async def _remove(self, pods: Sequence[Object]) -> Sequence[Failure]:
        """Delete pods that shall not be counted."""
        deleted, errors = await self._controller.control.delete(self._key, self._job, pods, release=True)
        self._deleted(deleted)
        return errors

    def _deleted(self, pods: Sequence[Object]) -> None:
        self._active -= len(pods)
        self._ready -= sum(is_ready(pod) for pod in pods)
        # Those without a node are gone at once.
        self._terminating += sum(bool(dig(pod, "spec", "nodeName")) for pod in pods)

    async def _manage(self) -> Sequence[Failure]:
        job, counted = self._job, self._counted
        if is_suspended(job):
            return await self._remove(for_removal(job, counted.active, self._active))
        wanted = self._wanted_active()
        surplus = for_removal(job, counted.active, max(0, self._active - wanted))[:_BURST]
        if surplus:
            return await self._remove(surplus)
        leaving = self._terminating if only_failed_are_replaced(job) else 0
        missing = min(wanted - leaving - self._active, _BURST)
        return await self._create(missing) if missing > 0 else ()

    def _wanted_active(self) -> int:
        parallelism: int = self._job["spec"]["parallelism"]
        completions: int | None = self._job["spec"].get("completions")
        if completions is None:
            # Once one has succeeded no new ones are started.
            return self._active if self._counted.succeeded else parallelism
        return max(0, min(completions - self._counted.succeeded, parallelism))

    async def _create(self, missing: int) -> Sequence[Failure]:
        job = self._job
        if not has_limit_per_index(job):
            wait = self._failures.remaining(self._now)
            if wait > 0:
                self._controller.again_after(self._key, wait)
                return ()
        if not is_indexed(job):
            pods = [new_pod(job) for _ in range(missing)]
        else:
            indexes = self._indexes_to_create(missing)
            delayed = self._counted.delayed
            limited = has_limit_per_index(job)
            pods = [
                new_pod(job, index, index_annotations(job, delayed.get(index)) if limited else None)
                for index in indexes
            ]
        created, errors = await self._controller.control.create(self._key, job, pods)
        self._active += created
        return errors

    def _indexes_to_create(self, missing: int) -> list[int]:
        """With a limit per index each index waits for itself."""
        indexes = pending_indexes(self._job, self._counted, missing)
        if not has_limit_per_index(self._job):
            return indexes
        waits = {index: remaining_of_index(self._counted.delayed.get(index), self._now) for index in indexes}
        later = [wait for wait in waits.values() if wait > 0]
        if later:
            self._controller.again_after(self._key, min(later))
        return [index for index, wait in waits.items() if wait <= 0]

    def _suspended_or_resumed(self) -> None:
        suspended = is_suspended(self._job)
        before = conditions.find(self._status.get("conditions"), "Suspended")
        wanted = "True" if suspended else "False"
        if (before or {}).get("status", "False") == wanted:
            return
        word = "suspended" if suspended else "resumed"
        made = condition("Suspended", f"Job{word.capitalize()}", f"Job {word}", self._now, wanted)
        self._status["conditions"] = conditions.with_condition(self._status.get("conditions"), made)
        if not suspended:
            # The deadline is about uninterrupted activity.
            self._status["startTime"] = format_time(self._now)
        self._controller.event(self._job, NORMAL, word.capitalize(), f"Job {word}")

    async def _track(self, finished: Object | None) -> None:
        """Status, finalizers, counters, and the final condition once nothing is left to be counted."""
        self._status.update(active=self._active, ready=self._ready, terminating=self._terminating)
        planned = plan(self._job, self._status, self._counted, finished)
        status = planned.status
        if finished is not None:
            finished = self._interim(status, finished)
        job = self._job
        if status != job.get("status"):
            job = await self._controller.store(self._key, job, status)
            self._controller.remember(self._key, self._failures)
            status = clone(job["status"])
        released, errors = await self._controller.control.release(self._key, planned.release)
        tracked = {uid(pod) for pod in self._counted.pods if is_tracked(pod)} - released
        settle(status, tracked)
        over = finished is not None and planned.complete and not errors and self._may_finish(status)
        if over and finished is not None:
            status["conditions"] = conditions.with_condition(status.get("conditions"), finished)
            if finished["type"] == COMPLETE:
                status["completionTime"] = finished["lastTransitionTime"]
        status = tidy(status)
        if status != job.get("status"):
            job = await self._controller.store(self._key, job, status)
            if over and finished is not None:
                self._report(job, finished)
        if errors:
            raise errors[0]

    def _interim(self, status: Object, finished: Object) -> Object:
        """Note in `status` that the end has begun; returns the condition that will say it is over."""
        kind = finished["type"]
        if kind in (FAILURE, SUCCESS) and conditions.find(status.get("conditions"), kind) is None:
            status["conditions"] = [*(status.get("conditions") or ()), finished]
        final = {FAILURE: FAILED, SUCCESS: COMPLETE}.get(kind, str(kind))
        return condition(final, finished.get("reason", ""), finished.get("message", ""), self._now)

    def _may_finish(self, status: Object) -> bool:
        return is_settled(status) and not self._terminating

    def _report(self, job: Object, finished: Object) -> None:
        if finished["type"] == FAILED:
            self._controller.event(job, WARNING, finished.get("reason", ""), finished.get("message", ""))
            return
        completions = job["spec"].get("completions")
        if completions is not None and job["status"].get("succeeded", 0) > completions:
            text = "Too many succeeded pods running after completion count reached"
            self._controller.event(job, WARNING, "TooManySucceededPods", text)
        self._controller.event(job, NORMAL, "Completed", "Job completed")
