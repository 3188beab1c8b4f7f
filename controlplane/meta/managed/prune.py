"""Taking fields out of an object."""

from __future__ import annotations

from typing import Any

from controlplane.meta.managed.elements import indexed
from controlplane.meta.managed.sets import SELF, FieldSet, as_member, is_member
from controlplane.meta.managed.shapes import Form, Shape, is_atomic


def without_fields(shape: Shape, obj: dict[str, Any], fields: FieldSet) -> dict[str, Any]:
    """A new object without the members of `fields` and what is below them; the rest is shared with `obj`."""
    left: Any = _remove(shape, obj, fields)
    return left if isinstance(left, dict) else {}


def _remove(shape: Shape, value: Any, fields: FieldSet) -> Any:
    if not value or shape.form is Form.SCALAR:
        return value
    if is_atomic(shape, value):
        # Not removed itself, but something in it: it cannot be left half.
        return None
    if isinstance(value, dict):
        return _remove_members(shape, value, fields) or None
    if isinstance(value, list) and shape.form is Form.LIST:
        return _remove_items(shape, value, fields) or None
    return value


def _remove_members(shape: Shape, value: dict[str, Any], fields: FieldSet) -> dict[str, Any]:
    left: dict[str, Any] = {}
    for name, member in value.items():
        node = fields.get(f"f:{name}")
        if node is None:
            left[name] = member
        elif not is_member(node):
            rest = _remove(shape.child(name), member, node)
            # What held nothing else is not left behind empty.
            if rest is not None or member is None:
                left[name] = rest
    return left


def _remove_items(shape: Shape, items: list[Any], fields: FieldSet) -> list[Any]:
    elements = {id(item): element for element, alike in indexed(shape, items).items() for item in alike}
    inner = shape.child("")
    left = []
    for item in items:
        node = fields.get(elements[id(item)])
        if node is None:
            left.append(item)
        elif not is_member(node):
            left.append(_remove(inner, item, node))
    return left


def with_named_fields(shape: Shape, fields: FieldSet) -> FieldSet:
    """The set with the declared fields on the way to its members, which sets otherwise leave out."""
    if not fields:
        return fields
    found: FieldSet = {}
    declared = shape.fields if shape.form is Form.MAP else {}
    for element, node in fields.items():
        if element == SELF or not node:
            found[element] = node
            continue
        kind, name = element[0], element[2:]
        inner = with_named_fields(shape.child(name if kind == "f" else ""), node)
        found[element] = as_member(inner) if kind == "f" and name in declared else inner
    return found
