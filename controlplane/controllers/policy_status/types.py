"""The API's own types as CEL types, made of the schemas of the built-in kinds. Pure."""

from __future__ import annotations

from functools import cache

from controlplane.cel import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    CelType,
    list_of,
    map_of,
    object_of,
)
from controlplane.schema.definitions import Form, SchemaType, type_for

_SCALARS = {
    Form.STRING: STRING,
    Form.INT32: INT,
    Form.INT64: INT,
    Form.FLOAT: DOUBLE,
    Form.BOOL: BOOL,
    Form.BYTES: BYTES,
    Form.TIME: TIMESTAMP,
    Form.MICRO_TIME: TIMESTAMP,
}


@cache
def type_of_kind(api_version: str, kind: str) -> CelType | None:
    """The type of the objects of a kind, None when its schema is not known."""
    schema = type_for(api_version, kind)
    return None if schema is None else _typed(schema, {})


def _typed(schema: SchemaType, known: dict[str, CelType]) -> CelType:
    """Types that contain themselves are dynamic where they do."""
    if schema.form is Form.LIST and schema.element is not None:
        return list_of(_typed(schema.element, known))
    if schema.form is Form.MAP and schema.element is not None:
        return map_of(STRING, _typed(schema.element, known))
    if schema.form is not Form.STRUCT:
        return _SCALARS.get(schema.form, DYN)
    name = schema.go_type
    if name not in known:
        known[name] = DYN
        fields = {
            key: _typed(field.type, known) for key, field in schema.fields.items() if key.isidentifier()
        }
        known[name] = object_of(name, fields)
    return known[name]
