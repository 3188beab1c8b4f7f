"""A live object and an applied one -> the merged object. The applied one's values win.

Unchanged parts are shared with the live object. Lists that are merged keep the order the applied object gives to its
items; the others stay between them where they were.
"""

from __future__ import annotations

from typing import Any

from controlplane.meta.managed.elements import NoElement, element_of, indexed
from controlplane.meta.managed.shapes import Form, Shape

_NOTHING: Any = object()
_PLAIN = frozenset((str, int, bool, float))


def merge(shape: Shape, live: dict[str, Any], applied: dict[str, Any]) -> dict[str, Any]:
    return _merge_maps(shape, live, applied)


def _merge(shape: Shape, live: Any, applied: Any) -> Any:
    if shape.form is Form.SCALAR or shape.atomic:
        return applied
    if shape.form is Form.LIST:
        if not live and not applied:
            return applied
        return _merge_lists(shape, live if isinstance(live, list) else [], applied or [])
    if isinstance(applied, dict) and isinstance(live, dict):
        return _merge_maps(shape, live, applied) if live or applied else applied
    if applied is None and isinstance(live, dict) and live:
        # Stated as null: what is there stays, it is not this applier's to remove.
        return live
    return applied


def _merge_maps(shape: Shape, live: dict[str, Any], applied: dict[str, Any]) -> dict[str, Any]:
    merged = dict(live)
    for name, value in applied.items():
        present = live.get(name, _NOTHING)
        if present is _NOTHING or type(value) in _PLAIN:
            merged[name] = value
        else:
            merged[name] = _merge(shape.child(name), present, value)
    return merged


def _merge_lists(shape: Shape, live: list[Any], applied: list[Any]) -> list[Any]:
    """The interleaving of structured-merge-diff: shared items in the applied order, each live-only item stays where it
    is met on the way through the live list.
    """
    wanted = {element_of(shape, item): item for item in applied}
    present = indexed(shape, live)
    order = [_element(shape, item) for item in live]
    applied_order = list(wanted)
    shared = [element for element in applied_order if element in present]
    inner = shape.child("")
    done: set[str] = set()
    out: list[Any] = []

    def take(element: str) -> None:
        done.add(element)
        items = present.get(element, ())
        value = wanted[element]
        # Items that were there twice are not merged with the new one, they are replaced by it.
        out.append(_merge(inner, items[0], value) if len(items) == 1 else value)

    left, right = 0, 0
    while left < len(order) or right < len(applied_order):
        if left < len(order) and right < len(applied_order):
            element = order[left]
            if element == applied_order[right]:
                take(element)
                left, right = left + 1, right + 1
                shared = shared[1:]
                continue
            if element in wanted and shared and shared[0] != element:
                # A shared item whose turn comes later.
                left += 1
                continue
        if left < len(order):
            element = order[left]
            if element not in wanted:
                out.append(live[left])
                left += 1
                continue
            if element in done:
                left += 1
        if right < len(applied_order):
            element = applied_order[right]
            if element not in done:
                take(element)
            right += 1
            if shared and shared[0] == element:
                shared = shared[1:]
    return out


def _element(shape: Shape, item: Any) -> str:
    try:
        return element_of(shape, item)
    except NoElement:
        return next(iter(indexed(shape, [item])))
