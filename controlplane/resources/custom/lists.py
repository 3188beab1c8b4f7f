"""What a custom resource's structure demands beyond values: distinct items, good metadata inside. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label, dns1123_subdomain
from controlplane.resources import fieldpath
from controlplane.resources.custom import golang
from controlplane.resources.custom.structural import Schema
from controlplane.resources.custom.values import map_key
from controlplane.resources.metadata import validate_annotations
from controlplane.resources.rules import Field


def list_causes(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """Items that occur twice in a list of type set, or with the same keys in one of type map."""
    if not schema.has_lists:
        return []
    causes: list[Cause] = []
    if isinstance(value, list) and schema.items is not None:
        if schema.list_type == "set":
            causes += _set_causes(value, path)
        elif schema.list_type == "map":
            causes += _map_causes(value, schema, path)
    for member, child, where in members(value, schema, path):
        causes += list_causes(member, child, where)
    return causes


def _set_causes(value: list[Any], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    told: set[str] = set()
    for at, item in enumerate(value):
        key = map_key({"": item}, ("",))
        if key in seen and key not in told:
            told.add(key)
            yield fieldpath.duplicate(f"{path}[{at}]", golang.literal(item))
        seen.add(key)


def _map_causes(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    told: set[str] = set()
    for at, item in enumerate(value):
        if not isinstance(item, dict):
            continue
        keys = {name: item[name] for name in schema.list_map_keys if name in item}
        key = map_key(item, schema.list_map_keys)
        if key in seen and key not in told:
            told.add(key)
            yield fieldpath.duplicate(f"{path}[{at}]", golang.literal(keys))
        seen.add(key)


def members(value: Any, schema: Schema, path: str) -> Iterator[tuple[Any, Schema, str]]:
    """What lies directly below, with its schema and path."""
    if isinstance(value, dict):
        for name, member in value.items():
            child = schema.properties.get(name) or schema.additional
            if child is not None:
                yield member, child, _step(path, name, schema)
    elif isinstance(value, list) and schema.items is not None:
        for at, item in enumerate(value):
            yield item, schema.items, f"{path}[{at}]"


def _step(path: str, name: str, schema: Schema) -> str:
    if name not in schema.properties:
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


def embedded_causes(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """What is wrong with apiVersion, kind and metadata of the resources embedded in the object."""
    if not schema.has_embedded:
        return []
    causes: list[Cause] = []
    if schema.embedded and isinstance(value, dict):
        causes += _resource_causes(value, path)
    for member, child, where in members(value, schema, path):
        causes += embedded_causes(member, child, where)
    return causes


def _resource_causes(value: Object, path: str) -> list[Cause]:
    field = Field.root(value, path)
    for name in ("apiVersion", "kind"):
        field[name].required("must not be empty")
    kind = field["kind"].text
    if kind:
        for message in dns1123_label(kind.lower()):
            field["kind"].invalid(f"may have mixed case, but should otherwise match: {message}")
    meta = field["metadata"]
    meta["name"].check(dns1123_subdomain)
    meta["namespace"].dns_label()
    meta["labels"].labels()
    validate_annotations(meta["annotations"])
    return field.causes
