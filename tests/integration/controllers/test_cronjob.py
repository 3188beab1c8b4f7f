"""The CronJob controller over the real API server, with a clock that is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.batch import World, job, succeeded, world

from controlplane.controllers.cronjob import schedule as scheduling
from controlplane.controllers.cronjob.controller import CronJobController
from controlplane.controllers.cronjob.schedule import Missed
from controlplane.controllers.job.controller import JobController
from controlplane.errors import Object
from controlplane.meta import cron
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import format_time, parse
from controlplane.resources.batch import words
from controlplane.resources.batch.job_status import is_finished
from controlplane.resources.catalog import CRON_JOB, JOB

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def cron_job(schedule: str = "* * * * *", **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job()["spec"]}, **spec},
    }


def stored(schedule: str, created: datetime, last: datetime | None = None, **spec: Any) -> Object:
    """A CronJob as it is read back."""
    made = cron_job(schedule, **spec)
    made["metadata"].update(uid="u", creationTimestamp=format_time(created))
    made["status"] = {} if last is None else {"lastScheduleTime": format_time(last)}
    return made


class Ticking:
    """The world with a CronJob controller whose clock goes in whole steps."""

    def __init__(self) -> None:
        self.controller: CronJobController | None = None

    def make(self, client: Any, informers: Any, clock: Any) -> CronJobController:
        self.controller = CronJobController(client, informers, clock)
        return self.controller

    def tick(self, there: World, seconds: float) -> None:
        there.clock.advance(seconds)
        assert self.controller is not None
        self.controller.look_again()


def jobs(client: Any, informers: Any, clock: Any) -> JobController:
    return JobController(client, informers, clock)


async def test_a_job_each_minute_and_the_history_is_kept_short() -> None:
    ticking = Ticking()
    async with world(ticking.make, jobs) as there:
        there.outcome = succeeded
        await there.client.create(CRON_JOB, cron_job(successfulJobsHistoryLimit=2))
        for number in range(1, 5):
            before = {name(each) for each in there.all(JOB)}
            ticking.tick(there, 60)
            await there.until(lambda before=before: {name(each) for each in there.all(JOB)} - before)
            await there.until(lambda: all(is_finished(each) for each in there.all(JOB)))
            await there.until(lambda: not dig(there.get(CRON_JOB, "tick"), "status", "active"))
            assert len(there.all(JOB)) <= number
        await there.until(lambda: len(there.all(JOB)) == 2)
        found = there.get(CRON_JOB, "tick")
        assert found is not None
        newest = max(there.all(JOB), key=name)
        due = parse(found["status"]["lastScheduleTime"])
        assert name(newest) == f"tick-{int(due.timestamp()) // 60}"
        assert newest["metadata"]["annotations"][words.SCHEDULED_TIMESTAMP] == format_time(due)
        assert newest["metadata"]["ownerReferences"][0]["controller"] is True
        await there.until(lambda: "lastSuccessfulTime" in there.get(CRON_JOB, "tick")["status"])
        wanted = {"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"}
        await there.until(lambda: wanted <= set(there.events()))


async def test_forbid_lets_one_finish_first() -> None:
    ticking = Ticking()
    async with world(ticking.make, watch=(JOB,)) as there:
        await there.client.create(CRON_JOB, cron_job(concurrencyPolicy="Forbid"))
        ticking.tick(there, 60)
        await there.until(lambda: len(there.all(JOB)) == 1)
        ticking.tick(there, 60)
        await there.until(lambda: "JobAlreadyActive" in there.events())
        assert len(there.all(JOB)) == 1


async def test_replace_ends_the_running_one() -> None:
    ticking = Ticking()
    async with world(ticking.make, watch=(JOB,)) as there:
        await there.client.create(CRON_JOB, cron_job(concurrencyPolicy="Replace"))
        ticking.tick(there, 60)
        [first] = await there.until(lambda: there.all(JOB))
        ticking.tick(there, 60)
        await there.until(lambda: (found := there.all(JOB)) and name(found[0]) != name(first))
        assert len(there.all(JOB)) == 1
        await there.until(lambda: "SuccessfulDelete" in there.events())


async def test_suspended_makes_none_and_says_so_of_bad_zones() -> None:
    ticking = Ticking()
    async with world(ticking.make, watch=(JOB,)) as there:
        await there.client.create(CRON_JOB, cron_job(suspend=True))
        ticking.tick(there, 600)
        await there.client.patch(CRON_JOB, "tick", {"spec": {"suspend": False}}, "default")
        [only] = await there.until(lambda: there.all(JOB))
        # Of ten times the last one counts.
        minutes = int(name(only).removeprefix("tick-"))
        assert there.clock() - datetime.fromtimestamp(minutes * 60, UTC) < timedelta(seconds=61)


async def test_a_job_that_went_missing_is_forgotten() -> None:
    ticking = Ticking()
    async with world(ticking.make, watch=(JOB,)) as there:
        await there.client.create(CRON_JOB, cron_job("0 0 1 1 *"))
        made = scheduling.new_job(await there.client.get(CRON_JOB, "tick", "default"), NOON)
        created = await there.client.create(JOB, made)
        await there.until(lambda: "UnexpectedJob" in there.events())
        reference = {"kind": "Job", "apiVersion": "batch/v1", "name": name(created), "uid": "gone"}
        await there.client.patch(
            CRON_JOB, "tick", {"status": {"active": [reference]}}, "default", subresource="status"
        )
        await there.until(lambda: "MissingJob" in there.events())
        await there.until(lambda: not dig(there.get(CRON_JOB, "tick"), "status", "active"))


# Which time is due.


@pytest.mark.parametrize(
    ("schedule", "created", "last", "spec", "due", "missed"),
    [
        ("0 * * * *", NOON - timedelta(minutes=30), None, {}, NOON, Missed.NONE),
        ("5 * * * *", NOON - timedelta(minutes=30), None, {}, None, Missed.NONE),
        ("0 * * * *", NOON - timedelta(hours=50), NOON - timedelta(hours=1), {}, NOON, Missed.NONE),
        ("0 * * * *", NOON - timedelta(hours=50), NOON, {}, None, Missed.NONE),
        ("0 * * * *", NOON - timedelta(hours=50), NOON - timedelta(hours=20), {}, NOON, Missed.FEW),
        ("* * * * *", NOON - timedelta(hours=50), None, {}, NOON, Missed.MANY),
        ("* * * * *", NOON - timedelta(hours=50), None, {"startingDeadlineSeconds": 50}, NOON, Missed.NONE),
        ("30 6-16/4 * * 1-5", NOON - timedelta(days=30), None, {}, NOON.replace(day=27, month=2, hour=14, minute=30),
         Missed.FEW),
        ("@every 90m", NOON - timedelta(hours=10), None, {}, NOON - timedelta(hours=1), Missed.FEW),
    ],
)  # fmt: skip
def test_the_last_time_that_is_due(
    schedule: str, created: datetime, last: datetime | None, spec: Any, due: datetime | None, missed: Missed
) -> None:
    subject = stored(schedule, created, last, **spec)
    recent = scheduling.most_recent(subject, scheduling.schedule_of(subject), NOON)
    assert (recent.due, recent.missed) == (due, missed)


def test_a_schedule_that_never_comes() -> None:
    subject = stored("59 23 31 2 *", NOON)
    with pytest.raises(ValueError, match="less than 1 second"):
        scheduling.most_recent(subject, scheduling.schedule_of(subject), NOON)
    assert scheduling.seconds_to_next(subject, cron.parse("59 23 31 2 *"), NOON) is None


def test_too_late() -> None:
    subject = stored("0 * * * *", NOON, startingDeadlineSeconds=10)
    assert not scheduling.is_too_late(subject, NOON, NOON + timedelta(seconds=10))
    assert scheduling.is_too_late(subject, NOON, NOON + timedelta(seconds=11))


def test_the_annotation_is_in_the_schedule_s_zone() -> None:
    subject = stored("0 * * * *", NOON, timeZone="Asia/Seoul")
    made = scheduling.new_job(subject, NOON)
    assert made["metadata"]["annotations"][words.SCHEDULED_TIMESTAMP] == "2026-03-01T21:00:00+09:00"
