"""How finished pods get into a Job's counters, each exactly once. Pure: plans and statuses, no calls.

A pod's uid is first listed in `status.uncountedTerminatedPods`, then its finalizer is removed, then the counter goes
up as the uid leaves the list. Whatever breaks in between, the next sync finds out from the finalizer where it stands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from controlplane.controllers.job.counting import Counted
from controlplane.controllers.job.pods import (
    has_failed,
    has_limit_per_index,
    index_of,
    is_indexed,
    is_tracked,
    valid_index_of,
)
from controlplane.controllers.job.policies import match_failure
from controlplane.errors import Object
from controlplane.meta.objects import is_being_deleted, uid
from controlplane.meta.pods import phase
from controlplane.resources.batch.indexes import format_indexes

UNCOUNTED_MAX = 500
_ZERO_LEFT_OUT = ("active", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Plan:
    """The status to store first, the pods to release then, and whether that is all of them."""

    status: Object
    release: list[Object]
    complete: bool


def plan(job: Object, status: Object, counted: Counted, finished: Object | None) -> Plan:
    """`status` is the new status so far; it is taken over. `finished` is why the Job is over, if it is."""
    uncounted = {
        name: [*((status.get("uncountedTerminatedPods") or {}).get(name) or ())]
        for name in ("succeeded", "failed")
    }
    status["uncountedTerminatedPods"] = uncounted
    settle(status, {uid(pod) for pod in counted.pods if is_tracked(pod)})
    uncounted = status["uncountedTerminatedPods"]
    indexes = set(counted.indexes_before)
    release: list[Object] = []
    complete = True
    new_indexes = 0
    for pod in sorted(counted.pods, key=lambda pod: index_of(pod) or 0):
        if not is_tracked(pod) or not _may_release(job, pod, counted, finished):
            continue
        release.append(pod)
        if phase(pod) == "Succeeded" and uid(pod) not in uncounted["failed"]:
            if is_indexed(job):
                index = valid_index_of(job, pod)
                if index is not None and index not in indexes:
                    indexes.add(index)
                    new_indexes += 1
            elif uid(pod) not in uncounted["succeeded"]:
                uncounted["succeeded"].append(uid(pod))
        elif _counts_as_failed(job, pod, finished) and uid(pod) not in uncounted["failed"]:
            uncounted["failed"].append(uid(pod))
        if new_indexes + len(uncounted["succeeded"]) + len(uncounted["failed"]) >= UNCOUNTED_MAX:
            # The rest in the next sync: the status stays small, and other Jobs get their turn.
            complete = False
            break
    if is_indexed(job):
        status["succeeded"] = len(indexes)
        status["completedIndexes"] = format_indexes(indexes)
        status.pop("failedIndexes", None)
        if counted.failed_indexes is not None:
            status["failedIndexes"] = format_indexes(counted.failed_indexes)
    return Plan(tidy(status), release, complete)


def settle(status: Object, tracked: Collection[str]) -> None:
    """Count the listed pods that have no finalizer any more; changes `status`."""
    uncounted = status.get("uncountedTerminatedPods") or {}
    left = {}
    for name in ("succeeded", "failed"):
        listed = uncounted.get(name) or ()
        left[name] = [each for each in listed if each in tracked]
        status[name] = status.get(name, 0) + len(listed) - len(left[name])
    status["uncountedTerminatedPods"] = left


def is_settled(status: Object) -> bool:
    """Whether no pod waits to be counted."""
    uncounted = status.get("uncountedTerminatedPods") or {}
    return not (uncounted.get("succeeded") or uncounted.get("failed"))


def tidy(status: Object) -> Object:
    """A copy as Go prints it: without empty lists and counts of zero, except those that are pointers."""
    result = {
        key: value for key, value in status.items() if value not in (None, "") or key == "failedIndexes"
    }
    for name in _ZERO_LEFT_OUT:
        if not result.get(name):
            result.pop(name, None)
    uncounted = result.get("uncountedTerminatedPods") or {}
    result["uncountedTerminatedPods"] = {name: uids for name, uids in uncounted.items() if uids}
    if not result.get("conditions"):
        result.pop("conditions", None)
    return result


def _may_release(job: Object, pod: Object, counted: Counted, finished: Object | None) -> bool:
    if is_being_deleted(job) or finished is not None or phase(pod) == "Succeeded":
        return True
    if not has_failed(job, pod):
        return False
    if has_limit_per_index(job):
        index = index_of(pod)
        kept = counted.delayed.get(index) if index is not None else None
        return kept is None or uid(kept) != uid(pod)
    return True


def _counts_as_failed(job: Object, pod: Object, finished: Object | None) -> bool:
    """When the Job has failed, every pod that did not succeed has."""
    if finished is not None and finished["type"] not in ("SuccessCriteriaMet", "Complete"):
        failed = True
    else:
        failed = has_failed(job, pod)
    if not failed or (is_indexed(job) and valid_index_of(job, pod) is None):
        return False
    return match_failure(job["spec"].get("podFailurePolicy"), pod).counts
