"""The CronJob controller: makes a Job at each scheduled time, keeps account of them, and clears old ones away.

Run by `control_loop`. Reasons and texts of events are upstream's (pkg/controller/cronjob, v1.32).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.informer import Informers
from controlplane.controllers.cronjob import schedule as scheduling
from controlplane.controllers.cronjob.schedule import Missed
from controlplane.errors import AlreadyExists, NotFound, Object, StatusError
from controlplane.meta import cron
from controlplane.meta.objects import clone, dig, is_being_deleted, name, namespace, resource_version, uid
from controlplane.meta.owners import OWNER_INDEX, by_controller, controller_of, is_controlled_by
from controlplane.meta.timestamps import format_time, parse, utc_now
from controlplane.resources.batch.job_status import is_finished, is_true
from controlplane.resources.catalog import CRON_JOB, JOB

log = logging.getLogger(__name__)

_UNSUPPORTED = (
    "CRON_TZ or TZ used in schedule {} is not officially supported, see "
    "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
)
_TOO_MANY = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"


class CronJobController:
    """Keys are (namespace, name) of CronJobs; `clock` gives the present as aware datetime."""

    def __init__(self, client: Client, informers: Informers, clock: Callable[[], datetime] = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._cron_jobs = informers.of(CRON_JOB)
        self._jobs = informers.of(JOB)
        self._jobs.index_by(OWNER_INDEX, by_controller)
        self._events = EventRecorder(client, "cronjob-controller")
        self._loop: Controller[NamespacedName] = Controller("cronjob", self._reconcile)
        self._cron_jobs.on_change(self._cron_job_changed)
        self._jobs.on_change(self._job_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._cron_jobs, self._jobs)

    def look_again(self) -> None:
        """Have every CronJob looked at, for whoever moves the clock."""
        for cron_job in self._cron_jobs.items():
            self._loop.queue.add((namespace(cron_job), name(cron_job)))

    def _cron_job_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add((namespace(new), name(new)))

    def _job_changed(self, old: Object | None, new: Object | None) -> None:
        for job in (old, new):
            controller = controller_of(job) if job is not None else None
            if job is not None and controller is not None and controller.get("kind") == CRON_JOB.kind:
                self._loop.queue.add((namespace(job), controller["name"]))

    async def _reconcile(self, key: NamespacedName) -> None:
        seen = self._cron_jobs.get(*key)
        if seen is None:
            return
        cron_job = clone(seen)
        jobs = self._jobs.lookup(OWNER_INDEX, uid(cron_job))
        changed = await self._clear_history(cron_job, jobs)
        cron_job, recounted = await self._account(cron_job, jobs)
        changed = changed or recounted
        again, started = None, False
        if not is_being_deleted(cron_job):
            again, started = await self._start_what_is_due(cron_job)
        if changed or started:
            await self._client.update_status(CRON_JOB, cron_job)
        if again is not None:
            self._loop.queue.add_after(key, again)

    async def _account(self, cron_job: Object, jobs: Sequence[Object]) -> tuple[Object, bool]:
        """Bring `status.active` and `lastSuccessfulTime` up to date."""
        changed = False
        for job in jobs:
            is_listed = _is_active(cron_job, uid(job))
            if not is_listed and not is_finished(job):
                fresh = await self._client.get(CRON_JOB, name(cron_job), namespace(cron_job))
                if _is_active(fresh, uid(job)):
                    cron_job = fresh
                    continue
                text = f"Saw a job that the controller did not create or forgot: {name(job)}"
                self._event(cron_job, WARNING, "UnexpectedJob", text)
            elif is_listed and is_finished(job):
                self._forget(cron_job, uid(job))
                ended = "Complete" if is_true(job, "Complete") else "Failed"
                text = f"Saw completed job: {name(job)}, condition: {ended}"
                self._event(cron_job, NORMAL, "SawCompletedJob", text)
                changed = True
            if is_true(job, "Complete") and _note_success(cron_job, job):
                changed = True
        present = {uid(job) for job in jobs}
        for reference in list(dig(cron_job, "status", "active", default=())):
            if reference.get("uid") in present:
                continue
            try:
                found = await self._client.get(JOB, reference["name"], namespace(cron_job))
            except NotFound:
                found = None
            if found is None or uid(found) != reference.get("uid"):
                self._event(cron_job, NORMAL, "MissingJob", f"Active job went missing: {reference['name']}")
                self._forget(cron_job, reference.get("uid", ""))
                changed = True
        return cron_job, changed

    def _forget(self, cron_job: Object, job: str) -> None:
        active = [each for each in dig(cron_job, "status", "active", default=()) if each.get("uid") != job]
        cron_job["status"].pop("active", None)
        if active:
            cron_job["status"]["active"] = active

    async def _clear_history(self, cron_job: Object, jobs: Sequence[Object]) -> bool:
        """Delete the oldest finished Jobs beyond the limits."""
        changed = False
        for condition, field in (
            ("Complete", "successfulJobsHistoryLimit"),
            ("Failed", "failedJobsHistoryLimit"),
        ):
            limit = cron_job["spec"].get(field)
            ended = sorted((job for job in jobs if is_true(job, condition)), key=_start_order)
            for job in ended[: max(0, len(ended) - limit)] if limit is not None else ():
                if not is_being_deleted(job):
                    changed = await self._delete(cron_job, job) or changed
        return changed

    async def _delete(self, cron_job: Object, job: Object) -> bool:
        """Returns whether the status has changed."""
        try:
            await self._client.delete(JOB, name(job), namespace(job), propagation="Background", uid=uid(job))
        except NotFound:
            pass  # Gone already, as wanted.
        except StatusError as error:
            self._event(cron_job, WARNING, "FailedDelete", f"Deleted job: {error}")
            raise
        was_active = _is_active(cron_job, uid(job))
        self._forget_if(cron_job, uid(job))
        self._event(cron_job, NORMAL, "SuccessfulDelete", f"Deleted job {name(job)}")
        return was_active

    def _forget_if(self, cron_job: Object, job: str) -> None:
        if _is_active(cron_job, job):
            self._forget(cron_job, job)

    async def _start_what_is_due(self, cron_job: Object) -> tuple[float | None, bool]:
        """When to look again, and whether the status has changed."""
        now = self._clock()
        schedule = self._schedule(cron_job)
        if schedule is None or cron_job["spec"].get("suspend"):
            return None, False
        try:
            recent = scheduling.most_recent(cron_job, schedule, now)
        except ValueError as error:
            text = f"invalid schedule: {cron_job['spec']['schedule']} : {error}"
            self._event(cron_job, WARNING, "InvalidSchedule", text)
            return None, False
        if recent.missed is Missed.MANY and recent.due is not None:
            self._event(cron_job, WARNING, "TooManyMissedTimes", _TOO_MANY)
        started = recent.due is not None and await self._start(cron_job, recent.due, now)
        return scheduling.seconds_to_next(cron_job, schedule, now), started

    def _schedule(self, cron_job: Object) -> cron.Schedule | None:
        """The schedule, or None with an event that says what is wrong with it."""
        text, zone = cron_job["spec"].get("schedule", ""), cron_job["spec"].get("timeZone")
        if zone is not None:
            try:
                scheduling.zone_of(cron_job)
            except ValueError as error:
                self._event(cron_job, WARNING, "UnknownTimeZone", f'invalid timeZone: "{zone}": {error}')
                return None
        elif "TZ" in text:
            self._event(cron_job, WARNING, "UnsupportedSchedule", _UNSUPPORTED.format(f'"{text}"'))
        try:
            return scheduling.schedule_of(cron_job)
        except ValueError as error:
            self._event(cron_job, WARNING, "UnparseableSchedule", f'unparseable schedule: "{text}" : {error}')
            return None

    async def _start(self, cron_job: Object, due: datetime, now: datetime) -> bool:
        """Make the Job of that time unless something speaks against it; True when the status has changed."""
        status = cron_job.setdefault("status", {})
        if scheduling.is_too_late(cron_job, due, now):
            shown = due.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
            self._event(cron_job, WARNING, "MissSchedule", f"Missed scheduled time to start a job: {shown}")
            return False
        active = list(status.get("active") or ())
        wanted = scheduling.job_name(cron_job, due)
        if status.get("lastScheduleTime") == format_time(due) or any(
            each["name"] == wanted for each in active
        ):
            return False
        policy = cron_job["spec"].get("concurrencyPolicy")
        if policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._event(cron_job, NORMAL, "JobAlreadyActive", text)
            return False
        if policy == "Replace":
            for reference in active:
                try:
                    job = await self._client.get(JOB, reference["name"], namespace(cron_job))
                except StatusError as error:
                    self._event(cron_job, WARNING, "FailedGet", f"Get job: {error}")
                    raise
                await self._delete(cron_job, job)
        made = await self._create(cron_job, due)
        if made is None:
            return False
        status["active"] = [*(status.get("active") or ()), _reference(made)]
        status["lastScheduleTime"] = format_time(due)
        return True

    async def _create(self, cron_job: Object, due: datetime) -> Object | None:
        """The Job, made now or before; None when it cannot be or belongs to somebody else."""
        job = scheduling.new_job(cron_job, due)
        try:
            made = await self._client.create(JOB, job)
        except AlreadyExists:
            found = await self._client.get(JOB, name(job), namespace(job))
            return found if is_controlled_by(found, uid(cron_job)) else None
        except StatusError as error:
            if any(cause.reason == "NamespaceTerminating" for cause in error.causes):
                return None
            self._event(cron_job, WARNING, "FailedCreate", f"Error creating job: {error}")
            raise
        self._event(cron_job, NORMAL, "SuccessfulCreate", f"Created job {name(made)}")
        return made

    def _event(self, cron_job: Object, type_: str, reason: str, message: str) -> None:
        self._events.event(CRON_JOB, cron_job, type_, reason, message)


def _is_active(cron_job: Object, job: str) -> bool:
    return any(each.get("uid") == job for each in dig(cron_job, "status", "active", default=()))


def _note_success(cron_job: Object, job: Object) -> bool:
    ended = dig(job, "status", "completionTime")
    status = cron_job.setdefault("status", {})
    last = status.get("lastSuccessfulTime")
    if not ended or (last and parse(last) >= parse(ended)):
        return False
    status["lastSuccessfulTime"] = ended
    return True


def _start_order(job: Object) -> tuple[str, str]:
    """Those that never started are the youngest; then by name."""
    return dig(job, "status", "startTime", default="~"), name(job)


def _reference(job: Object) -> Object:
    return {
        "kind": JOB.kind,
        "namespace": namespace(job),
        "name": name(job),
        "uid": uid(job),
        "apiVersion": JOB.api_version,
        "resourceVersion": str(resource_version(job)),
    }
