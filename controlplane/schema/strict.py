"""Decoding as a Go API server does it: unknown fields, wrong types, canonical values.

Called by the API server for every body that is to be stored. Two ways through an object: a fast one that only
says "nothing to remark" (about 20 us for a Pod), and, when it does not, a careful one that says what is
wrong and builds the decoded copy. Required fields and values are validation's business, not decoding's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from controlplane.errors import Object
from controlplane.meta import timestamps
from controlplane.meta.quantity import Quantity
from controlplane.schema import definitions
from controlplane.schema.definitions import Form, SchemaType

_Check = Callable[[Any], bool]
_MICRO_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").fullmatch
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z").fullmatch
_MICRO_SHAPE = re.compile(r"[^.]*\.\d{6}\D.*").fullmatch
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?").fullmatch
_ZERO: dict[Form, Any] = {
    Form.STRING: "",
    Form.BYTES: "",
    Form.INT32: 0,
    Form.INT64: 0,
    Form.FLOAT: 0,
    Form.BOOL: False,
    Form.QUANTITY: "0",
    Form.INT_OR_STRING: 0,
}


@dataclass(slots=True)
class Checked:
    """What decoding found.

    `unknown`: paths of fields the type does not have (`spec.ports[0].foo`). `type_errors`: faults in the
    words of Go's decoder, in the order of the document; a Go server reports the first alone. `pruned`: the
    decoded object, without unknown fields and nulls (but for a creationTimestamp's, which Go prints) and
    with canonical quantities and times; the same object if nothing changed.
    """

    pruned: Object
    unknown: list[str] = field(default_factory=list)
    type_errors: list[str] = field(default_factory=list)


def check(obj: Object, api_version: str, kind: str) -> Checked:
    """Decodes `obj` as the named kind, without changing it. Kinds without a type are accepted as they are."""
    schema = definitions.type_for(api_version, kind)
    if schema is None or _fast(schema)(obj):
        return Checked(obj)
    decoder = _Decoder()
    return Checked(decoder.decode(schema, obj), decoder.unknown, decoder.type_errors)


def check_metadata(obj: Object) -> Checked:
    """Decodes nothing but the metadata of an object whose kind has no type here."""
    metadata = obj.get("metadata")
    schema = definitions.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    if metadata is None or _fast(schema)(metadata):
        return Checked(obj)
    decoder = _Decoder()
    decoded = decoder.decode(schema, metadata, "metadata")
    return Checked({**obj, "metadata": decoded}, decoder.unknown, decoder.type_errors)


def check_named(value: Object, name: str, path: str) -> Checked:
    """Decodes a part of an object as the type with that full name. `path` leads to it."""
    schema = definitions.named(name)
    if _fast(schema)(value):
        return Checked(value)
    decoder = _Decoder()
    return Checked(decoder.decode(schema, value, path), decoder.unknown, decoder.type_errors)


def _is_string(value: Any) -> bool:
    return type(value) is str


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_int32(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_int_or_string(value: Any) -> bool:
    return type(value) is str or _is_int32(value)


def _is_bytes(value: Any) -> bool:
    return type(value) is str and _BASE64(value) is not None


def _is_quantity(value: Any) -> bool:
    return type(value) is str and _canonical(value) == value


def _is_time(value: Any) -> bool:
    return type(value) is str and _TIME(value) is not None and _exists(value)


def _is_time_or_null(value: Any) -> bool:
    """Of a creationTimestamp: Go's ObjectMeta prints it as null in every pod template, so that it is in most objects
    that come back and no reason to take them apart (which costs twenty times as much).
    """
    return value is None or _is_time(value)


def _is_micro_time(value: Any) -> bool:
    return type(value) is str and _MICRO_TIME(value) is not None and _exists(value)


def _anything(value: Any) -> bool:
    return True


def _exists(moment: str) -> bool:
    try:
        datetime.fromisoformat(moment)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str | None:
    """A quantity's canonical text, or None for something that is no quantity."""
    try:
        return str(Quantity.parse(text))
    except ValueError:
        return None


_FAST_SCALARS: dict[Form, _Check] = {
    Form.STRING: _is_string,
    Form.INT32: _is_int32,
    Form.INT64: _is_int64,
    Form.FLOAT: _is_number,
    Form.BOOL: _is_bool,
    Form.BYTES: _is_bytes,
    Form.QUANTITY: _is_quantity,
    Form.INT_OR_STRING: _is_int_or_string,
    Form.TIME: _is_time,
    Form.MICRO_TIME: _is_micro_time,
    Form.RAW: _anything,
}
_fast_checks: dict[SchemaType, _Check] = {}


def _fast(schema: SchemaType) -> _Check:
    """The type's fast check, compiled once. It answers False at the first thing that needs a closer look."""
    found = _fast_checks.get(schema)
    if found is None:
        if schema.form is Form.STRUCT:
            found = _fast_struct(schema)
        elif schema.element is not None:
            element = _fast(schema.element)
            found = _fast_list(element) if schema.form is Form.LIST else _fast_map(element)
        else:
            found = _FAST_SCALARS[schema.form]
        _fast_checks[schema] = found
    return found


def _fast_struct(schema: SchemaType) -> _Check:
    # Most fields hold text: to compare the type saves a call for each of them, a third of the time of a pod.
    texts = {name: str for name, found in schema.fields.items() if found.type.form is Form.STRING}
    checks: dict[str, _Check] = {}

    def struct(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, member in value.items():
            if type(member) is texts.get(name):
                continue
            member_check = checks.get(name)
            if member_check is None or not member_check(member):
                return False
        return True

    # Known before its fields are compiled: a type may contain itself.
    _fast_checks[schema] = struct
    checks.update((name, _fast(found.type)) for name, found in schema.fields.items())
    if schema.struct_name == "ObjectMeta":
        checks["creationTimestamp"] = _is_time_or_null
    return struct


def _fast_list(element: _Check) -> _Check:
    def items(value: Any) -> bool:
        if type(value) is not list:
            return False
        return all(map(element, value))

    return items


def _fast_map(element: _Check) -> _Check:
    def members(value: Any) -> bool:
        if type(value) is not dict:
            return False
        return all(map(element, value.values()))

    return members


class _Decoder:
    """The careful way through one object. Collects faults, returns decoded copies."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.type_errors: list[str] = []
        self._struct = ""
        self._stack: list[str] = []

    def decode(self, schema: SchemaType, value: Any, path: str = "") -> Any:
        """The decoded value; a value with a fault comes back as it is."""
        if schema.form is Form.STRUCT:
            return self._decode_struct(schema, value, path)
        if schema.form is Form.LIST and schema.element is not None:
            if not isinstance(value, list):
                return self._mismatch(schema, value)
            return [self._element(schema.element, item, f"{path}[{at}]") for at, item in enumerate(value)]
        if schema.form is Form.MAP and schema.element is not None:
            if not isinstance(value, dict):
                return self._mismatch(schema, value)
            return {
                key: self._element(schema.element, member, f"{path}.{key}") for key, member in value.items()
            }
        if _FAST_SCALARS[schema.form](value):
            return value
        return self._decode_scalar(schema, value)

    def _decode_struct(self, schema: SchemaType, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return self._mismatch(schema, value)
        decoded: Object = {}
        for name, member in value.items():
            found = schema.fields.get(name)
            where = f"{path}.{name}" if path else name
            if found is None:
                self.unknown.append(where)
            elif member is None and name == "creationTimestamp" and schema.struct_name == "ObjectMeta":
                decoded[name] = None
            elif member is not None or found.type.form is Form.RAW:
                self._struct = schema.struct_name
                self._stack.append(name)
                decoded[name] = self.decode(found.type, member, where)
                self._stack.pop()
        return decoded

    def _element(self, schema: SchemaType, value: Any, path: str) -> Any:
        """An item or a map's value: null becomes the zero value, where a struct's null field is left out."""
        if value is not None or schema.form is Form.RAW:
            return self.decode(schema, value, path)
        if schema.form is Form.LIST:
            return []
        return {} if schema.form in (Form.STRUCT, Form.MAP) else _ZERO.get(schema.form)

    def _decode_scalar(self, schema: SchemaType, value: Any) -> Any:
        decode = _SLOW_SCALARS.get(schema.form)
        if decode is None:
            return self._mismatch(schema, value)
        try:
            return decode(value)
        except TypeError:
            return self._mismatch(schema, value)
        except ValueError as fault:
            # These types decode themselves, so Go reports their faults without the field.
            self.type_errors.append(str(fault))
            return value

    def _mismatch(self, schema: SchemaType, value: Any) -> Any:
        where = f"struct field {self._struct}.{'.'.join(self._stack)}" if self._stack else "value"
        self.type_errors.append(
            f"json: cannot unmarshal {_json_kind(value, schema)} into Go {where} of type {schema.go_type}"
        )
        return value


def _json_kind(value: Any, schema: SchemaType) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        # Where a number is wanted, Go shows the one that does not fit.
        return f"number {value}" if schema.form in (Form.INT32, Form.INT64) else "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _decode_bytes(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    text = value.replace("\r", "").replace("\n", "")
    if _BASE64(text):
        return text
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode()
    except binascii.Error as fault:
        raise ValueError(f"illegal base64 data at input byte {_base64_fault(value)}") from fault


def _base64_fault(text: str) -> int:
    """Where Go's decoder gives up: the first foreign character, else the end of the text."""
    for at, character in enumerate(text):
        if not (character.isascii() and (character.isalnum() or character in "+/\r\n")):
            return at
    return len(text) - len(text) % 4


def _decode_quantity(value: Any) -> str:
    if isinstance(value, str):
        return str(Quantity.parse(value.strip()))
    if isinstance(value, bool):
        return str(Quantity.parse("true" if value else "false"))
    if isinstance(value, int | float):
        return str(Quantity.parse(str(value)))
    return str(Quantity.parse("{}" if isinstance(value, dict) else "[]"))


def _decode_int_or_string(value: Any) -> Any:
    kind = _json_kind(value, SchemaType(Form.INT32, "int32"))
    raise ValueError(f"json: cannot unmarshal {kind} into Go value of type int32")


def _decode_time(value: Any) -> str:
    return timestamps.format_time(timestamps.parse(_text(value)))


def _decode_micro_time(value: Any) -> str:
    text = _text(value)
    if not _MICRO_SHAPE(text):
        rest = text[19:] if len(text) > 19 else text
        raise ValueError(f'parsing time "{text}" as "{_MICRO_LAYOUT}": cannot parse "{rest}" as ".000000"')
    return timestamps.format_micro_time(timestamps.parse(text))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    kind = _json_kind(value, SchemaType(Form.STRING, "string"))
    raise ValueError(f"json: cannot unmarshal {kind} into Go value of type string")


_SLOW_SCALARS: dict[Form, Callable[[Any], Any]] = {
    Form.BYTES: _decode_bytes,
    Form.QUANTITY: _decode_quantity,
    Form.INT_OR_STRING: _decode_int_or_string,
    Form.TIME: _decode_time,
    Form.MICRO_TIME: _decode_micro_time,
}
