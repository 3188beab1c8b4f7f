"""What clients are warned of about Jobs and CronJobs (pkg/registry/batch, v1.32). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Object
from controlplane.resources.apps.rules import name_warnings
from controlplane.resources.batch import words

_MANY, _MANY_AT_ONCE = 100_000, 10_000
_TOO_MANY = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, a Kubernetes "
    "control plane might not be able to track completedIndexes when a big number of indexes fail"
)


def job_warnings(new: Object, old: Object | None) -> Sequence[str]:
    return [*name_warnings(new, old), *_spec(new.get("spec") or {})]


def cron_job_warnings(new: Object, old: Object | None) -> Sequence[str]:
    template = (new.get("spec") or {}).get("jobTemplate") or {}
    return [*name_warnings(new, old), *_spec(template.get("spec") or {})]


def _spec(spec: Object) -> Sequence[str]:
    if spec.get("completionMode") != words.INDEXED:
        return ()
    many = (spec.get("completions") or 0) > _MANY and (spec.get("parallelism") or 0) > _MANY_AT_ONCE
    return (_TOO_MANY,) if many else ()
