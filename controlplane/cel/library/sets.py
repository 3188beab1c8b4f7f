"""sets.contains, sets.equivalent and sets.intersects."""

from __future__ import annotations

from typing import Any

from controlplane.cel.functions import Function, plain
from controlplane.cel.types import BOOL, CelType, list_of

_LIST = list_of(CelType("T", parameter=True))


def _in(item: Any, items: list[Any]) -> bool:
    return any(item == other and isinstance(item, bool) == isinstance(other, bool) for other in items)


def _contains(one: list[Any], other: list[Any]) -> bool:
    return all(_in(item, one) for item in other)


def _intersects(one: list[Any], other: list[Any]) -> bool:
    return any(_in(item, one) for item in other)


def _equivalent(one: list[Any], other: list[Any]) -> bool:
    return _contains(one, other) and _contains(other, one)


FUNCTIONS: tuple[Function, ...] = (
    plain("sets.contains", _contains, ("list_sets_contains_list", (_LIST, _LIST), BOOL)),
    plain("sets.equivalent", _equivalent, ("list_sets_equivalent_list", (_LIST, _LIST), BOOL)),
    plain("sets.intersects", _intersects, ("list_sets_intersects_list", (_LIST, _LIST), BOOL)),
)
