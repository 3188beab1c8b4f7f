"""Whether a write fits into the quotas of its namespace, and what it adds to them. Pure.

Called by the admission plug-in; the rules and their texts are upstream's `CheckRequest` (v1.32).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.quota.amounts import (
    Amounts,
    add,
    exceeding,
    increase,
    mask,
    negative,
    parsed,
    shown,
    texts,
    without_zeros,
)
from controlplane.quota.usage import Evaluator, matches


class QuotaRefused(Exception):
    """The write does not fit; the text is what the client is told."""


def charged(
    quotas: Sequence[Object], evaluator: Evaluator, obj: Object, old: Object | None, now: datetime
) -> list[Object]:
    """The quotas that change, as new objects with the new usage in their status. Raises QuotaRefused.

    `old` is the object before an update. Quotas are judged by `status.hard`, which the quota controller sets.
    """
    concerned = [quota for quota in quotas if _concerns(evaluator, quota, obj)]
    if not concerned:
        return []
    try:
        usage = evaluator.usage(obj, now)
        before = evaluator.usage(old, now) if old is not None else {}
    except ValueError as error:
        raise QuotaRefused(str(error)) from error
    below = negative(usage)
    if below:
        raise QuotaRefused(f"quota usage is negative for resource(s): {','.join(below)}")
    changed = []
    for quota in concerned:
        delta = usage
        if old is not None and matches(evaluator, quota, old, _hard(quota)):
            delta = increase(usage, before)
        result = _with(quota, without_zeros(delta))
        if result is not None:
            changed.append(result)
    return changed


def _hard(quota: Object) -> dict[str, str]:
    return (quota.get("status") or {}).get("hard") or {}


def _concerns(evaluator: Evaluator, quota: Object, obj: Object) -> bool:
    hard = _hard(quota)
    if not matches(evaluator, quota, obj, hard):
        return False
    restricted = evaluator.resources(hard)
    try:
        evaluator.constraints(restricted, obj)
    except ValueError as error:
        raise QuotaRefused(f"failed quota: {name(quota)}: {error}") from error
    used = (quota.get("status") or {}).get("used") or {}
    if any(resource not in used for resource in restricted):
        raise QuotaRefused(
            f"status unknown for quota: {name(quota)}, resources: {','.join(sorted(restricted))}"
        )
    return True


def _with(quota: Object, delta: Amounts) -> Object | None:
    """The quota with `delta` added, or None when it limits nothing of it."""
    status = quota["status"]
    hard, used = parsed(status.get("hard")), parsed(status.get("used"))
    requested = mask(delta, hard)
    if not requested:
        return None
    new = add(used, requested)
    over = exceeding(mask(new, requested), hard)
    if over:
        raise QuotaRefused(
            f"exceeded quota: {name(quota)}, requested: {shown(mask(requested, over))}, "
            f"used: {shown(mask(used, over))}, limited: {shown(mask(hard, over))}"
        )
    return {**quota, "status": {**status, "used": texts(new)}}
