"""Decoding of bodies whose types the schema package does not know: custom resources, and schemas inside definitions.

Unknown fields are pruned and told, wrong types are refused, and so is what is nested deeper than anything useful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from controlplane.errors import Object
from controlplane.resources.custom.shaping import prune
from controlplane.resources.custom.structural import Schema
from controlplane.schema import strict

MAX_DEPTH = 200
"""Levels of JSON in one object; JSON that is nested deeper than 254 cannot be written."""
_TOO_DEEP = "json: exceeded max depth"
_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


def depth_of(value: Any, limit: int) -> int:
    """How deeply a JSON value is nested, at most `limit`."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        current, depth = pending.pop()
        deepest = max(deepest, depth)
        if deepest >= limit:
            return limit
        members = (
            current.values() if isinstance(current, dict) else current if isinstance(current, list) else ()
        )
        pending += [(member, depth + 1) for member in members]
    return deepest


def decoder(schema: Schema) -> Callable[[Object], strict.Checked]:
    """For one version of a custom kind. Of wrong types only those in metadata are found when decoding."""

    def decode(obj: Object) -> strict.Checked:
        if depth_of(obj, MAX_DEPTH) >= MAX_DEPTH:
            return strict.Checked(obj, [], [_TOO_DEEP])
        unknown: list[str] = []
        checked = strict.check_metadata(prune(obj, schema, unknown))
        checked.unknown = sorted([*unknown, *checked.unknown])
        return checked

    return decode


def decode_definition(obj: Object) -> strict.Checked:
    """A CustomResourceDefinition with the schemas that its Go types hide behind unions."""
    if depth_of(obj, MAX_DEPTH) >= MAX_DEPTH:
        return strict.Checked(obj, [], [_TOO_DEEP])
    checked = strict.check(obj, "apiextensions.k8s.io/v1", "CustomResourceDefinition")
    if checked.type_errors:
        return checked
    spec = checked.pruned.get("spec") or {}
    for at, version in enumerate(spec.get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None:
            _complete(schema, f"spec.versions[{at}].schema.openAPIV3Schema", checked)
    return checked


def _complete(schema: Object, path: str, checked: strict.Checked) -> None:
    """Decode the schemas below `schema`, which is decoded itself, and put them in their places."""
    for name in ("items", "additionalProperties", "additionalItems"):
        value, where = schema.get(name), f"{path}.{name}"
        if isinstance(value, dict):
            schema[name] = _decoded(value, where, checked)
        elif name == "items" and isinstance(value, list):
            schema[name] = [
                _decoded(each, f"{where}[{at}]", checked)
                for at, each in enumerate(value)
                if isinstance(each, dict)
            ]
        elif value is not None and not (isinstance(value, bool) and name != "items"):
            kind = "JSONSchemaPropsOrArray" if name == "items" else "JSONSchemaPropsOrBool"
            checked.type_errors.append(
                f"json: cannot unmarshal into Go struct field JSONSchemaProps.{name} of type v1.{kind}"
            )
    for child, where in _children(schema, path):
        _complete(child, where, checked)


def _decoded(value: Object, path: str, checked: strict.Checked) -> Object:
    inner = strict.check_named(value, _PROPS, path)
    checked.unknown += inner.unknown
    checked.type_errors += inner.type_errors
    return {} if inner.type_errors else inner.pruned


def _children(schema: Object, path: str) -> Iterator[tuple[Object, str]]:
    for name in ("properties", "patternProperties", "definitions"):
        for key, member in (schema.get(name) or {}).items():
            yield member, f"{path}.{name}.{key}"
    for name in ("allOf", "anyOf", "oneOf"):
        for at, member in enumerate(schema.get(name) or ()):
            yield member, f"{path}.{name}[{at}]"
    for name in ("not", "items", "additionalProperties", "additionalItems"):
        if isinstance(schema.get(name), dict):
            yield schema[name], f"{path}.{name}"
