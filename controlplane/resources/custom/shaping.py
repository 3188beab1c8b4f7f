"""Pruning and defaulting of custom resources by their structural schema. All of it is idempotent.

`prune` makes a new object; `default` and `drop_nulls` edit in place. Called when bodies are decoded, when stored
objects are read (a schema may have changed since) and when a definition's own defaults are checked.
"""

from __future__ import annotations

from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.resources.custom.structural import ANYTHING, META_FIELDS, Schema


def prune(obj: Object, schema: Schema, unknown: list[str] | None = None, *, root: bool = True) -> Object:
    """`obj` without the fields the schema does not have; their paths are appended to `unknown`.

    `root`: it is a whole resource, whose apiVersion, kind and metadata are always kept.
    """
    found: Object = _pruned(obj, schema, "", root, unknown)
    return found


def _pruned(value: Any, schema: Schema, path: str, resource: bool, unknown: list[str] | None) -> Any:
    if isinstance(value, dict):
        return _pruned_map(value, schema, path, resource, unknown)
    if isinstance(value, list) and schema.items is not None:
        items = schema.items
        return [
            _pruned(item, items, f"{path}[{at}]", items.embedded, unknown) for at, item in enumerate(value)
        ]
    return value


def _pruned_map(
    value: Object, schema: Schema, path: str, resource: bool, unknown: list[str] | None
) -> Object:
    kept: Object = {}
    for name, member in value.items():
        where = f"{path}.{name}" if path else name
        child = schema.properties.get(name)
        if resource and name in META_FIELDS:
            kept[name] = member
        elif child is not None:
            kept[name] = _pruned(member, child, where, child.embedded, unknown)
        elif schema.additional is not None:
            kept[name] = _pruned(member, schema.additional, where, schema.additional.embedded, unknown)
        elif schema.preserve_unknown:
            kept[name] = member
        elif unknown is not None:
            unknown.append(where)
    return kept


def default(value: Any, schema: Schema) -> None:
    """Fill in defaults where nothing is, or null where null is not allowed."""
    if not schema.has_defaults:
        return
    if isinstance(value, dict):
        for name, child in schema.properties.items():
            if child.default is not None and (name not in value or _is_stray_null(value[name], child)):
                value[name] = clone(child.default)
        for name, member in value.items():
            child_of = schema.properties.get(name) or schema.additional
            if child_of is None:
                continue
            if name not in schema.properties and _is_stray_null(member, child_of):
                value[name] = clone(child_of.default)
            default(value[name], child_of)
    elif isinstance(value, list) and schema.items is not None:
        for at, item in enumerate(value):
            if _is_stray_null(item, schema.items):
                value[at] = clone(schema.items.default)
            default(value[at], schema.items)


def drop_nulls(value: Any, schema: Schema) -> None:
    """Remove the nulls of fields that are not nullable and have no default."""
    if isinstance(value, dict):
        for name in list(value):
            child = schema.properties.get(name) or schema.additional
            if child is None or child is ANYTHING:
                continue
            if value[name] is None:
                if not child.nullable:
                    del value[name]
            else:
                drop_nulls(value[name], child)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            drop_nulls(item, schema.items)


def _is_stray_null(value: object, schema: Schema) -> bool:
    return value is None and not schema.nullable
