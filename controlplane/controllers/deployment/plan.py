"""Which ReplicaSet gets which size next: rolling update, recreation and proportional scaling. Pure.

Each function answers with (ReplicaSet, new size) pairs in the order they are to be written; upstream's v1.32
rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from controlplane.controllers.deployment.revisions import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    annotated_number,
    by_age,
)
from controlplane.controllers.deployment.sizes import (
    active,
    available,
    is_rolling,
    max_surge,
    max_unavailable,
    spec_sum,
    wanted,
)
from controlplane.errors import Object
from controlplane.meta.objects import dig, name, uid

Sizes = list[tuple[Object, int]]


def new_set_size(deployment: Object, sets: Sequence[Object], current: int) -> int:
    """How large the set of the present template may be now. `sets` are all sets, it among them if it exists."""
    if not is_rolling(deployment):
        return wanted(deployment)
    limit = wanted(deployment) + max_surge(deployment)
    total = spec_sum(sets)
    if total >= limit:
        return current
    return current + min(limit - total, wanted(deployment) - current)


def grow_new(deployment: Object, new: Object, sets: Sequence[Object]) -> Sizes:
    """The step of the new set in a rolling update; empty when it has its size."""
    size = wanted(new)
    if size > wanted(deployment):
        return [(new, wanted(deployment))]
    target = new_set_size(deployment, sets, size)
    return [(new, target)] if target != size else []


def shrink_old(deployment: Object, new: Object, old: Sequence[Object]) -> Sizes:
    """The step of the old sets in a rolling update: unhealthy pods first, then as availability allows."""
    if spec_sum(old) == 0:
        return []
    least = wanted(deployment) - max_unavailable(deployment)
    missing_in_new = wanted(new) - available(new)
    room = spec_sum(old) + wanted(new) - least - missing_in_new
    if room <= 0:
        return []
    sizes = {uid(each): wanted(each) for each in old}
    ordered = by_age(active(old))
    removed = 0
    for each in ordered:
        unhealthy = max(0, sizes[uid(each)] - available(each))
        step = min(room - removed, unhealthy)
        sizes[uid(each)] -= step
        removed += step
    # A set that was shrunk a moment ago still reports the pods it is about to lose: they do not count.
    spare = sum(min(available(each), wanted(each)) for each in [*old, new]) - least
    for each in ordered:
        step = max(0, min(sizes[uid(each)], spare))
        sizes[uid(each)] -= step
        spare -= step
    return [(each, sizes[uid(each)]) for each in ordered if sizes[uid(each)] != wanted(each)]


def scale(deployment: Object, new: Object | None, old: Sequence[Object]) -> Sizes:
    """Follow a change of the Deployment's size outside a rollout step, and in the middle of one
    proportionally.

    Sets whose size stays may be listed too: their size annotations are then out of date.
    """
    only = _active_or_latest(new, old)
    if only is not None:
        return [] if wanted(only) == wanted(deployment) else [(only, wanted(deployment))]
    if new is not None and _is_saturated(deployment, new):
        return [(each, 0) for each in active(old)]
    if not is_rolling(deployment):
        return []
    return _proportional(deployment, active([*old, *([new] if new is not None else [])]))


def _active_or_latest(new: Object | None, old: Sequence[Object]) -> Object | None:
    """The set to scale when there is no doubt: the only active one, or with none the newest."""
    running = active([*old, *([new] if new is not None else [])])
    if len(running) > 1:
        return None
    if running:
        return running[0]
    return new or (by_age(old)[-1] if old else None)


def _is_saturated(deployment: Object, new: Object) -> bool:
    size = wanted(deployment)
    return annotated_number(new, DESIRED_REPLICAS) == size and wanted(new) == size and available(new) == size


def _proportional(deployment: Object, sets: list[Object]) -> Sizes:
    """Share what is to be added or taken among the sets by their size; what rounding leaves goes to the
    first.
    """
    limit = wanted(deployment) + max_surge(deployment) if wanted(deployment) > 0 else 0
    change = limit - spec_sum(sets)
    ordered = by_age(sets)
    if change > 0:
        ordered.reverse()
    # The largest first; of the same size the newer when growing, the older when shrinking.
    ordered.sort(key=wanted, reverse=True)
    given = 0
    result: Sizes = []
    for each in ordered:
        share = _share(deployment, each, change, given) if change else 0
        given += share
        result.append((each, wanted(each) + share))
    if change and result:
        first, size = result[0]
        result[0] = (first, max(0, size + change - given))
    return result


def _share(deployment: Object, replica_set: Object, change: int, given: int) -> int:
    if wanted(replica_set) == 0 or change == given:
        return 0
    fraction = _fraction(deployment, replica_set)
    allowed = change - given
    return min(fraction, allowed) if change > 0 else max(fraction, allowed)


def _fraction(deployment: Object, replica_set: Object) -> int:
    """By how much the set would change if it kept its part of the whole."""
    size = wanted(replica_set)
    if wanted(deployment) == 0:
        return -size
    before = annotated_number(replica_set, MAX_REPLICAS) or dig(deployment, "status", "replicas", default=0)
    if not before:
        return 0
    grown = size * (wanted(deployment) + max_surge(deployment)) / before
    return math.floor(grown + 0.5) - size


def needs_scaling(deployment: Object, sets: Sequence[Object]) -> bool:
    """Whether the Deployment's size has changed since its active sets were last sized."""
    for each in active(sets):
        desired = annotated_number(each, DESIRED_REPLICAS)
        if desired is not None and desired != wanted(deployment):
            return True
    return False


def describe(replica_set: Object, size: int) -> str:
    """The text of the event about a change of size."""
    direction = "up" if size > wanted(replica_set) else "down"
    return f"Scaled {direction} replica set {name(replica_set)} from {wanted(replica_set)} to {size}"
