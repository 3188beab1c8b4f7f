"""A StatefulSet's status. Pure."""

from __future__ import annotations

from datetime import datetime

from controlplane.controllers.statefulset.history import Revisions
from controlplane.controllers.statefulset.identity import replicas
from controlplane.controllers.statefulset.plan import Plan, is_running_and_ready, revision_of
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.meta.pods import is_available, phase


def status_of(stateful_set: Object, revisions: Revisions, plan: Plan, moment: datetime) -> Object:
    """The fresh status; counts of zero are left out but for two. A finished rolling update makes its revision the
    current one.
    """
    wait = dig(stateful_set, "spec", "minReadySeconds", default=0)
    created = [pod for pod in plan.pods if phase(pod)]
    ready = [pod for pod in created if is_running_and_ready(pod)]
    staying = [revision_of(pod) for pod in created if not is_being_deleted(pod)]
    current, update = name(revisions.current), name(revisions.update)
    counts = {
        "observedGeneration": dig(stateful_set, "metadata", "generation", default=0),
        "readyReplicas": len(ready),
        "currentReplicas": max(0, staying.count(current) - plan.outdated),
        "updatedReplicas": staying.count(update),
    }
    wanted = replicas(stateful_set)
    rolling = dig(stateful_set, "spec", "updateStrategy", "type") == "RollingUpdate"
    if rolling and {len(created), len(ready), counts["updatedReplicas"]} == {wanted}:
        counts["currentReplicas"] = counts["updatedReplicas"]
        current = update
    status: Object = {
        "replicas": len(created),
        "availableReplicas": sum(is_available(pod, wait, moment) for pod in ready),
        **{key: value for key, value in counts.items() if value},
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": revisions.collisions,
    }
    conditions = dig(stateful_set, "status", "conditions")
    if conditions is not None:
        status["conditions"] = conditions
    return status
