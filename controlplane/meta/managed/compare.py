"""Two states of an object -> which fields changed or came, and which went away."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from controlplane.meta.managed.elements import indexed
from controlplane.meta.managed.extract import node_of
from controlplane.meta.managed.sets import LEAF, SELF, FieldSet, ordered
from controlplane.meta.managed.shapes import Form, Shape, is_atomic

_MISSING: Any = object()
_REMEMBERED_BYTES = 16 * 1024
_Pair = tuple[FieldSet | None, FieldSet | None]
_SAME: _Pair = (None, None)


def compare(shape: Shape, old: Any, new: Any) -> tuple[FieldSet, FieldSet]:
    """(changed or added, removed)."""
    changed, removed = _compare_maps(shape, old, new)
    return changed or {}, removed or {}


def created(shape: Shape, new: dict[str, Any]) -> FieldSet:
    """What a new object has: everything it is not born with. In the order of the wire."""
    found: FieldSet = {}
    for name in sorted(new):
        encoded = orjson.dumps(new[name])
        known = _beginning if len(encoded) <= _REMEMBERED_BYTES else _beginning.__wrapped__
        node = known(shape, name, encoded)
        if node is not None:
            found[f"f:{name}"] = node
    return found


@lru_cache(maxsize=1024)
def _beginning(shape: Shape, name: str, encoded: bytes) -> FieldSet | None:
    """Objects that controllers make are mostly alike, so what one of them has is remembered."""
    before = shape.always.get(name, _MISSING)
    changed, _ = _compare(shape.child(name), before, orjson.loads(encoded))
    return None if changed is None else ordered(changed)


def _compare(shape: Shape, old: Any, new: Any) -> _Pair:
    if old is _MISSING:
        return node_of(shape, new), None
    if new is _MISSING:
        return None, node_of(shape, old)
    if old == new:
        return _SAME
    if shape.form is Form.SCALAR or shape.atomic:
        return LEAF, None
    maps = isinstance(old, dict) or isinstance(new, dict)
    if shape.form is Form.ANY and not maps:
        return LEAF, None
    kind: type = dict if maps and shape.form is not Form.LIST else list
    if (old and not isinstance(old, kind)) or (new and not isinstance(new, kind)):
        return _replaced(shape, old, new)
    if not old and not new:
        return LEAF, None
    if kind is dict:
        return _compare_maps(shape, old or {}, new or {})
    return _compare_lists(shape, old or [], new or [])


def _replaced(shape: Shape, old: Any, new: Any) -> _Pair:
    """Values of different kinds, where anything may stand: what was below is gone, what is there is new."""
    removed = None if is_atomic(shape, old) else {e: n for e, n in node_of(shape, old).items() if e != SELF}
    if is_atomic(shape, new):
        return LEAF, removed or None
    changed = {element: node for element, node in node_of(shape, new).items() if element != SELF}
    return {SELF: LEAF, **changed} if changed else LEAF, removed or None


def _compare_maps(shape: Shape, old: dict[str, Any], new: dict[str, Any]) -> _Pair:
    changed: FieldSet = {}
    removed: FieldSet = {}
    always = shape.always
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if before is _MISSING and name in always:
            before = always[name]
        if before is value:
            continue
        came, gone = _compare(shape.child(name), before, value)
        if came is not None:
            changed[f"f:{name}"] = came
        if gone is not None:
            removed[f"f:{name}"] = gone
    for name, value in old.items():
        if name in new:
            continue
        came, gone = _compare(shape.child(name), value, always.get(name, _MISSING))
        if came is not None:
            changed[f"f:{name}"] = came
        if gone is not None:
            removed[f"f:{name}"] = gone
    return changed or None, removed or None


def _compare_lists(shape: Shape, old: list[Any], new: list[Any]) -> _Pair:
    before, after = indexed(shape, old), indexed(shape, new)
    element_shape = shape.child("")
    changed: FieldSet = {}
    removed: FieldSet = {}
    for element in dict.fromkeys((*before, *after)):
        came, gone = _compare_items(element_shape, before.get(element, ()), after.get(element, ()))
        if came is not None:
            changed[element] = came
        if gone is not None:
            removed[element] = gone
    return changed or None, removed or None


def _compare_items(shape: Shape, old: Any, new: Any) -> _Pair:
    """The items with one element. Two and more of them are owned together, without what is in them."""
    if len(old) < 2 and len(new) < 2:
        return _compare(shape, old[0] if old else _MISSING, new[0] if new else _MISSING)
    if len(old) > 1 and len(new) > 1:
        return _SAME if old == new else (LEAF, None)
    if len(old) > 1:
        return (node_of(shape, new[0]) if new else None), LEAF
    return LEAF, (node_of(shape, old[0]) if old else None)
