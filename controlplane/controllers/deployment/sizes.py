"""How many pods: fenceposts of a rolling update and sums over ReplicaSets. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from controlplane.errors import Object
from controlplane.meta.objects import dig


def wanted(obj: Object) -> int:
    """`spec.replicas`."""
    return int(dig(obj, "spec", "replicas", default=1))


def is_rolling(deployment: Object) -> bool:
    """Whether the strategy is RollingUpdate."""
    return bool(dig(deployment, "spec", "strategy", "type", default="RollingUpdate") == "RollingUpdate")


def max_surge(deployment: Object) -> int:
    """How many pods there may be beyond the wanted number; percentages are rounded up."""
    return _fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Object) -> int:
    """How many of the wanted pods may be missing; percentages are rounded down."""
    if not is_rolling(deployment) or wanted(deployment) == 0:
        return 0
    return min(_fenceposts(deployment)[1], wanted(deployment))


def _fenceposts(deployment: Object) -> tuple[int, int]:
    """Surge and unavailable. Both zero would never move, so then one may be missing."""
    rolling = dig(deployment, "spec", "strategy", "rollingUpdate", default={})
    surge = _scaled(rolling.get("maxSurge", "25%"), wanted(deployment), round_up=True)
    unavailable = _scaled(rolling.get("maxUnavailable", "25%"), wanted(deployment), round_up=False)
    return (0, 1) if surge == 0 and unavailable == 0 else (surge, unavailable)


def _scaled(value: int | str, total: int, *, round_up: bool) -> int:
    if isinstance(value, int):
        return value
    exact = int(value.rstrip("%")) * total / 100
    return math.ceil(exact) if round_up else math.floor(exact)


def spec_sum(sets: Iterable[Object]) -> int:
    """Pods the sets are told to have."""
    return sum(map(wanted, sets))


def status_sum(sets: Iterable[Object], field: str) -> int:
    """The sum of a status field, e.g. `availableReplicas`."""
    return sum(int(dig(each, "status", field, default=0)) for each in sets)


def available(replica_set: Object) -> int:
    return int(dig(replica_set, "status", "availableReplicas", default=0))


def active(sets: Iterable[Object]) -> list[Object]:
    """The sets that are told to have pods."""
    return [each for each in sets if wanted(each) > 0]
