"""A Job's pods: their index, whether they have failed, when they ended, and what a new one looks like. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import clone, dig, is_being_deleted, name, namespace
from controlplane.meta.owners import owner_reference
from controlplane.meta.pods import is_ready, phase
from controlplane.meta.timestamps import parse
from controlplane.resources.batch import words
from controlplane.resources.catalog import JOB

_GENERATED_MAX = 58
"""Bytes a prefix of generated names may have."""

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == words.INDEXED)


def has_limit_per_index(job: Object) -> bool:
    return job["spec"].get("backoffLimitPerIndex") is not None


def only_failed_are_replaced(job: Object) -> bool:
    """Whether a pod that is only on its way out is neither failed nor replaced yet."""
    spec = job["spec"]
    return spec.get("podReplacementPolicy") == "Failed" or spec.get("podFailurePolicy") is not None


def is_suspended(job: Object) -> bool:
    return bool(job["spec"].get("suspend"))


def is_tracked(pod: Object) -> bool:
    """Whether the pod is not counted for good yet: it still has the finalizer."""
    return words.TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def index_of(pod: Object) -> int | None:
    text = annotations_of(pod).get(words.COMPLETION_INDEX, "")
    return int(text) if text.isdecimal() else None


def valid_index_of(job: Object, pod: Object) -> int | None:
    """The pod's index if the Job has it."""
    index = index_of(pod)
    return index if index is not None and index < (job["spec"].get("completions") or 0) else None


def has_failed(job: Object, pod: Object) -> bool:
    """A pod that is being deleted counts as failed, unless failed ones only are replaced: it may never end."""
    if phase(pod) == "Failed":
        return True
    if only_failed_are_replaced(job):
        return False
    return is_being_deleted(pod) and phase(pod) != "Succeeded"


def failure_count(pod: Object) -> int:
    """How many pods of its index failed before this one and counted."""
    return _number(pod, words.INDEX_FAILURE_COUNT)


def all_failures(pod: Object) -> int:
    """The same with those that a policy ignores."""
    return failure_count(pod) + _number(pod, words.INDEX_IGNORED_FAILURE_COUNT)


def _number(pod: Object, annotation: str) -> int:
    text = annotations_of(pod).get(annotation, "")
    return int(text) if text.isdecimal() else 0


def finished_at(pod: Object) -> datetime:
    """When its last container ended, as near as its status tells."""
    ends: list[datetime] = []
    statuses = dig(pod, "status", "containerStatuses", default=())
    for status in statuses:
        end = dig(status, "state", "terminated", "finishedAt")
        if end is None:
            ends = []
            break
        ends.append(parse(end))
    if ends:
        return max(ends)
    ready = conditions.of(pod, "Ready")
    if ready is not None and ready.get("status") == "False" and ready.get("lastTransitionTime"):
        return parse(ready["lastTransitionTime"])
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp"):
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return parse(metadata["deletionTimestamp"]) - grace
    return parse(metadata["creationTimestamp"])


def for_removal(job: Object, active: Sequence[Object], at_least: int) -> list[Object]:
    """Which active pods go: those without a right to be there (no index, a doubled one), then the youngest."""
    remove: list[Object] = []
    left = list(active)
    if is_indexed(job):
        remove, left = _surplus_of_indexes(job, active)
    if len(remove) < at_least:
        remove += sorted(left, key=_worth)[: at_least - len(remove)]
    return remove


def _surplus_of_indexes(job: Object, active: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    by_index: dict[int | None, list[Object]] = {}
    for pod in active:
        by_index.setdefault(valid_index_of(job, pod), []).append(pod)
    remove = by_index.pop(None, [])
    left: list[Object] = []
    for index in sorted(index for index in by_index if index is not None):
        *surplus, last = sorted(by_index[index], key=_worth)
        remove += surplus
        left.append(last)
    return remove, left


def _worth(pod: Object) -> tuple[bool, int, bool, int, float]:
    """The smallest goes first: not scheduled, not running, not ready, often restarted, young."""
    restarts = sum(s.get("restartCount", 0) for s in dig(pod, "status", "containerStatuses", default=()))
    created = pod["metadata"].get("creationTimestamp")
    age = -parse(created).timestamp() if created else 0.0
    return bool(dig(pod, "spec", "nodeName")), _PHASES.get(phase(pod), 0), is_ready(pod), -restarts, age


def new_pod(job: Object, index: int | None = None, extra: dict[str, str] | None = None) -> Object:
    """The pod to create; `index` for indexed Jobs, `extra` are further annotations."""
    template = clone(job["spec"].get("template") or {})
    described = template.get("metadata") or {}
    finalizers = [*(described.get("finalizers") or ())]
    if words.TRACKING_FINALIZER not in finalizers:
        finalizers.append(words.TRACKING_FINALIZER)
    metadata: Object = {
        "generateName": f"{name(job)}-",
        "namespace": namespace(job),
        "labels": dict(described.get("labels") or {}),
        "annotations": {**(described.get("annotations") or {}), **(extra or {})},
        "finalizers": finalizers,
        "ownerReferences": [owner_reference(JOB.api_version, JOB.kind, job)],
    }
    spec = template.get("spec") or {}
    if index is not None:
        metadata["generateName"] = _prefix(name(job), index)
        metadata["annotations"][words.COMPLETION_INDEX] = str(index)
        metadata["labels"][words.COMPLETION_INDEX] = str(index)
        spec["hostname"] = f"{name(job)}-{index}"
        _tell_index((*(spec.get("initContainers") or ()), *(spec.get("containers") or ())))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {key: value for key, value in metadata.items() if value},
        "spec": spec,
    }


def _prefix(job: str, index: int) -> str:
    suffix = f"-{index}-"
    return f"{job[: _GENERATED_MAX - len(suffix)]}{suffix}"


def _tell_index(containers: Iterable[Object]) -> None:
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{words.COMPLETION_INDEX}']"}},
    }
    for container in containers:
        given = container.get("env") or []
        if not any(item.get("name") == variable["name"] for item in given):
            container["env"] = [*given, variable]
