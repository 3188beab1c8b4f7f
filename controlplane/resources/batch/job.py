"""Job: pods that run to their end, so many of them and so many at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import is_being_deleted, name
from controlplane.meta.timestamps import age, human_duration, parse
from controlplane.resources.batch import words
from controlplane.resources.batch.job_rules import (
    validate_generated_selector,
    validate_host_names,
    validate_selector,
    validate_spec,
)
from controlplane.resources.batch.job_status import is_true, validate_status
from controlplane.resources.batch.job_update import validate_update
from controlplane.resources.batch.warnings import job_warnings
from controlplane.resources.cells import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    containers_and_images,
    format_selector,
    number,
    wide,
)
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.rules import MAX_INT32, Field
from controlplane.resources.selectable import number as number_at
from controlplane.resources.selectable import selectable_fields

BACKOFF_LIMIT = 6
_ORPHANS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def _default(job: Object) -> None:
    if job.get("spec") is None:
        job["spec"] = {}
    spec = job["spec"]
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    per_index = spec.get("backoffLimitPerIndex") is not None
    failure_policy = spec.get("podFailurePolicy")
    for field, value in (
        ("parallelism", 1),
        ("backoffLimit", MAX_INT32 if per_index else BACKOFF_LIMIT),
        ("completionMode", words.NON_INDEXED),
        ("suspend", False),
        ("manualSelector", False),
        ("podReplacementPolicy", "TerminatingOrFailed" if failure_policy is None else "Failed"),
    ):
        if spec.get(field) is None:
            spec[field] = value
    for rule in (failure_policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"
    if spec.get("template") is None:
        spec["template"] = {}
    default_template(spec["template"])
    _labels_of_the_template(job)
    if job.get("status") is None:
        job["status"] = {}


def _labels_of_the_template(job: Object) -> None:
    labels = job["spec"]["template"]["metadata"].get("labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(labels)


def _prepare_create(job: Object) -> None:
    job["status"] = {}
    if not job["spec"].get("manualSelector"):
        _generate_selector(job)
        _labels_of_the_template(job)


def _generate_selector(job: Object) -> None:
    """What the user set already stays, for validation to judge."""
    spec, uid = job["spec"], job["metadata"].get("uid", "")
    labels = spec["template"]["metadata"].get("labels") or {}
    own_name = job["metadata"].get("name", "")
    for key, value in (
        (words.LEGACY_JOB_NAME, own_name),
        (words.JOB_NAME, own_name),
        (words.LEGACY_CONTROLLER_UID, uid),
        (words.CONTROLLER_UID, uid),
    ):
        labels.setdefault(key, value)
    spec["template"]["metadata"]["labels"] = labels
    selector = spec.get("selector") or {}
    matched = selector.get("matchLabels") or {}
    matched.setdefault(words.CONTROLLER_UID, uid)
    selector["matchLabels"] = matched
    spec["selector"] = selector


def _validate(job: Object) -> Sequence[Cause]:
    field = Field.root(job)
    validate_generated_selector(field)
    validate_spec(field["spec"])
    validate_selector(field["spec"])
    validate_host_names(field)
    return field.causes


def _row(job: Object, now: datetime) -> Sequence[object]:
    spec = job.get("spec") or {}
    return (
        name(job),
        status_word(job),
        _completions(job),
        _duration(job, now),
        age(job, now),
        *containers_and_images(spec.get("template")),
        format_selector(spec.get("selector")),
    )


def status_word(job: Object) -> str:
    """The STATUS column."""
    for condition in ("Complete", "Failed"):
        if is_true(job, condition):
            return condition
    if is_being_deleted(job):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_true(job, condition):
            return condition
    return "Running"


def _completions(job: Object) -> str:
    spec, succeeded = job.get("spec") or {}, number((job.get("status") or {}).get("succeeded"))
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = number(spec.get("parallelism"))
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Object, now: datetime) -> str:
    status = job.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = parse(status["completionTime"]) if status.get("completionTime") else now
    return human_duration((end - parse(status["startTime"])).total_seconds())


JOB = Kind(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    singular="job",
    namespaced=True,
    categories=("all",),
    columns=(
        NAME,
        Column("Status", description="Status of the job."),
        Column("Completions", description="Pods that succeeded, of those wanted."),
        Column("Duration", description="Time from the start to the completion of the job."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", "The pods it counts as its own."),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    validate=_validate,
    validate_update=validate_update,
    warnings=job_warnings,
    validate_status=validate_status,
    status=True,
    generation=True,
    orphans=True,
    orphans_warning=_ORPHANS,
    fields=selectable_fields(named={"status.successful": number_at("status", "succeeded")}),
)
