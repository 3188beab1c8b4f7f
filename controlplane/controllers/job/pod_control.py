"""Creating, deleting and releasing a Job's pods, many at once, with events. Used by the Job controller only."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.client.batches import Failure, slow_start
from controlplane.client.client import Client
from controlplane.client.controller import NamespacedName
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.expectations import Expectations
from controlplane.client.pod_control import PodControl, namespace_is_terminating
from controlplane.controllers.job.pods import is_tracked
from controlplane.errors import Conflict, NotFound, Object, StatusError
from controlplane.meta.objects import name, namespace, uid
from controlplane.resources.batch import words
from controlplane.resources.catalog import JOB, POD

_RELEASE_TRIES = 5


async def without_tracking(client: Client, pod: Object) -> Object | None:
    """Take the finalizer from a pod; returns it as stored, None when it is gone. Raises Conflict after some tries."""
    for tries_left in reversed(range(_RELEASE_TRIES)):
        finalizers = [f for f in pod["metadata"].get("finalizers") or () if f != words.TRACKING_FINALIZER]
        patch = {
            "metadata": {
                "resourceVersion": pod["metadata"]["resourceVersion"],
                "finalizers": finalizers or None,
            }
        }
        try:
            return await client.patch(POD, name(pod), patch, namespace(pod))
        except NotFound:
            return None
        except Conflict:
            if not tries_left:
                raise
        try:
            fresh = await client.get(POD, name(pod), namespace(pod))
        except NotFound:
            return None
        if uid(fresh) != uid(pod):
            return None
        if not is_tracked(fresh):
            return fresh
        pod = fresh
    return None


class JobPods:
    """`writes` is told of everything done, so that the next sync waits for it."""

    def __init__(self, client: Client, events: EventRecorder, writes: Expectations[NamespacedName]) -> None:
        self._client = client
        self._events = events
        self._control = PodControl(client, events, JOB)
        self._writes = writes

    async def create(
        self, key: NamespacedName, job: Object, pods: Sequence[Object]
    ) -> tuple[int, Sequence[Failure]]:
        """Create the pods in growing batches; returns how many there are now, and the failures."""

        async def create(number: int) -> None:
            self._writes.wrote(key, await self._control.create(job, pods[number]))

        done, failures = await slow_start(len(pods), create)
        return done, [failure for failure in failures if not namespace_is_terminating(failure)]

    async def delete(
        self, key: NamespacedName, job: Object, pods: Sequence[Object], *, release: bool = False
    ) -> tuple[list[Object], Sequence[Failure]]:
        """Delete pods, with `release` without counting them; returns those deleted, and the failures."""
        deleted: list[Object] = []

        async def delete(number: int) -> None:
            pod = pods[number]
            if release and is_tracked(pod):
                await self._untrack(key, job, pod)
            if await self._control.delete(job, pod):
                self._writes.deleted(key, pod)
            deleted.append(pod)

        _, failures = await slow_start(len(pods), delete, initial=len(pods))
        return deleted, failures

    async def release(
        self, key: NamespacedName, pods: Sequence[Object]
    ) -> tuple[set[str], Sequence[Failure]]:
        """Take the finalizers away; returns the uids that have none any more, and the failures."""
        released: set[str] = set()

        async def one(number: int) -> None:
            stored = await without_tracking(self._client, pods[number])
            if stored is not None:
                self._writes.wrote(key, stored)
            released.add(uid(pods[number]))

        _, failures = await slow_start(len(pods), one, initial=len(pods))
        return released, failures

    async def _untrack(self, key: NamespacedName, job: Object, pod: Object) -> None:
        try:
            stored = await without_tracking(self._client, pod)
        except StatusError as error:
            self._events.event(JOB, job, WARNING, "FailedDelete", f"Error deleting: {error}")
            raise
        if stored is not None:
            self._writes.wrote(key, stored)
