"""The loop of the Job controller. See the package; run by `control_loop`.

It works on a Job only when its caches hold everything it wrote for that Job before, so no pod is created or counted
twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from controlplane.client.adoption import Adopter
from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.job.backoff import Backoffs, Failures
from controlplane.controllers.job.counting import count
from controlplane.controllers.job.pod_control import JobPods, without_tracking
from controlplane.controllers.job.pods import (
    is_tracked,
)
from controlplane.controllers.job.sync import JobSync
from controlplane.errors import NotFound, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, orphans_of
from controlplane.meta.timestamps import utc_now
from controlplane.resources.batch import words
from controlplane.resources.batch.job_status import is_finished
from controlplane.resources.catalog import JOB, POD

log = logging.getLogger(__name__)

_BURST = 500
_RECHECK_SECONDS = 1.0


class JobController:
    """Keys are (namespace, name) of Jobs; `clock` gives the present as aware datetime."""

    def __init__(self, client: Client, informers: Informers, clock: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._jobs = informers.of(JOB)
        self._pods = informers.of(POD)
        self._pods.index_by(OWNER_INDEX, by_controller)
        self._events = EventRecorder(client, "job-controller")
        self._pod_writes: Expectations[NamespacedName] = Expectations(self._pods)
        self._job_writes: Expectations[NamespacedName] = Expectations(self._jobs)
        self._control = JobPods(client, self._events, self._pod_writes)
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
            for pod in self._pods.lookup(OWNER_INDEX, uid(gone)):
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
        return bool(uid(job) == controller["uid"])

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
        await JobSync(self, key, job, count(job, pods)).run()

    async def _claimed(self, job: Object) -> list[Object]:
        candidates = self._pods.lookup(OWNER_INDEX, uid(job))
        candidates += self._pods.lookup(OWNER_INDEX, orphans_of(namespace(job)))
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
    def control(self) -> JobPods:
        return self._control

    def event(self, job: Object, type_: str, reason: str, message: str) -> None:
        self._events.event(JOB, job, type_, reason, message)

    async def store(self, key: NamespacedName, job: Object, status: Object) -> Object:
        """Write the status against lost races; returns the Job as stored."""
        stored = await self._client.update_status(JOB, {**job, "status": status})
        self._job_writes.wrote(key, stored)
        return stored


def _selector(job: Object) -> LabelSelector:
    return LabelSelector.from_object(dig(job, "spec", "selector"))
