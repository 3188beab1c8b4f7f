"""What makes a Job's status valid, and what a write of the status may change (v1.32). Pure.

Most rules hold only for what the write changes, so that a status from older days can still be written.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig
from controlplane.resources.batch import words
from controlplane.resources.batch.indexes import count_indexes, overlap
from controlplane.resources.batch.job_rules import fault_of_all
from controlplane.resources.rules import Field, same

_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")


def is_true(job: Object, condition: str) -> bool:
    return conditions.status_of(job, condition) == "True"


def is_finished(job: Object) -> bool:
    """Whether it is complete or has failed, for good."""
    return is_true(job, "Complete") or is_true(job, "Failed")


def validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    for name in _COUNTS:
        status[name].not_negative()
    _uncounted(status["uncountedTerminatedPods"])
    changed = {name for name in {*_keys(new), *_keys(old)} if not same(_of(new, name), _of(old, name))}
    _conditions(new, old, status)
    _times(new, old, status, changed)
    _indexes(new, status, changed)
    if is_finished(new):
        _finished(status)
    ready = status["ready"]
    if changed & {"ready", "active"} and ready.value is not None and ready.value > _count(new, "active"):
        ready.invalid("cannot set more ready pods than active")
    for name in ("failed", "succeeded"):
        elastic = name == "succeeded" and dig(new, "spec", "completions") == dig(new, "spec", "parallelism")
        if not elastic and _count(new, name) < _count(old, name):
            status[name].of(_count(new, name)).invalid(f"cannot decrease the {name} counter")
    return field.causes


def _keys(job: Object) -> set[str]:
    return set(job.get("status") or ())


def _of(job: Object, name: str) -> object:
    return dig(job, "status", name)


def _count(job: Object, name: str) -> int:
    return int(dig(job, "status", name, default=0))


def _uncounted(pods: Field) -> None:
    seen: set[object] = set()
    for name in ("succeeded", "failed"):
        for uid in pods[name]:
            if not uid.present:
                uid.invalid("must not be empty")
            elif uid.value in seen:
                uid.duplicate()
            seen.add(uid.value)


def _conditions(new: Object, old: Object, status: Field) -> None:
    listed = status["conditions"]
    complete, failed = is_true(new, "Complete"), is_true(new, "Failed")
    target, criteria = is_true(new, "FailureTarget"), is_true(new, "SuccessCriteriaMet")
    for wrong, text in (
        (complete and failed, "cannot set Complete=True and Failed=true conditions"),
        (complete and target, "cannot set Complete=True and FailureTarget=true conditions"),
        (failed and not target, "cannot set Failed=True condition without the FailureTarget=true condition"),
        (
            complete and not criteria,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (criteria and failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (criteria and target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ):
        if wrong:
            fault_of_all(listed, text)
    for condition in ("Failed", "Complete", "FailureTarget"):
        if is_true(old, condition) and not is_true(new, condition):
            fault_of_all(listed, f"cannot disable the terminal {condition}=True condition")
    if is_true(old, "SuccessCriteriaMet") and not criteria:
        fault_of_all(listed, "cannot disable the SuccessCriteriaMet=True condition")


def _times(new: Object, old: Object, status: Field, changed: set[str]) -> None:
    start, completion = status["startTime"], status["completionTime"]
    complete = is_true(new, "Complete")
    if completion.present and not complete:
        completion.invalid("cannot set completionTime when there is no Complete=True condition")
    if complete and not completion.present:
        completion.required("completionTime is required for Complete jobs")
    if "completionTime" in changed and completion.present and _of(old, "completionTime"):
        completion.invalid("completionTime cannot be mutated")
    if start.present and completion.present and str(completion.value) < str(start.value):
        completion.invalid("completionTime cannot be set before startTime")
    # A Job that goes on after it was suspended starts anew.
    resumes = dig(new, "spec", "suspend") or is_true(old, "Suspended")
    if "startTime" in changed and _of(old, "startTime") and not resumes:
        start.of(None).required("startTime cannot be removed for unsuspended job")


def _indexes(new: Object, status: Field, changed: set[str]) -> None:
    completions = dig(new, "spec", "completions", default=0)
    done, failed = status["completedIndexes"], status["failedIndexes"]
    for field, name in ((done, "completedIndexes"), (failed, "failedIndexes")):
        if name in changed and field.present:
            try:
                count_indexes(field.text, completions)
            except ValueError as error:
                field.invalid(f"error parsing {name}: {error}")
    if "completedIndexes" in changed and done.present and dig(new, "spec", "completionMode") != words.INDEXED:
        done.invalid("cannot set non-empty completedIndexes when non-indexed completion mode")
    per_index = dig(new, "spec", "backoffLimitPerIndex")
    if "failedIndexes" in changed and failed.value is not None and per_index is None:
        failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null")
    both = (
        overlap(done.text, failed.text, completions)
        if changed & {"completedIndexes", "failedIndexes"}
        else None
    )
    if both is not None:
        failed.invalid(f"failedIndexes and completedIndexes overlap at index: {both}")


def _finished(status: Field) -> None:
    if not status["startTime"].present:
        status["startTime"].required("startTime is required for finished job")
    for name in ("active", "terminating"):
        if (status[name].value or 0) > 0:
            status[name].invalid(f"{name}>0 is invalid for finished job")
    uncounted = status["uncountedTerminatedPods"]
    if len(uncounted["succeeded"]) + len(uncounted["failed"]):
        uncounted.invalid("uncountedTerminatedPods needs to be empty for finished job")
