"""The status of a ReplicaSet or ReplicationController. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.client.batches import Failure
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, labels
from controlplane.meta.pods import is_available, is_ready
from controlplane.meta.timestamps import format_time


def status_of(
    owner: Object, pods: Sequence[Object], failures: Sequence[Failure], difference: int, moment: datetime
) -> Object:
    """The status as upstream writes it: counts of zero are left out, except `replicas`.

    `failures` are those of this reconcile's creations (`difference` < 0) or deletions of pods.
    """
    old = owner.get("status") or {}
    wait = dig(owner, "spec", "minReadySeconds", default=0)
    template_labels = (dig(owner, "spec", "template", "metadata", "labels", default={})).items()
    counts = {
        "fullyLabeledReplicas": sum(template_labels <= labels(pod).items() for pod in pods),
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "availableReplicas": sum(is_available(pod, wait, moment) for pod in pods),
        "observedGeneration": dig(owner, "metadata", "generation", default=0),
    }
    status: Object = {"replicas": len(pods), **{key: value for key, value in counts.items() if value}}
    listed = old.get("conditions") or []
    failure = conditions.find(listed, "ReplicaFailure")
    if failures and failure is None:
        reason = "FailedCreate" if difference < 0 else "FailedDelete"
        listed = conditions.with_condition(
            listed,
            {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": format_time(moment),
                "reason": reason,
                "message": str(failures[0]),
            },
        )
    elif not failures and failure is not None:
        listed = conditions.without(listed, "ReplicaFailure")
    if listed:
        status["conditions"] = listed
    return status
