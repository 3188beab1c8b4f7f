"""Decodes Kubernetes' protobuf bodies (`application/vnd.kubernetes.protobuf`) into plain objects. Pure.

Called by the API server for request bodies; answers are never protobuf. kubectl writes from 1.32 on what its
generators make in this form. The object is what the same Go program would have written as JSON, without its
nulls and without empty structs that are no pointers. That matters because Go writes every field that is no
pointer, set or not: a zero is dropped where the JSON has `omitempty`, and kept where the field is a pointer
(`replicas: 0`) or is always written. Unknown fields are passed over, as upstream does.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from controlplane.errors import Object
from controlplane.meta import timestamps
from controlplane.schema import definitions, protobuf_table
from controlplane.schema.protobuf_extensions import SCHEMA
from controlplane.schema.protobuf_table import MessageField, Shape
from controlplane.schema.protobuf_wire import FIXED64, LENGTH, VARINT, Part, ProtobufError, parts, varint

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
PREFIX = b"k8s\x00"
MAX_FIELDS = 500_000
"""Fields in one body. The smallest takes two bytes and some hundred as an object: this bounds the memory."""
MAX_DEPTH = 100
"""Messages in messages (the deepest in Kubernetes' own kinds is about 15), and values in embedded JSON."""

Reading = Callable[[memoryview], Iterator[Part]]
"""Reads the fields of a special type's message."""

_TOO_DEEP = f"exceeded max depth of {MAX_DEPTH}"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode(body: bytes, api_version: str = "", kind: str = "") -> Object:
    """The object in a body: the prefix `k8s\\0` and a runtime.Unknown around the message.

    `api_version` and `kind` are those of a body that names none. Raises ProtobufError for anything malformed,
    and for kinds there is no message of.
    """
    if not body.startswith(PREFIX):
        raise ProtobufError(
            f"provided data does not appear to be a protobuf message, expected prefix {list(PREFIX)}"
        )
    decoder = _Decoder()
    named, raw = _envelope(memoryview(body)[len(PREFIX) :], decoder.parts)
    api_version, kind = named.get(1) or api_version, named.get(2) or kind
    if not kind:
        raise ProtobufError("Object 'Kind' is missing in the protobuf body")
    name = definitions.name_for(api_version, kind)
    if name is None or protobuf_table.message(name) is None:
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')
    obj: Object = {"apiVersion": api_version, "kind": kind}
    decoder.message(raw, name, obj, 1)
    return obj


def _envelope(data: memoryview, read: Reading) -> tuple[Mapping[int, str], memoryview]:
    """A runtime.Unknown's type (1: apiVersion, 2: kind) and its message."""
    named: dict[int, str] = {}
    raw = memoryview(b"")
    for part in read(data):
        if part.wire != LENGTH:
            raise ProtobufError(f"Unknown: wrong wireType = {part.wire} for field {part.field}")
        if part.field == 1:
            for inner in read(part.data):
                if inner.field in (1, 2):
                    _expect(inner, LENGTH)
                    named[inner.field] = _string(inner)
        elif part.field == 2:
            raw = part.data
        elif part.field == 3 and part.data:
            raise ProtobufError(f"Unknown: the content encoding {_string(part)!r} is not supported")
    return named, raw


class _Decoder:
    """One body's decoding; counts the fields."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def parts(self, data: memoryview) -> Iterator[Part]:
        """The fields of one message, counted."""
        for part in parts(data):
            self._count()
            yield part

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ProtobufError(f"the body has more than {MAX_FIELDS} fields")

    def message(self, data: memoryview, name: str, into: Object, depth: int) -> None:
        """Adds a message's fields to `into`."""
        if depth > MAX_DEPTH:
            raise ProtobufError(_TOO_DEEP)
        fields = protobuf_table.message(name)
        if fields is None:
            raise ProtobufError(f"there is no message {name}")
        shown = name.rpartition(".")[2]
        place = shown
        try:
            for part in self.parts(data):
                field = fields.get(part.field)
                if field is not None:
                    place = f"{shown}.{field.json}"
                    self._field(part, field, into, depth)
                    place = shown
        except _Placed:
            raise
        except ProtobufError as error:
            raise _Placed(f"{place}: {error}") from error

    def _field(self, part: Part, field: MessageField, into: Object, depth: int) -> None:
        if field.shape is Shape.LIST:
            found = into.setdefault(field.json, [])
            if part.wire == LENGTH and field.type in _NUMBERS:
                found.extend(self._packed(part.data, field.type))
            else:
                found.append(self._value(part, field.type, {}, depth))
        elif field.shape is Shape.MAP:
            key, value = self._entry(part, field.type, depth)
            into.setdefault(field.json, {})[key] = value
        elif not field.json:
            _expect(part, LENGTH)
            self.message(part.data, field.type, into, depth + 1)
        else:
            # A message that comes twice is merged, all other values are replaced.
            before = into.get(field.json) if field.type not in _READERS else None
            value = self._value(part, field.type, {} if before is None else before, depth)
            if value is None or (field.shape is Shape.PLAIN and _is_zero(value, field.type)):
                into.pop(field.json, None)
            else:
                into[field.json] = value

    def _value(self, part: Part, type_: str, into: Object, depth: int) -> Any:
        reader = _READERS.get(type_)
        if reader is not None:
            _expect(part, _WIRES.get(type_, LENGTH))
            return reader(part, self.parts)
        _expect(part, LENGTH)
        if type_ in UNIONS:
            return self._union(part, UNIONS[type_], depth)
        self.message(part.data, type_, into, depth + 1)
        return into

    def _union(self, part: Part, union: _Union, depth: int) -> Any:
        """A schema, or what else stands in its place: a list of the items, or a boolean."""
        schema: Object | None = None
        items: list[Any] = []
        allowed = False
        for inner in self.parts(part.data):
            if inner.field == union.schema:
                schema = self._value(inner, SCHEMA, {} if schema is None else schema, depth + 1)
            elif inner.field == union.other and union.items:
                items.append(self._value(inner, union.items, {}, depth + 1))
            elif inner.field == union.other:
                _expect(inner, VARINT)
                allowed = inner.number != 0
        if schema is not None and not items:
            return schema
        if union.items:
            return items or None
        return allowed

    def _entry(self, part: Part, type_: str, depth: int) -> tuple[str, Any]:
        """A map's entry is a message of the key (1) and the value (2); what is zero may be left out."""
        _expect(part, LENGTH)
        key, value = "", _READERS[type_](_EMPTY, self.parts) if type_ in _READERS else {}
        for inner in self.parts(part.data):
            if inner.field == 1:
                _expect(inner, LENGTH)
                key = _string(inner)
            elif inner.field == 2:
                value = self._value(inner, type_, {}, depth)
        return key, value

    def _packed(self, data: memoryview, type_: str) -> Iterator[Any]:
        """Numbers without tags between them; Go does not write them so, but reads them."""
        place = 0
        while place < len(data):
            self._count()
            number, place = varint(data, place)
            yield _READERS[type_](Part(0, VARINT, number, _EMPTY.data), self.parts)


class _Placed(ProtobufError):
    """An error that already says in which message and field it is."""


_EMPTY = Part(0, LENGTH, 0, memoryview(b""))


def _expect(part: Part, wire: int) -> None:
    if part.wire != wire:
        raise ProtobufError(f"wrong wireType = {part.wire}")


def _is_zero(value: Any, type_: str) -> bool:
    """Whether Go's `omitempty` leaves it out, or it is a struct with nothing in it."""
    return type_ != "RawJSON" and value in ("", 0, {}, [])


def _string(part: Part) -> str:
    try:
        return str(part.data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError("invalid UTF-8") from error


def _bytes(part: Part) -> str:
    return base64.b64encode(part.data).decode()


def _bool(part: Part) -> bool:
    return part.number != 0


def _signed(number: int, bits: int) -> int:
    number &= 2**bits - 1
    return number - 2**bits if number >> bits - 1 else number


def _int32(part: Part) -> int:
    return _signed(part.number, 32)


def _int64(part: Part) -> int:
    return _signed(part.number, 64)


def _double(part: Part) -> int | float:
    """Whole numbers are written without a fraction, as Go writes them in JSON."""
    (value,) = struct.unpack("<d", part.data)
    if not math.isfinite(value):
        raise ProtobufError(f"unsupported value: {value}")
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)


def _quantity(part: Part, read: Reading) -> str:
    """Quantity{1: string}. Whether it is one is said by the schema's check, as for JSON."""
    text = ""
    for inner in read(part.data):
        if inner.field == 1:
            _expect(inner, LENGTH)
            text = _string(inner)
    return text or "0"


def _int_or_string(part: Part, read: Reading) -> int | str:
    """IntOrString{1: type, 2: int, 3: string}."""
    kind, number, text = 0, 0, ""
    for inner in read(part.data):
        if inner.field == 1:
            _expect(inner, VARINT)
            kind = inner.number
        elif inner.field == 2:
            _expect(inner, VARINT)
            number = _int32(inner)
        elif inner.field == 3:
            _expect(inner, LENGTH)
            text = _string(inner)
    if kind not in (0, 1):
        raise ProtobufError(f"impossible IntOrString.Type {kind}")
    return text if kind else number


def _moment(part: Part, read: Reading, *, micro: bool) -> str | None:
    """Timestamp{1: seconds, 2: nanoseconds}; nothing or zero is a null. Time is whole seconds."""
    seconds = nanos = 0
    for inner in read(part.data):
        if inner.field == 1:
            _expect(inner, VARINT)
            seconds = _int64(inner)
        elif inner.field == 2:
            _expect(inner, VARINT)
            nanos = _int32(inner)
    if not seconds and not nanos:
        return None
    micros = int(nanos / 1000) if micro else 0  # towards zero, as Go truncates
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=micros)
    except OverflowError as error:
        raise ProtobufError("the time is outside of the years 1 to 9999") from error
    return timestamps.format_micro_time(moment) if micro else timestamps.format_time(moment)


