"""An object -> the set of fields it has."""

from __future__ import annotations

from typing import Any

from controlplane.meta.managed.elements import indexed
from controlplane.meta.managed.sets import LEAF, SELF, FieldSet
from controlplane.meta.managed.shapes import Form, Shape, is_atomic


def fields_of(shape: Shape, obj: Any) -> FieldSet:
    """What stating `obj` claims: its leaves and items, but not the declared structures above them."""
    if is_atomic(shape, obj):
        return {}
    if shape.form is Form.LIST:
        return _of_list(shape, obj) if isinstance(obj, list) else {}
    if not isinstance(obj, dict):
        return {}
    fields = shape.fields
    found: FieldSet = {}
    for name, value in obj.items():
        child = shape.child(name)
        children = {} if is_atomic(child, value) else fields_of(child, value)
        if is_atomic(child, value) or value is None or value == {} or name not in fields:
            found[f"f:{name}"] = {SELF: LEAF, **children} if children else LEAF
        elif children:
            found[f"f:{name}"] = children
    return found


def _of_list(shape: Shape, items: list[Any]) -> FieldSet:
    found: FieldSet = {}
    element_shape = shape.child("")
    for element, alike in indexed(shape, items).items():
        # Items that are there twice are owned together, without what is in them.
        children = fields_of(element_shape, alike[0]) if len(alike) == 1 else {}
        found[element] = {SELF: LEAF, **children} if children else LEAF
    return found


def node_of(shape: Shape, value: Any) -> FieldSet:
    """The node of a value that is new or gone: itself and all below it."""
    if not value or is_atomic(shape, value):
        return LEAF
    if isinstance(value, dict):
        child = shape.child
        node: FieldSet = {f"f:{name}": node_of(child(name), member) for name, member in value.items()}
    elif isinstance(value, list):
        element_shape = shape.child("")
        node = {
            element: node_of(element_shape, alike[0]) if len(alike) == 1 else LEAF
            for element, alike in indexed(shape, value).items()
        }
    else:
        return LEAF
    node[SELF] = LEAF
    return node
