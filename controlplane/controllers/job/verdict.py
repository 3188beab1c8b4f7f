"""Whether a Job is over, and why, in upstream's order of questions (v1.32). Pure.

The answer is the interim condition (`SuccessCriteriaMet`, `FailureTarget`), or the final one when the interim one is
there already; the final condition follows once all pods are gone and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from controlplane.controllers.job.counting import Counted
from controlplane.controllers.job.pods import is_indexed, is_suspended
from controlplane.controllers.job.policies import failure_message, match_success
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig
from controlplane.meta.pods import phase
from controlplane.meta.timestamps import format_time, parse
from controlplane.resources.batch.job_status import is_true

SUCCESS, FAILURE = "SuccessCriteriaMet", "FailureTarget"
COMPLETE, FAILED = "Complete", "Failed"


def condition(type_: str, reason: str, message: str, now: datetime, status: str = "True") -> Object:
    made: Object = {
        "type": type_,
        "status": status,
        "lastProbeTime": format_time(now),
        "lastTransitionTime": format_time(now),
    }
    made.update({key: value for key, value in (("reason", reason), ("message", message)) if value})
    return made


def finished_condition(job: Object, counted: Counted, now: datetime) -> Object | None:
    """Why the Job has ended, None while it goes on (or may complete by its numbers)."""
    if is_true(job, SUCCESS):
        return conditions.of(job, SUCCESS)
    if is_true(job, FAILURE):
        target = conditions.of(job, FAILURE) or {}
        return condition(FAILED, target.get("reason", ""), target.get("message", ""), now)
    message = failure_message(job, counted.pods)
    if message:
        return condition(FAILURE, "PodFailurePolicy", message, now)
    if counted.failed > job["spec"]["backoffLimit"] or _restarted_too_often(job, counted.pods):
        text = "Job has reached the specified backoff limit"
        return condition(FAILURE, "BackoffLimitExceeded", text, now)
    left = seconds_to_deadline(job, now)
    if left is not None and left <= 0:
        return condition(FAILURE, "DeadlineExceeded", "Job was active longer than specified deadline", now)
    return _of_indexes(job, counted, now) if is_indexed(job) else None


def _of_indexes(job: Object, counted: Counted, now: datetime) -> Object | None:
    spec, failed = job["spec"], counted.failed_indexes
    completions = spec["completions"]
    if failed is not None:
        most = spec.get("maxFailedIndexes")
        if most is not None and len(failed) > most:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return condition(FAILURE, "MaxFailedIndexesExceeded", text, now)
        if failed and len(failed) + len(counted.indexes) >= completions:
            return condition(FAILURE, "FailedIndexes", "Job has failed indexes", now)
    message = match_success(spec.get("successPolicy"), completions, set(counted.indexes))
    return condition(SUCCESS, "SuccessPolicy", message, now) if message else None


def is_complete(job: Object, counted: Counted, active: int) -> bool:
    """Whether as many pods as wanted have succeeded and none is left."""
    completions = job["spec"].get("completions")
    wanted = 1 if completions is None else completions
    return counted.succeeded >= wanted and active == 0


def reached(now: datetime) -> Object:
    return condition(SUCCESS, "CompletionsReached", "Reached expected number of succeeded pods", now)


def seconds_to_deadline(job: Object, now: datetime) -> float | None:
    """How long the Job may still be active; None without a deadline, before the start and while suspended."""
    limit, start = job["spec"].get("activeDeadlineSeconds"), dig(job, "status", "startTime")
    if limit is None or start is None or is_suspended(job):
        return None
    return float(limit - (now - parse(start)).total_seconds())


def _restarted_too_often(job: Object, pods: Iterable[Object]) -> bool:
    """Where containers are restarted in their pods, restarts count against the limit."""
    if dig(job, "spec", "template", "spec", "restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in pods:
        if phase(pod) in ("Running", "Pending"):
            for field in ("initContainerStatuses", "containerStatuses"):
                restarts += sum(s.get("restartCount", 0) for s in dig(pod, "status", field, default=()))
    limit: int = job["spec"]["backoffLimit"]
    return restarts > 0 if limit == 0 else restarts >= limit
