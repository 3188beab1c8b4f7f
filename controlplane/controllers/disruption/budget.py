"""A PodDisruptionBudget's status from its pods (pkg/controller/disruption, v1.32). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import is_being_deleted, name
from controlplane.meta.pods import is_finished, is_ready
from controlplane.meta.timestamps import format_time, parse

DELETION_TIMEOUT = timedelta(minutes=2)
STALE_AFTER = timedelta(minutes=2)
_BY_KUBELET = "TerminationByKubelet"


@dataclass(frozen=True, slots=True)
class Disrupted:
    """Pods whose eviction was allowed and that are still there; those that should be gone by now; when to look again
    (seconds, 0 = no need).
    """

    pods: Mapping[str, str]
    late: Sequence[Object]
    recheck: float


def selector_of(budget: Object) -> LabelSelector | None:
    """None when it selects nothing: an absent selector. Raises ValueError."""
    selector = budget["spec"].get("selector")
    return None if selector is None else LabelSelector.from_object(selector)


def needs_scale(budget: Object) -> bool:
    """Whether it matters how many pods there should be, not only how many there are."""
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def expected_and_desired(budget: Object, pods: int, scale: int) -> tuple[int, int]:
    """How many pods there should be and how many must stay healthy; `scale` is their owners' number of replicas."""
    spec = budget["spec"]
    most = spec.get("maxUnavailable")
    if most is not None:
        return scale, max(0, scale - _amount(most, scale))
    least = spec.get("minAvailable")
    if isinstance(least, str):
        return scale, _amount(least, scale)
    return pods, least or 0


def _amount(value: int | str, of: int) -> int:
    """A number, or a percentage rounded up."""
    return value if isinstance(value, int) else -(-int(value.rstrip("%")) * of // 100)


def disrupted(budget: Object, pods: Sequence[Object], now: datetime) -> Disrupted:
    listed = (budget.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    late: list[Object] = []
    recheck = 0.0
    for pod in pods:
        since = listed.get(name(pod))
        if since is None or is_being_deleted(pod):
            continue
        left = (parse(since) + DELETION_TIMEOUT - now).total_seconds()
        if left < 0:
            late.append(pod)
            continue
        kept[name(pod)] = since
        recheck = left if not recheck else min(recheck, left)
    return Disrupted(kept, late, recheck)


def healthy(pods: Sequence[Object], disrupted_pods: Mapping[str, str]) -> int:
    return sum(is_ready(pod) for pod in pods if not is_being_deleted(pod) and name(pod) not in disrupted_pods)


def new_status(
    budget: Object,
    current: int,
    desired: int,
    expected: int,
    disrupted_pods: Mapping[str, str],
    now: datetime,
) -> Object:
    allowed = current - desired
    if expected <= 0 or allowed <= 0:
        allowed = 0
    status: Object = {
        "currentHealthy": current,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if disrupted_pods:
        status["disruptedPods"] = dict(disrupted_pods)
    reason = "SufficientPods" if allowed > 0 else "InsufficientPods"
    return _with_allowed(budget, status, allowed > 0, reason, "", now)


def failed_status(budget: Object, why: str, now: datetime) -> Object:
    """When the numbers are not known nothing may be evicted."""
    status = {**(budget.get("status") or {}), "disruptionsAllowed": 0}
    status["observedGeneration"] = budget["metadata"].get("generation", 0)
    return _with_allowed(budget, status, False, "SyncFailed", why, now)


def _with_allowed(
    budget: Object, status: Object, allowed: bool, reason: str, message: str, now: datetime
) -> Object:
    made = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "observedGeneration": status["observedGeneration"],
        "lastTransitionTime": format_time(now),
        "reason": reason,
        "message": message,
    }
    status["conditions"] = conditions.with_condition((budget.get("status") or {}).get("conditions"), made)
    return status


def seconds_until_stale(pod: Object, now: datetime) -> float | None:
    """How long a pod that was to be disrupted has until nobody will do so any more; None if it says no such thing."""
    condition = conditions.of(pod, "DisruptionTarget")
    if condition is None or condition.get("status") != "True" or condition.get("reason") == _BY_KUBELET:
        return None
    since = condition.get("lastTransitionTime")
    if is_being_deleted(pod) or is_finished(pod) or not since:
        return None
    return (parse(since) + STALE_AFTER - now).total_seconds()


def without_disruption(pod: Object, now: datetime) -> Object:
    """The pod's status after the disruption did not come."""
    made = {
        "type": "DisruptionTarget",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now),
    }
    status = pod.get("status") or {}
    return {**status, "conditions": conditions.with_condition(status.get("conditions"), made)}
