"""What a Job has: its pods by state, and the counts with those that are not in the status yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.controllers.job.pods import (
    all_failures,
    finished_at,
    has_failed,
    has_limit_per_index,
    is_indexed,
    is_tracked,
    only_failed_are_replaced,
    valid_index_of,
)
from controlplane.controllers.job.policies import fails_index, match_failure
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, uid
from controlplane.meta.pods import is_active, is_finished, is_ready, phase
from controlplane.resources.batch.indexes import parse_indexes


@dataclass(frozen=True, slots=True)
class Counted:
    """`succeeded` and `failed` include pods that the status does not count yet; `new_succeeded` and `new_failed` are
    those it knows nothing of. For indexed Jobs: indexes done before and now, `failed_indexes` (None without a limit
    per index), and per index the failed pod that is kept until its replacement carries its failure count.
    """

    pods: Sequence[Object]
    active: Sequence[Object]
    ready: int
    terminating: int
    new_succeeded: Sequence[Object]
    new_failed: Sequence[Object]
    succeeded: int
    failed: int
    indexes_before: frozenset[int]
    indexes: frozenset[int]
    failed_indexes: frozenset[int] | None
    delayed: dict[int, Object]


def count(job: Object, pods: Sequence[Object]) -> Counted:
    status = job.get("status") or {}
    active = [pod for pod in pods if is_active(pod)]
    uncounted = status.get("uncountedTerminatedPods") or {}
    listed_succeeded, listed_failed = (
        set(uncounted.get("succeeded") or ()),
        set(uncounted.get("failed") or ()),
    )
    valid = [pod for pod in pods if _is_valid(job, pod)]
    new_succeeded = [pod for pod in valid if phase(pod) == "Succeeded" and uid(pod) not in listed_succeeded]
    new_failed = [pod for pod in valid if has_failed(job, pod) and uid(pod) not in listed_failed]
    policy = dig(job, "spec", "podFailurePolicy")
    counting = sum(match_failure(policy, pod).counts for pod in new_failed)
    before, now = _succeeded_indexes(job, pods)
    failed_indexes = _failed_indexes(job, pods) if is_indexed(job) and has_limit_per_index(job) else None
    succeeded = status.get("succeeded", 0) + len(new_succeeded) + len(listed_succeeded)
    return Counted(
        pods=pods,
        active=active,
        ready=sum(is_ready(pod) for pod in active),
        terminating=sum(is_being_deleted(pod) and not is_finished(pod) for pod in pods),
        new_succeeded=new_succeeded,
        new_failed=new_failed,
        succeeded=len(now) if is_indexed(job) else succeeded,
        failed=status.get("failed", 0) + counting + len(listed_failed),
        indexes_before=before,
        indexes=now,
        failed_indexes=failed_indexes,
        delayed={} if failed_indexes is None else _delayed(job, valid, active, now | failed_indexes),
    )


def pending_indexes(job: Object, counted: Counted, wanted: int) -> list[int]:
    """The first indexes that need a pod, `wanted` at most."""
    taken = set(counted.indexes) | set(counted.failed_indexes or ())
    taken |= {index for pod in counted.active if (index := valid_index_of(job, pod)) is not None}
    if only_failed_are_replaced(job):
        leaving = (pod for pod in counted.pods if is_being_deleted(pod) and not is_finished(pod))
        taken |= {index for pod in leaving if (index := valid_index_of(job, pod)) is not None}
    found: list[int] = []
    for index in range(job["spec"]["completions"]):
        if len(found) >= wanted:
            break
        if index not in taken:
            found.append(index)
    return found


def _is_valid(job: Object, pod: Object) -> bool:
    """Whether the pod is still to be counted."""
    return is_tracked(pod) and (not is_indexed(job) or valid_index_of(job, pod) is not None)


def _succeeded_indexes(job: Object, pods: Sequence[Object]) -> tuple[frozenset[int], frozenset[int]]:
    if not is_indexed(job):
        return frozenset(), frozenset()
    text = dig(job, "status", "completedIndexes", default="")
    before = frozenset(parse_indexes(text, job["spec"]["completions"]))
    done = {valid_index_of(job, pod) for pod in pods if phase(pod) == "Succeeded" and is_tracked(pod)}
    return before, before | {index for index in done if index is not None}


def _failed_indexes(job: Object, pods: Sequence[Object]) -> frozenset[int]:
    before = parse_indexes(dig(job, "status", "failedIndexes", default=""), job["spec"]["completions"])
    for pod in pods:
        index = valid_index_of(job, pod)
        if index is not None and is_tracked(pod) and has_failed(job, pod) and fails_index(job, pod):
            before.add(index)
    return frozenset(before)


def _delayed(
    job: Object, valid: Sequence[Object], active: Sequence[Object], done: frozenset[int]
) -> dict[int, Object]:
    running = {valid_index_of(job, pod) for pod in active}
    found: dict[int, Object] = {}
    for pod in valid:
        index = valid_index_of(job, pod)
        if index is None or index in done or index in running or not has_failed(job, pod):
            continue
        last = found.get(index)
        if last is None or (all_failures(last), finished_at(last)) <= (all_failures(pod), finished_at(pod)):
            found[index] = pod
    return found
