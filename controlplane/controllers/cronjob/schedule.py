"""Which scheduled time of a CronJob is due, and when to look again. Pure; the rules are upstream's (v1.32)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import Enum, auto

from controlplane.errors import Object
from controlplane.meta import cron
from controlplane.meta.objects import clone, dig, name, namespace
from controlplane.meta.owners import owner_reference
from controlplane.meta.timestamps import parse
from controlplane.resources.batch import words
from controlplane.resources.catalog import CRON_JOB

_MANY = 100
_DELAY = timedelta(milliseconds=100)
"""The look at a time comes a little after it, so that it is surely due."""


class Missed(Enum):
    """How many times have passed without a Job."""

    NONE = auto()
    FEW = auto()
    MANY = auto()


@dataclass(frozen=True, slots=True)
class Recent:
    """The last time that is due (None: none yet), from where it was searched, and what was missed."""

    earliest: datetime
    due: datetime | None
    missed: Missed


def zone_of(cron_job: Object) -> tzinfo:
    """The time zone of the schedule. Raises ValueError for one that does not exist."""
    return cron.location(dig(cron_job, "spec", "timeZone", default=""))


def schedule_of(cron_job: Object) -> cron.Schedule:
    """Raises ValueError."""
    return cron.parse(dig(cron_job, "spec", "schedule", default=""), zone_of(cron_job))


def most_recent(
    cron_job: Object, schedule: cron.Schedule, now: datetime, *, within_deadline: bool = True
) -> Recent:
    """Raises ValueError for a schedule that never comes."""
    last = dig(cron_job, "status", "lastScheduleTime") or cron_job["metadata"]["creationTimestamp"]
    earliest = parse(last)
    deadline = dig(cron_job, "spec", "startingDeadlineSeconds")
    if within_deadline and deadline is not None:
        earliest = max(earliest, now - timedelta(seconds=deadline))
    first = schedule.next(earliest)
    second = schedule.next(first) if first is not None else None
    if first is None or second is None:
        raise ValueError("time difference between two schedules is less than 1 second")
    if now < first:
        return Recent(earliest, None, Missed.NONE)
    if now < second:
        return Recent(earliest, first, Missed.NONE)
    between = round((second - first).total_seconds())
    if between < 1:
        raise ValueError("time difference between two schedules is less than 1 second")
    # An estimate from one interval, good enough to say "too many" and to begin the search near its end.
    number = int((now - first).total_seconds()) // between + 1
    found: datetime | None = None
    following = schedule.next(first + timedelta(seconds=(number - 2) * between))
    while following is not None and following <= now:
        found = following
        following = schedule.next(following)
    return Recent(earliest, found, Missed.MANY if number > _MANY else Missed.FEW)


def seconds_to_next(cron_job: Object, schedule: cron.Schedule, now: datetime) -> float | None:
    """When to look again; None for a schedule that has no further time."""
    start = now
    try:
        recent = most_recent(cron_job, schedule, now, within_deadline=False)
    except ValueError:
        recent = None
    if recent is not None and recent.due is not None:
        start = recent.due
    elif recent is not None and recent.missed is Missed.NONE:
        start = recent.earliest
    following = schedule.next(start)
    return None if following is None else (following + _DELAY - now).total_seconds()


def is_too_late(cron_job: Object, due: datetime, now: datetime) -> bool:
    deadline = dig(cron_job, "spec", "startingDeadlineSeconds")
    return deadline is not None and due + timedelta(seconds=deadline) < now


def job_name(cron_job: Object, due: datetime) -> str:
    return f"{name(cron_job)}-{int(due.timestamp()) // 60}"


def new_job(cron_job: Object, due: datetime) -> Object:
    """The Job of one scheduled time."""
    template = clone(cron_job["spec"].get("jobTemplate") or {})
    described = template.get("metadata") or {}
    local = due.astimezone(zone_of(cron_job)).isoformat(timespec="seconds")
    annotations = {
        **(described.get("annotations") or {}),
        words.SCHEDULED_TIMESTAMP: local.replace("+00:00", "Z"),
    }
    metadata: Object = {
        "name": job_name(cron_job, due),
        "namespace": namespace(cron_job),
        "annotations": annotations,
        "ownerReferences": [owner_reference(CRON_JOB.api_version, CRON_JOB.kind, cron_job)],
    }
    if described.get("labels"):
        metadata["labels"] = described["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template.get("spec") or {}}
