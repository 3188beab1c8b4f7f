"""Whether an applied object fits its type. Messages are structured-merge-diff's."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from controlplane.meta.go_values import go_pointer
from controlplane.meta.managed.elements import NoElement, element_of
from controlplane.meta.managed.extract import fields_of
from controlplane.meta.managed.sets import FieldSet, ordered, printed_element
from controlplane.meta.managed.shapes import ANYTHING, Form, Scalar, Shape

_Fault = tuple[str, str]
_REMEMBERED_BYTES = 16 * 1024


class Mistyped(ValueError):
    """The object does not fit; the message names each place."""


def check_type(shape: Shape, obj: Any) -> None:
    """Raises Mistyped."""
    faults: list[_Fault] = []
    _check(shape, obj, "", faults)
    if not faults:
        return
    texts = [f"{path}: {message}" if path else message for path, message in faults]
    raise Mistyped(texts[0] if len(texts) == 1 else "\n".join(["errors:", *(f"  {text}" for text in texts)]))


def stated_fields(shape: Shape, obj: Any) -> FieldSet:
    """The fields that an applied object states, in the order of the wire. Raises Mistyped when it does not fit."""
    encoded = orjson.dumps(obj)
    return (_stated if len(encoded) <= _REMEMBERED_BYTES else _stated.__wrapped__)(shape, encoded)


@lru_cache(maxsize=256)
def _stated(shape: Shape, encoded: bytes) -> FieldSet:
    """Appliers mostly say again what they said before."""
    obj = orjson.loads(encoded)
    check_type(shape, obj)
    return ordered(fields_of(shape, obj))


def _check(shape: Shape, value: Any, path: str, faults: list[_Fault]) -> None:
    match shape.form:
        case Form.SCALAR:
            message = _scalar_fault(shape.scalar, value)
            if message:
                faults.append((path, message))
        case Form.MAP:
            if isinstance(value, dict):
                _check_map(shape, value, path, faults)
            elif value is not None:
                faults.append((path, f"expected map, got {go_pointer(value)}"))
        case Form.LIST:
            if isinstance(value, list):
                _check_list(shape, value, path, faults)
            elif value is not None:
                faults.append((path, f"expected list, got {go_pointer(value)}"))
        case Form.ANY:
            return


def _scalar_fault(kind: Scalar, value: Any) -> str:
    if value is None:
        return ""
    is_bool = isinstance(value, bool)
    is_number = isinstance(value, int | float) and not is_bool
    if kind is Scalar.STRING and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    if kind is Scalar.NUMERIC and not is_number:
        return f"expected numeric (int or float), got {_go_type(value)}"
    if kind is Scalar.BOOLEAN and not is_bool:
        return f"expected boolean, got {go_pointer(value)}"
    if kind is Scalar.ANY and isinstance(value, dict | list):
        return f"expected any scalar, got {go_pointer(value)}"
    return ""


def _check_map(shape: Shape, value: dict[str, Any], path: str, faults: list[_Fault]) -> None:
    fields = shape.fields
    for name, member in value.items():
        found = fields.get(name) or shape.element
        if found is None:
            # Upstream stops at the first of a mapping.
            faults.append((f"{path}.{name}", "field not declared in schema"))
            return
        _check(found, member, f"{path}.{name}", faults)


def _check_list(shape: Shape, items: list[Any], path: str, faults: list[_Fault]) -> None:
    seen: set[str] = set()
    inner = shape.element or ANYTHING
    for at, item in enumerate(items):
        where = f"[{at}]"
        if shape.keys or shape.is_set:
            try:
                element = element_of(shape, item)
            except NoElement as fault:
                faults.append((path, f"element {at}: {fault}"))
                return
            where = printed_element(element)
            if element in seen:
                faults.append((path, f"duplicate entries for key {where}"))
            seen.add(element)
        _check(inner, item, f"{path}{where}", faults)


def _go_syntax(value: Any) -> str:
    """As Go's `%#v` prints a JSON value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        inner = ", ".join(f'"{key}":{_go_syntax(value[key])}' for key in sorted(value))
        return f"map[string]interface {{}}{{{inner}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
    if value is None:
        return "interface {}(nil)"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _go_type(value: Any) -> str:
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, list):
        return "[]interface {}"
    return "bool" if isinstance(value, bool) else "string"