def _time(part: Part, read: Reading) -> str | None:
    return _moment(part, read, micro=False)


def _micro_time(part: Part, read: Reading) -> str | None:
    return _moment(part, read, micro=True)


def _raw_json(part: Part, read: Reading) -> Any:
    """RawExtension and FieldsV1 {1: JSON text}."""
    text = memoryview(b"")
    for inner in read(part.data):
        if inner.field == 1:
            _expect(inner, LENGTH)
            text = inner.data
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"json parse error: {error}") from error
    _check_depth(value, 1)
    return value


def _check_depth(value: Any, depth: int) -> None:
    """Raises ProtobufError for JSON that is too deep; what is too deep cannot be written again."""
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise ProtobufError(_TOO_DEEP)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, depth + 1)


def _strings(part: Part, read: Reading) -> list[str]:
    """Verbs and ExtraValue {1: items}."""
    found = []
    for inner in read(part.data):
        if inner.field == 1:
            _expect(inner, LENGTH)
            found.append(_string(inner))
    return found


_READERS: Mapping[str, Callable[[Part, Reading], Any]] = {
    "string": lambda part, read: _string(part),
    "bytes": lambda part, read: _bytes(part),
    "bool": lambda part, read: _bool(part),
    "int32": lambda part, read: _int32(part),
    "int64": lambda part, read: _int64(part),
    "double": lambda part, read: _double(part),
    "Quantity": _quantity,
    "IntOrString": _int_or_string,
    "Time": _time,
    "MicroTime": _micro_time,
    "RawJSON": _raw_json,
    "Strings": _strings,
}
_NUMBERS = frozenset({"bool", "int32", "int64"})
_WIRES = {**dict.fromkeys(_NUMBERS, VARINT), "double": FIXED64}


class _Union(NamedTuple):
    """The numbers of the two fields, and the type of the other one's items (empty: it is a boolean)."""

    schema: int
    other: int
    items: str


UNIONS: Mapping[str, _Union] = {
    "SchemaOrArray": _Union(1, 2, SCHEMA),
    "SchemaOrBool": _Union(2, 1, ""),
    "SchemaOrStrings": _Union(1, 2, "string"),
}
"""Types that hold a schema or something else in its place."""
