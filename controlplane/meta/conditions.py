"""The `status.conditions` lists that most kinds have. Pure: lists in, lists out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.errors import Object


def find(conditions: Iterable[Object] | None, type_: str) -> Object | None:
    """The condition of that type, or None. Read-only."""
    for condition in conditions or ():
        if condition.get("type") == type_:
            return condition
    return None


def of(obj: Mapping[str, Any], type_: str) -> Object | None:
    """The condition of that type in the object's status, or None. Read-only."""
    return find((obj.get("status") or {}).get("conditions"), type_)


def status_of(obj: Mapping[str, Any], type_: str) -> str:
    """`True`, `False` or `Unknown`; empty when the object has no such condition."""
    condition = of(obj, type_)
    return str(condition.get("status", "")) if condition else ""


def with_condition(conditions: Iterable[Object] | None, new: Object) -> list[Object]:
    """The list with `new` in the place of the condition of its type, or at the end.

    The time of the last transition is kept when the status has not changed.
    """
    result = []
    placed = False
    for condition in conditions or ():
        if condition.get("type") != new["type"]:
            result.append(condition)
            continue
        placed = True
        if condition.get("status") == new.get("status") and "lastTransitionTime" in condition:
            new = {**new, "lastTransitionTime": condition["lastTransitionTime"]}
        result.append(new)
    if not placed:
        result.append(new)
    return result


def without(conditions: Iterable[Object] | None, type_: str) -> list[Object]:
    """The list without the condition of that type."""
    return [condition for condition in conditions or () if condition.get("type") != type_]
