"""An OpenAPI v2 document in the protobuf form of gnostic (`openapi.v2.Document`), which old kubectls ask for. Pure.

Called by `openapi_v2.py`. Writes what such a document of this server has, no more: field numbers are those of gnostic's
`OpenAPIv2.proto`, as the descriptor inside kubectl 1.32 has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from controlplane.errors import Object

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16}
_COUNTS = {
    "maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18,
}  # fmt: skip
_QUERY = {"required": 1, "in": 2, "description": 3, "name": 4, "type": 6}
_PATH = {"required": 1, "in": 2, "description": 3, "name": 4, "type": 5}


def encode(document: Object) -> bytes:
    """The bytes of a whole document."""
    info = document["info"]
    paths = b"".join(_message(2, _named(path, _path(item))) for path, item in document["paths"].items())
    schemas = b"".join(
        _message(1, _named(name, _schema(schema))) for name, schema in document["definitions"].items()
    )
    return b"".join(
        (
            _text(1, document["swagger"]),
            _message(2, _text(1, info["title"]) + _text(2, info["version"])),
            _message(8, paths),
            _message(9, schemas),
        )
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, value: object) -> bytes:
    return _message(field, str(value).encode())


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _texts(field: int, values: Iterable[object]) -> bytes:
    return b"".join(_text(field, value) for value in values)


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _any(value: Any) -> bytes:
    """A value that protobuf has no message for, as YAML (of which JSON is a part)."""
    return _text(2, orjson.dumps(value).decode())


def _extensions(field: int, holder: Object) -> bytes:
    return b"".join(
        _message(field, _named(key, _any(value))) for key, value in holder.items() if key.startswith("x-")
    )


def _path(item: Object) -> bytes:
    operations = b"".join(
        _message(field, _operation(item[method])) for method, field in _METHODS.items() if method in item
    )
    return operations + b"".join(_message(9, _parameter(each)) for each in item.get("parameters", ()))


def _operation(operation: Object) -> bytes:
    responses = b"".join(
        _message(1, _named(code, _message(1, _response(each))))
        for code, each in operation["responses"].items()
    )
    return b"".join(
        (
            _texts(1, operation.get("tags", ())),
            _text(3, operation.get("description", "")),
            _text(5, operation.get("operationId", "")),
            _texts(6, operation.get("produces", ())),
            _texts(7, operation.get("consumes", ())),
            *(_message(8, _parameter(each)) for each in operation.get("parameters", ())),
            _message(9, responses),
            _extensions(13, operation),
        )
    )


def _response(response: Object) -> bytes:
    made = _text(1, response["description"])
    if "schema" in response:
        made += _message(2, _message(1, _schema(response["schema"])))
    return made


def _parameter(parameter: Object) -> bytes:
    """A ParametersItem, which holds a Parameter, which holds one of several."""
    match parameter["in"]:
        case "body":
            body = _text(2, parameter["name"]) + _text(3, "body")
            body += _number(4, parameter["required"]) + _message(5, _schema(parameter["schema"]))
            return _message(1, _message(1, body))
        case "path":
            return _message(1, _message(2, _message(4, _simple(parameter, _PATH))))
        case _:
            return _message(1, _message(2, _message(3, _simple(parameter, _QUERY))))


def _simple(parameter: Object, fields: dict[str, int]) -> bytes:
    return b"".join(
        _number(field, parameter[key]) if key == "required" else _text(field, parameter[key])
        for key, field in fields.items()
        if key in parameter
    )


def _schema(schema: Object) -> bytes:
    return b"".join(_parts(schema))


def _parts(schema: Object) -> Iterator[bytes]:
    for key, value in schema.items():
        if key in _TEXTS:
            yield _text(_TEXTS[key], value)
        elif key in _DOUBLES:
            yield _varint(_DOUBLES[key] << 3 | 1) + struct.pack("<d", value)
        elif key in _FLAGS:
            yield _number(_FLAGS[key], value)
        elif key in _COUNTS:
            yield _number(_COUNTS[key], value)
        elif key == "default":
            yield _message(5, _any(value))
        elif key == "required":
            yield _texts(19, value)
        elif key == "enum":
            yield b"".join(_message(20, _any(each)) for each in value)
        elif key == "additionalProperties":
            inner = _message(1, _schema(value)) if isinstance(value, dict) else _number(2, value)
            yield _message(21, inner)
        elif key == "type":
            yield _message(22, _text(1, value))
        elif key == "items":
            yield _message(23, _message(1, _schema(value)))
        elif key == "properties":
            named = (_message(1, _named(name, _schema(each))) for name, each in value.items())
            yield _message(25, b"".join(named))
        elif key.startswith("x-"):
            yield _message(31, _named(key, _any(value)))
