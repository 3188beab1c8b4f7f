"""The loop of the Job controller. See the package; run by `control_loop`.

It works on a Job only when its caches hold everything it wrote for that Job before, so no pod is created or counted
twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from controlplane.client.adoption import Adopter
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.job.backoff import Backoffs, Failures, remaining_of_index
from controlplane.controllers.job.counting import Counted, count, pending_indexes
from controlplane.controllers.job.pod_control import PodControl, without_tracking
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
from controlplane.errors import NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import clone, dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import controller_of
from controlplane.meta.pods import is_ready
from controlplane.meta.timestamps import format_time
from controlplane.resources.batch import words
from controlplane.resources.batch.job_status import is_finished
from controlplane.resources.catalog import JOB, POD

log = logging.getLogger(__name__)

_BURST = 500
_RECHECK_SECONDS = 1.0
_OWNER_INDEX = "controller"


def _owner_values(obj: Object) -> tuple[str]:
    """Index of objects by their controller's uid; orphans by namespace."""
    controller = controller_of(obj)
    return (controller["uid"] if controller else f"orphans of {namespace(obj)}",)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class JobController:
    """Keys are (namespace, name) of Jobs; `clock` gives the present as aware datetime."""

    def __init__(
        self, client: Client, informers: Informers, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._client = client
        self._clock = clock
        self._jobs = informers.of(JOB)
        self._pods = informers.of(POD)
        self._pods.index_by(_OWNER_INDEX, _owner_values)
        self._events = EventRecorder(client, "job-controller")
        self._pod_writes: Expectations[NamespacedName] = Expectations(self._pods)
        self._job_writes: Expectations[NamespacedName] = Expectations(self._jobs)
        self._control = PodControl(client, self._events, self._pod_writes)
        self._backoffs = Backoffs()
        self._loop: Controller[NamespacedName] = Controller("job", self._reconcile)
        self._orphans: Controller[NamespacedName] = Controller("job orphans", self._release_orphan)
        self._jobs.on_change(self._job_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run(self._jobs, self._pods))
            group.create_task(self._orphans.run(self._jobs, self._pods))

    # What changed.

    def _job_changed(self, old: Object | None, new: Object | None) -> None:
        job = new or old
        assert job is not None
        self._loop.queue.add((namespace(job), name(job)))
        if new is None or (old is not None and uid(old) != uid(new)):
            gone = old or job
            for pod in self._pods.lookup(_OWNER_INDEX, uid(gone)):
                if is_tracked(pod):
                    self._orphans.queue.add((namespace(pod), name(pod)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            controller = controller_of(pod) if pod is not None else None
            if pod is not None and controller is not None and controller.get("kind") == JOB.kind:
                self._loop.queue.add((namespace(pod), controller["name"]))
        if new is None:
            return
        controller = controller_of(new)
        if controller is None and not is_being_deleted(new):
            for job in self._jobs.items(namespace(new)):
                if _selector(job).matches(labels(new)):
                    self._loop.queue.add((namespace(job), name(job)))
        if is_tracked(new):
            self._orphans.queue.add((namespace(new), name(new)))

    async def _release_orphan(self, key: NamespacedName) -> None:
        """A pod whose Job is gone must not be held by the finalizer for ever."""
        pod = self._pods.get(*key)
        if pod is None or not is_tracked(pod):
            return
        controller = controller_of(pod)
        if controller is not None:
            if controller.get("kind") != JOB.kind:
                return
            job = self._jobs.get(key[0], controller["name"])
            if job is not None and uid(job) == controller["uid"] and not is_finished(job):
                return
            if job is None and await self._exists(key[0], controller):
                return
        elif any(_selector(job).matches(labels(pod)) for job in self._jobs.items(key[0])):
            return
        await without_tracking(self._client, pod)

    async def _exists(self, space: str, controller: Object) -> bool:
        try:
            job = await self._client.get(JOB, controller["name"], space)
        except NotFound:
            return False
        return uid(job) == controller["uid"]

    # One Job.

    async def _reconcile(self, key: NamespacedName) -> None:
        job = self._jobs.get(*key)
        if job is None or is_finished(job):
            self._pod_writes.forget(key)
            self._job_writes.forget(key)
            self._backoffs.forget(key)
            return
        if dig(job, "spec", "managedBy", default=words.JOB_CONTROLLER) != words.JOB_CONTROLLER:
            return
        if not (self._pod_writes.satisfied(key) and self._job_writes.satisfied(key)):
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        pods = await self._claimed(job)
        await _Sync(self, key, job, count(job, pods)).run()

    async def _claimed(self, job: Object) -> list[Object]:
        candidates = self._pods.lookup(_OWNER_INDEX, uid(job))
        candidates += self._pods.lookup(_OWNER_INDEX, f"orphans of {namespace(job)}")
        adopter = Adopter(self._client, JOB, job, _selector(job), POD, words.TRACKING_FINALIZER)
        return await adopter.claim(candidates)

    # What a sync needs of the controller.

    def again_after(self, key: NamespacedName, seconds: float) -> None:
        self._loop.queue.add_after(key, seconds)

    def present(self) -> datetime:
        return self._clock()

    def failures(self, key: NamespacedName) -> Failures:
        return self._backoffs.of(key)

    def remember(self, key: NamespacedName, failures: Failures) -> None:
        self._backoffs.put(key, failures)

    @property
    def control(self) -> PodControl:
        return self._control

    def event(self, job: Object, type_: str, reason: str, message: str) -> None:
        self._events.event(JOB, job, type_, reason, message)

    async def store(self, key: NamespacedName, job: Object, status: Object) -> Object:
        """Write the status against lost races; returns the Job as stored."""
        stored = await self._client.update_status(JOB, {**job, "status": status})
        self._job_writes.wrote(key, stored)
        return stored


class _Sync:
    """One pass over one Job: create or delete pods, then move what has ended into the status."""

    def __init__(self, controller: JobController, key: NamespacedName, job: Object, counted: Counted) -> None:
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
        errors: Sequence[Exception] = ()
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

    async def _end(self, pods: Sequence[Object]) -> Sequence[Exception]:
        """Delete pods that are still to be counted."""
        deleted, errors = await self._controller.control.delete(self._key, self._job, pods)
        self._deleted(deleted)
        return errors

    async def _remove(self, pods: Sequence[Object]) -> Sequence[Exception]:
        """Delete pods that shall not be counted."""
        deleted, errors = await self._controller.control.delete(self._key, self._job, pods, release=True)
        self._deleted(deleted)
        return errors

    def _deleted(self, pods: Sequence[Object]) -> None:
        self._active -= len(pods)
        self._ready -= sum(is_ready(pod) for pod in pods)
        # Those without a node are gone at once.
        self._terminating += sum(bool(dig(pod, "spec", "nodeName")) for pod in pods)

    async def _manage(self) -> Sequence[Exception]:
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
        completions = self._job["spec"].get("completions")
        if completions is None:
            # Once one has succeeded no new ones are started.
            return self._active if self._counted.succeeded else parallelism
        return max(0, min(completions - self._counted.succeeded, parallelism))

    async def _create(self, missing: int) -> Sequence[Exception]:
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
            extra = (
                (lambda index: index_annotations(job, delayed.get(index)))
                if has_limit_per_index(job)
                else (lambda index: {})
            )
            pods = [new_pod(job, index, extra(index)) for index in indexes]
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
        final = {FAILURE: FAILED, SUCCESS: COMPLETE}.get(kind, kind)
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


def _selector(job: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(job, "spec", "selector"))
