"""Which pods a ReplicaSet deletes first when it has too many. Pure; the order is upstream's (v1.32)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cmp_to_key

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, uid
from controlplane.meta.pods import is_ready, phase
from controlplane.meta.timestamps import parse

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}

Comparison = Callable[[Object, Object], float]


def pods_to_delete(
    pods: Sequence[Object], related: Sequence[Object], count: int, moment: datetime
) -> list[Object]:
    """The `count` pods to delete out of `pods`, first the least valuable ones.

    `related` are the active pods of all ReplicaSets with the same owner: of nodes that hold many of them pods
    are taken first. `moment` (aware) is the present.
    """
    if count >= len(pods):
        return list(pods)
    per_node = Counter(dig(pod, "spec", "nodeName", default="") for pod in related)

    def crowd(pod: Object) -> int:
        return per_node[dig(pod, "spec", "nodeName", default="")]

    comparisons: tuple[Comparison, ...] = (
        lambda a, b: bool(dig(a, "spec", "nodeName")) - bool(dig(b, "spec", "nodeName")),
        lambda a, b: _PHASES.get(phase(a), 0) - _PHASES.get(phase(b), 0),
        lambda a, b: is_ready(a) - is_ready(b),
        lambda a, b: _cost(a) - _cost(b),
        lambda a, b: crowd(b) - crowd(a),
        lambda a, b: _younger_first(_ready_since(a), _ready_since(b), a, b, moment) if is_ready(a) else 0,
        lambda a, b: _restarts(b) - _restarts(a),
        lambda a, b: _younger_first(_created(a), _created(b), a, b, moment),
    )

    def compare(a: Object, b: Object) -> int:
        for comparison in comparisons:
            difference = comparison(a, b)
            if difference:
                return -1 if difference < 0 else 1
        return 0

    return sorted(pods, key=cmp_to_key(compare))[:count]


def _cost(pod: Object) -> int:
    """The cost in the pod's annotation; what is no number counts as 0, as the server refuses it only there."""
    try:
        return int(dig(pod, "metadata", "annotations", DELETION_COST, default="0"))
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    return sum(
        status.get("restartCount", 0) for status in dig(pod, "status", "containerStatuses", default=())
    )


def _ready_since(pod: Object) -> datetime | None:
    since = (conditions.of(pod, "Ready") or {}).get("lastTransitionTime")
    return parse(since) if since else None


def _created(pod: Object) -> datetime | None:
    created = dig(pod, "metadata", "creationTimestamp")
    return parse(created) if created else None


def _younger_first(
    a: datetime | None, b: datetime | None, pod_a: Object, pod_b: Object, moment: datetime
) -> float:
    """Compare ages by their order of magnitude, so that among old pods chance (the uid) decides."""
    if a == b:
        return 0
    if a is None or b is None:
        return -1 if a is None else 1
    difference = _magnitude(a, moment) - _magnitude(b, moment)
    if difference:
        return difference
    return -1 if uid(pod_a) < uid(pod_b) else 1


def _magnitude(since: datetime, moment: datetime) -> int:
    nanoseconds = (moment - since).total_seconds() * 1e9
    return int(math.log2(nanoseconds)) if nanoseconds >= 1 else -1
