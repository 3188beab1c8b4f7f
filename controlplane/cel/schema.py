"""OpenAPI schemas as CEL types, and JSON values as values of such types. Pure; used where `self` has a schema.

Property names that are no CEL identifiers are escaped as upstream does (`a-b` is `a__dash__b`, `in` is `__in__`);
those that cannot be escaped cannot be accessed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from controlplane.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    CelType,
    list_of,
    map_of,
    object_of,
)
from controlplane.meta.timestamps import parse

Schema = Mapping[str, Any]

_KEYWORDS = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_ESCAPED = re.compile(r"__|[.\-/]")
_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_METADATA = object_of("ObjectMeta", {"name": STRING, "generateName": STRING})
_EMBEDDED = {"apiVersion": STRING, "kind": STRING, "metadata": _METADATA}


def escape(name: str) -> str | None:
    """The property as it is named in expressions; None when it cannot be."""
    if name in _KEYWORDS:
        return f"__{name}__"
    escaped = _ESCAPED.sub(lambda match: _ESCAPES[match[0]], name)
    return escaped if _IDENTIFIER.match(escaped) else None


def declared(schema: Schema, name: str = "object", *, root: bool = False) -> CelType | None:
    """The type of what the schema describes; None when expressions cannot see it (no type, no preserved fields).

    `root`: it is a whole resource, whose apiVersion, kind and metadata.name are there without being listed.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return DYN
    preserves = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    kind = schema.get("type", "")
    if kind == "array":
        inner = declared(schema.get("items") or {}, f"{name}.item")
        return None if inner is None else list_of(inner)
    if kind == "object":
        return _object(schema, name, root or bool(schema.get("x-kubernetes-embedded-resource")))
    if kind == "string":
        return {
            "byte": BYTES,
            "duration": DURATION,
            "date": TIMESTAMP,
            "date-time": TIMESTAMP,
        }.get(schema.get("format", ""), STRING)
    scalars = {"boolean": BOOL, "number": DOUBLE, "integer": INT}
    return scalars.get(kind, DYN if preserves else None)


def _object(schema: Schema, name: str, is_resource: bool) -> CelType | None:
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        inner = declared(extra, f"{name}.value")
        return None if inner is None else map_of(STRING, inner)
    if extra is True:
        return map_of(STRING, DYN)
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    if not properties and schema.get("x-kubernetes-preserve-unknown-fields"):
        return DYN
    fields: dict[str, CelType] = dict(_EMBEDDED) if is_resource else {}
    for key, inner_schema in properties.items():
        escaped = escape(key)
        if escaped is None or (is_resource and key in _EMBEDDED):
            continue
        kind = declared(inner_schema, f"{name}.{escaped}")
        if kind is not None:
            fields[escaped] = kind
    return object_of(name, fields)


def to_cel(value: Any, kind: CelType) -> Any:
    """A JSON value in the form expressions of that type expect: names escaped, numbers and texts of their type.

    What does not fit is left as it is; schema validation says so, not CEL.
    """
    if value is None or kind == DYN:
        return value
    if kind.fields is not None and isinstance(value, dict):
        known = dict(kind.fields)
        result = {}
        for key, item in value.items():
            escaped = escape(key)
            if escaped is not None and escaped in known:
                result[escaped] = to_cel(item, known[escaped])
        return result
    if kind.name == "list" and isinstance(value, list):
        inner = kind.params[0]
        return value if _is_plain(inner) else [to_cel(item, inner) for item in value]
    if kind.name == "map" and isinstance(value, dict):
        inner = kind.params[1]
        return value if _is_plain(inner) else {key: to_cel(item, inner) for key, item in value.items()}
    return _scalar(value, kind)


def _is_plain(kind: CelType) -> bool:
    return kind in (DYN, STRING, BOOL, INT)


def _scalar(value: Any, kind: CelType) -> Any:
    if kind == DOUBLE and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == INT and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and kind in (BYTES, TIMESTAMP, DURATION):
        try:
            return _parsed(value, kind)
        except (ValueError, binascii.Error, OverflowError):
            return value
    return value


def _parsed(text: str, kind: CelType) -> Any:
    if kind == BYTES:
        return base64.b64decode(text, validate=True)
    # The runtime takes times as protobuf messages only; imported here because it is heavy and rare.
    from google.protobuf import duration_pb2, timestamp_pb2

    if kind == TIMESTAMP:
        timestamp = timestamp_pb2.Timestamp()
        timestamp.FromDatetime(parse(f"{text}T00:00:00Z" if len(text) == 10 else text))
        return timestamp
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    pieces = _DURATION.findall(rest)
    if "".join(number + unit for number, unit in pieces) != rest or not rest:
        raise ValueError(f'invalid duration "{text}"')
    duration = duration_pb2.Duration()
    duration.FromTimedelta(
        timedelta(seconds=sign * sum(float(number) * _UNITS[unit] for number, unit in pieces))
    )
    return duration
