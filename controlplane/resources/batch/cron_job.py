"""CronJob: makes Jobs by a schedule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta import cron
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age, since
from controlplane.resources.apps.rules import go_selector
from controlplane.resources.batch.job_rules import validate_spec
from controlplane.resources.batch.warnings import cron_job_warnings
from controlplane.resources.cells import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    NONE,
    UNSET,
    containers_and_images,
    format_selector,
    wide,
)
from controlplane.resources.fieldpath import not_supported
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

_NAME_MAX = 52
"""What is left of 63 for the Jobs' suffix: a dash and the minutes since 1970."""

_ZONE_PART = re.compile(r"[A-Za-z.\-_0-9+]{1,14}").fullmatch


def _default(cron_job: Object) -> None:
    if cron_job.get("spec") is None:
        cron_job["spec"] = {}
    spec = cron_job["spec"]
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    for field, value in (
        ("suspend", False),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    ):
        if spec.get(field) is None:
            spec[field] = value
    if spec.get("jobTemplate") is None:
        spec["jobTemplate"] = {}
    template = spec["jobTemplate"]
    if template.get("metadata") is None:
        template["metadata"] = {}
    template["metadata"].setdefault("creationTimestamp", None)
    if template.get("spec") is None:
        template["spec"] = {}
    if template["spec"].get("template") is None:
        template["spec"]["template"] = {}
    default_template(template["spec"]["template"])
    if cron_job.get("status") is None:
        cron_job["status"] = {}


def _prepare_create(cron_job: Object) -> None:
    cron_job["status"] = {}


def _validate(cron_job: Object) -> Sequence[Cause]:
    field = Field.root(cron_job)
    spec = field["spec"]
    # Only what holds for new and changed objects alike; `_validate_update` takes back what old ones may keep.
    if not spec["schedule"].present:
        spec["schedule"].required()
    else:
        _schedule_format(spec["schedule"])
    spec["startingDeadlineSeconds"].not_negative()
    spec["concurrencyPolicy"].required().one_of("Allow", "Forbid", "Replace")
    _job_template(spec["jobTemplate"])
    spec["successfulJobsHistoryLimit"].not_negative()
    spec["failedJobsHistoryLimit"].not_negative()
    if not cron_job["metadata"].get("resourceVersion"):
        _validate_new(field)
    return field.causes


def _validate_new(field: Field) -> None:
    spec, own_name = field["spec"], field["metadata"]["name"]
    _no_zone_in(spec["schedule"])
    _time_zone(spec["timeZone"])
    if len(own_name.text) > _NAME_MAX:
        own_name.invalid(f"must be no more than {_NAME_MAX} characters")


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    spec, before = Field.root(new)["spec"], Field.root(old)["spec"]
    schedule, zone = spec["schedule"], spec["timeZone"]
    if "TZ" not in before["schedule"].text:
        _no_zone_in(schedule)
    elif "TZ" in schedule.text and zone.value is not None:
        schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule")
    if zone.value != before["timeZone"].value:
        _time_zone(zone)
    return spec.causes


def _schedule_format(schedule: Field) -> None:
    try:
        cron.parse(schedule.text)
    except ValueError as error:
        schedule.invalid(str(error))


def _no_zone_in(schedule: Field) -> None:
    if "TZ" in schedule.text:
        schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead")


def _time_zone(zone: Field) -> None:
    if zone.value is None:
        return
    text = zone.text
    if not text:
        zone.invalid("timeZone must be nil or non-empty string")
        return
    for part in text.split("/"):
        if part in (".", "..") or part.startswith("-") or not _ZONE_PART(part):
            zone.invalid(f"unknown time zone {text}")
            return
    if text.lower() == "local":
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    try:
        cron.location(text)
    except ValueError as error:
        zone.invalid(str(error))


def _job_template(template: Field) -> None:
    spec = template["spec"]
    validate_spec(spec)
    selector, manual = spec["selector"], spec["manualSelector"]
    if selector.value is not None:
        selector.of(go_selector(selector.value)).invalid("`selector` will be auto-generated")
    if manual.value:
        manual.fail(not_supported(manual.path, True, ("nil", "false")))


def _row(cron_job: Object, now: datetime) -> Sequence[object]:
    spec, status = cron_job.get("spec") or {}, cron_job.get("status") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    suspend = spec.get("suspend")
    return (
        name(cron_job),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        UNSET if suspend is None else str(bool(suspend)),
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(cron_job, now),
        *containers_and_images(job.get("template")),
        format_selector(job.get("selector")),
    )


CRON_JOB = Kind(
    group="batch",
    version="v1",
    kind="CronJob",
    plural="cronjobs",
    singular="cronjob",
    namespaced=True,
    short_names=("cj",),
    categories=("all",),
    columns=(
        NAME,
        Column("Schedule", description="When it makes Jobs, in cron's form."),
        Column("Timezone", description="The time zone of the schedule."),
        Column("Suspend", type="boolean", description="Whether it makes no more Jobs for now."),
        Column("Active", type="integer", description="The Jobs that run."),
        Column("Last Schedule", description="When it made the last Job."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", "The pods its Jobs count as their own."),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    validate=_validate,
    validate_update=_validate_update,
    warnings=cron_job_warnings,
    status=True,
    generation=True,
    fields=selectable_fields(),
)
