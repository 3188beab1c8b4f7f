"""Protobuf written and read independently of the decoder under test: an encoder as Go's generated code has it,
and a reader of the message descriptors that a kubectl program embeds."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from controlplane.errors import Object
from controlplane.schema import definitions, protobuf_table
from controlplane.schema.protobuf_table import MessageField, Shape


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def length(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def envelope(raw: bytes, api_version: str, kind: str) -> bytes:
    """A runtime.Unknown as client-go writes it, with its empty contentEncoding and contentType."""
    named = length(1, api_version.encode()) + length(2, kind.encode())
    return b"k8s\0" + length(1, named) + length(2, raw) + length(3, b"") + length(4, b"")


def encode(obj: Object, api_version: str, kind: str) -> bytes:
    """A whole body. Fields that are no pointers are written even when `obj` lacks them."""
    name = definitions.name_for(api_version, kind)
    assert name is not None
    return envelope(message(obj, name), api_version, kind)


def message(obj: Object, name: str) -> bytes:
    fields = protobuf_table.message(name)
    assert fields is not None, name
    return b"".join(_field(place, field, obj) for place, field in sorted(fields.items()))


def _field(place: int, field: MessageField, obj: Object) -> bytes:
    if not field.json:
        return length(place, message(obj, field.type))
    if field.shape is Shape.LIST:
        return b"".join(_value(place, field.type, item) for item in obj.get(field.json) or ())
    if field.shape is Shape.MAP:
        return b"".join(
            length(place, length(1, key.encode()) + _value(2, field.type, value))
            for key, value in (obj.get(field.json) or {}).items()
        )
    if field.json in obj:
        return _value(place, field.type, obj[field.json])
    # Go leaves out what is nil: pointers and byte slices.
    return b"" if field.shape is Shape.POINTER or field.type == "bytes" else _zero(place, field.type)


def _zero(place: int, type_: str) -> bytes:
    if type_ in ("bool", "int32", "int64"):
        return number(place, 0)
    if type_ == "IntOrString":
        return _value(place, type_, 0)
    if type_ == "Quantity":
        return _value(place, type_, "0")
    return length(place, message({}, type_) if "." in type_ else b"")


def _value(place: int, type_: str, value: Any) -> bytes:
    if type_ in ("bool", "int32", "int64"):
        return number(place, int(value))
    return length(place, _special(type_, value) if "." not in type_ else message(value, type_))


def _special(type_: str, value: Any) -> bytes:
    if type_ == "string":
        return str(value).encode()
    if type_ == "bytes":
        return base64.b64decode(value)
    if type_ == "Quantity":
        return length(1, value.encode())
    if type_ == "IntOrString":
        is_text = isinstance(value, str)
        return (
            number(1, is_text)
            + number(2, 0 if is_text else value)
            + length(3, value.encode() if is_text else b"")
        )
    if type_ in ("Time", "MicroTime"):
        moment = datetime.fromisoformat(value) - datetime(1970, 1, 1, tzinfo=UTC)
        seconds = moment.days * 86400 + moment.seconds
        return number(1, seconds) + number(2, moment.microseconds * 1000)
    if type_ == "RawJSON":
        return length(1, json.dumps(value).encode())
    assert type_ == "Strings", type_
    return b"".join(length(1, item.encode()) for item in value)


class Described(NamedTuple):
    """A field as a descriptor has it. `type` is a scalar's name or the full name of a message."""

    name: str
    type: str
    repeated: bool
    map: bool


_TYPES = {1: "double", 3: "int64", 5: "int32", 8: "bool", 9: "string", 11: "message", 12: "bytes"}


def descriptors(program: bytes) -> Mapping[str, Mapping[int, Described]]:
    """The messages of the FileDescriptorProtos in a Go program, where they lie gzipped."""
    found: dict[str, Mapping[int, Described]] = {}
    place = program.find(b"\x1f\x8b\x08")
    while place >= 0:
        stream = zlib.decompressobj(31)
        try:
            text = stream.decompress(program[place : place + 2**20], 2**20)
        except zlib.error:
            text = b""
        if stream.eof and b"generated.proto" in text[:200]:
            found.update(_file(text))
        place = program.find(b"\x1f\x8b\x08", place + 1)
    return found


def _file(text: bytes) -> Iterator[tuple[str, Mapping[int, Described]]]:
    package = next(data for field, data in _read(text) if field == 2).decode()
    for field, data in _read(text):
        if field == 4:
            yield _described(data, package)


def _described(data: bytes, package: str) -> tuple[str, Mapping[int, Described]]:
    """A DescriptorProto {1: name, 2: fields, 3: nested types, of which Kubernetes only has map entries}."""
    parts = list(_read(data))
    name = next(value for field, value in parts if field == 1).decode()
    entries = dict(_described(value, f"{package}.{name}") for field, value in parts if field == 3)
    fields: dict[int, Described] = {}
    for field, value in parts:
        if field != 2:
            continue
        inner = dict(_read(value))
        type_name = inner.get(6, b"").decode().removeprefix(".")
        type_ = type_name or _TYPES[inner[5]]
        if type_name in entries:
            fields[inner[3]] = Described(inner[1].decode(), entries[type_name][2].type, False, True)
        else:
            fields[inner[3]] = Described(inner[1].decode(), type_, inner[4] == 3, False)
    return f"{package}.{name}", fields


def _read(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field, value) of a message: a number for varints, else bytes."""
    place = 0

    def take() -> int:
        nonlocal place
        found = shift = 0
        while True:
            byte = data[place]
            place += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found

    while place < len(data):
        tag = take()
        if tag & 7 == 0:
            yield tag >> 3, take()
        else:
            assert tag & 7 == 2, tag
            size = take()
            place += size
            yield tag >> 3, data[place - size : place]
