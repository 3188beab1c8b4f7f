"""A Deployment's status: counts and the conditions Available, Progressing and ReplicaFailure. Pure.

Reasons and messages are upstream's (v1.32); `moment` is the present as an aware datetime.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.controllers.deployment.sizes import max_unavailable, spec_sum, status_sum, wanted
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import format_time, parse

PROGRESSING = "Progressing"
AVAILABLE = "Available"
REPLICA_FAILURE = "ReplicaFailure"

NEW_SET_AVAILABLE = "NewReplicaSetAvailable"
NEW_SET_CREATED = "NewReplicaSetCreated"
FOUND_NEW_SET = "FoundNewReplicaSet"
SET_UPDATED = "ReplicaSetUpdated"
CREATE_ERROR = "ReplicaSetCreateError"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"

_NO_DEADLINE = 2**31 - 1


def condition(type_: str, status: str, reason: str, message: str, moment: datetime) -> Object:
    """A condition that starts now."""
    stamp = format_time(moment)
    return {
        "type": type_,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def with_condition(listed: Sequence[Object], new: Object) -> list[Object]:
    """Set a condition, unless one with the same status and reason stands already."""
    current = conditions.find(listed, new["type"])
    if current is not None and (current["status"], current.get("reason")) == (new["status"], new["reason"]):
        return list(listed)
    if current is not None and current["status"] == new["status"]:
        new = {**new, "lastTransitionTime": current.get("lastTransitionTime", new["lastTransitionTime"])}
    return [*conditions.without(listed, new["type"]), new]


def progressing(obj_or_status: Object) -> Object | None:
    """The Progressing condition of a Deployment or of a status alone."""
    status = obj_or_status.get("status", obj_or_status)
    return conditions.find(status.get("conditions"), PROGRESSING)


def has_deadline(deployment: Object) -> bool:
    """Whether the Deployment wants to be told when a rollout stalls."""
    deadline = dig(deployment, "spec", "progressDeadlineSeconds")
    return deadline is not None and deadline != _NO_DEADLINE


def counts(deployment: Object, sets: Sequence[Object], new: Object | None, moment: datetime) -> Object:
    """The status with fresh counts and Available; other conditions as they are. Zero counts are left out."""
    old = deployment.get("status") or {}
    ready = status_sum(sets, "availableReplicas")
    numbers = {
        "observedGeneration": dig(deployment, "metadata", "generation", default=0),
        "replicas": status_sum(sets, "replicas"),
        "updatedReplicas": status_sum([new] if new is not None else [], "replicas"),
        "readyReplicas": status_sum(sets, "readyReplicas"),
        "availableReplicas": ready,
        "unavailableReplicas": max(0, spec_sum(sets) - ready),
    }
    status: Object = {key: value for key, value in numbers.items() if value}
    if old.get("collisionCount") is not None:
        status["collisionCount"] = old["collisionCount"]
    if ready >= wanted(deployment) - max_unavailable(deployment):
        is_available = condition(
            AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", moment
        )
    else:
        is_available = condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            moment,
        )
    status["conditions"] = with_condition(old.get("conditions") or [], is_available)
    return status


def rollout_status(
    deployment: Object, sets: Sequence[Object], new: Object | None, moment: datetime
) -> Object:
    """The status during and after a rollout, with Progressing and ReplicaFailure brought up to date."""
    status = counts(deployment, sets, new, moment)
    listed: list[Object] = status["conditions"]
    current = progressing(deployment)
    if not has_deadline(deployment):
        listed = conditions.without(listed, PROGRESSING)
    else:
        finished = (
            status.get("replicas", 0) == status.get("updatedReplicas", 0)
            and current is not None
            and current.get("reason") == NEW_SET_AVAILABLE
        )
        if not finished:
            listed = _progress(deployment, status, new, listed, moment)
    failures = _replica_failures(sets, new)
    if failures:
        failure = failures[0]
        listed = with_condition(
            listed,
            condition(
                REPLICA_FAILURE,
                failure["status"],
                failure.get("reason", ""),
                failure.get("message", ""),
                moment,
            ),
        )
    else:
        listed = conditions.without(listed, REPLICA_FAILURE)
    status["conditions"] = listed
    return status


def _progress(
    deployment: Object, status: Object, new: Object | None, listed: list[Object], moment: datetime
) -> list[Object]:
    subject = f'ReplicaSet "{name(new)}"' if new is not None else f'Deployment "{name(deployment)}"'
    if is_complete(deployment, status):
        text = f"{subject} has successfully progressed."
        return with_condition(listed, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, text, moment))
    if _has_progressed(deployment.get("status") or {}, status):
        fresh = condition(PROGRESSING, "True", SET_UPDATED, f"{subject} is progressing.", moment)
        current = conditions.find(listed, PROGRESSING)
        if current is not None and current["status"] == "True":
            fresh["lastTransitionTime"] = current.get("lastTransitionTime", fresh["lastTransitionTime"])
        # Replaced even if the reason stays: the time of the last progress is what the deadline counts from.
        return [*conditions.without(listed, PROGRESSING), fresh]
    if _timed_out(deployment, status, moment):
        text = f"{subject} has timed out progressing."
        return with_condition(listed, condition(PROGRESSING, "False", TIMED_OUT, text, moment))
    return listed


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether all wanted pods are of the present template, available, and no others are left."""
    size = wanted(deployment)
    fields = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(field, 0) == size for field in fields) and status.get(
        "observedGeneration", 0
    ) >= dig(deployment, "metadata", "generation", default=0)


def _has_progressed(old: Object, new: Object) -> bool:
    def outdated(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return any(new.get(field, 0) > old.get(field, 0) for field in grown) or outdated(new) < outdated(old)


def _timed_out(deployment: Object, status: Object, moment: datetime) -> bool:
    current = progressing(status)
    if current is None or current.get("reason") == NEW_SET_AVAILABLE:
        return False
    if current.get("reason") == TIMED_OUT:
        return True
    return _seconds_left(deployment, current, moment) < 0


def _seconds_left(deployment: Object, current: Object, moment: datetime) -> float:
    waited = (moment - parse(current["lastUpdateTime"])).total_seconds()
    return float(dig(deployment, "spec", "progressDeadlineSeconds", default=600)) - waited


def recheck_after(deployment: Object, status: Object, moment: datetime) -> float:
    """Seconds until a stalled rollout has to be looked at again for its deadline; 0 = not needed."""
    current = progressing(deployment)
    if not has_deadline(deployment) or current is None:
        return 0.0
    if is_complete(deployment, status) or current.get("reason") == TIMED_OUT:
        return 0.0
    return max(0.1, _seconds_left(deployment, current, moment) + 1)


def _replica_failures(sets: Sequence[Object], new: Object | None) -> list[Object]:
    """Failures of the new set, or else of any."""
    for group in ([new] if new is not None else [], sets):
        found = [conditions.of(each, REPLICA_FAILURE) for each in group]
        failures = [each for each in found if each is not None]
        if failures:
            return failures
    return []
