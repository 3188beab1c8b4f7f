"""isSorted, sum, min, max, indexOf and lastIndexOf of lists."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from controlplane.cel.functions import Function, member
from controlplane.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    list_of,
)

_COMPARABLE = (INT, UINT, DOUBLE, BOOL, DURATION, TIMESTAMP, STRING, BYTES)
_SUMMABLE = (INT, UINT, DOUBLE, DURATION)
_T = CelType("T", parameter=True)


def _short(kind: CelType) -> str:
    return kind.name.rpartition(".")[2].lower()


def _is_sorted(items: list[Any]) -> bool:
    try:
        return all(not second < first for first, second in pairwise(items))
    except TypeError as fault:
        raise ValueError("no such overload") from fault


def _sum(items: list[Any]) -> Any:
    if not items:
        return 0
    total = items[0]
    try:
        for item in items[1:]:
            total = total + item
    except TypeError as fault:
        raise ValueError("no such overload") from fault
    if isinstance(total, int) and not -(2**63) <= total < 2**64:
        raise ValueError("integer overflow")
    return total


def _min(items: list[Any]) -> Any:
    return _extreme(items, "min")


def _max(items: list[Any]) -> Any:
    return _extreme(items, "max")


def _extreme(items: list[Any], name: str) -> Any:
    if not items:
        raise ValueError(f"{name} called on empty list")
    try:
        return min(items) if name == "min" else max(items)
    except TypeError as fault:
        raise ValueError("no such overload") from fault


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _index_of(items: list[Any], wanted: Any) -> int:
    return next((at for at, item in enumerate(items) if _same(item, wanted)), -1)


def _last_index_of(items: list[Any], wanted: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if _same(items[at], wanted)), -1)


FUNCTIONS: tuple[Function, ...] = (
    member(
        "isSorted",
        _is_sorted,
        *((f"list_{_short(kind)}_is_sorted_bool", (list_of(kind),), BOOL) for kind in _COMPARABLE),
    ),
    member(
        "sum",
        _sum,
        *((f"list_{_short(kind)}_sum_{_short(kind)}", (list_of(kind),), kind) for kind in _SUMMABLE),
    ),
    member(
        "max",
        _max,
        *((f"list_{_short(kind)}_max_{_short(kind)}", (list_of(kind),), kind) for kind in _COMPARABLE),
    ),
    member(
        "min",
        _min,
        *((f"list_{_short(kind)}_min_{_short(kind)}", (list_of(kind),), kind) for kind in _COMPARABLE),
    ),
    member("indexOf", _index_of, ("list_a_index_of_int", (list_of(_T), _T), INT)),
    member("lastIndexOf", _last_index_of, ("list_a_last_index_of_int", (list_of(_T), _T), INT)),
)
