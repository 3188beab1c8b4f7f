"""Field errors in the words of apimachinery's `field.Error` (v0.32), each as one `Cause`.

Called by every validation. A path is plain text (`spec.ports[0].port`); `child`, `index` and `key` extend
it. Nothing here knows a kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from controlplane.errors import Cause


class Literal(str):
    """A value that messages show as it is: what Go prints through a `String` method or as a composite
    literal.
    """

    __slots__ = ()


def child(path: str, *names: str) -> str:
    """`child("spec", "ports")` is `spec.ports`; an empty path is the object itself."""
    return ".".join((path, *names)) if path else ".".join(names)


def index(path: str, position: int) -> str:
    return f"{path}[{position}]"


def key(path: str, name: str) -> str:
    return f"{path}[{name}]"


def quoted(text: str) -> str:
    """Go's `%q` for everything that appears in objects."""
    return json.dumps(text, ensure_ascii=False)


def quoted_list(texts: Iterable[str]) -> str:
    """Go's `%q` of a slice of strings."""
    return f"[{' '.join(map(quoted, texts))}]"


def shown(value: object) -> str:
    """How Go prints a field's value: quoted strings, bare numbers and booleans, literals of maps and
    slices.
    """
    if isinstance(value, Literal):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values()):
        return string_map(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return string_list(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def string_map(value: Mapping[str, str] | None) -> Literal:
    """A Go `map[string]string`; None is a nil map."""
    if value is None:
        return Literal("map[string]string(nil)")
    pairs = ", ".join(f"{quoted(name)}:{quoted(value[name])}" for name in sorted(value))
    return Literal(f"map[string]string{{{pairs}}}")


def string_list(value: Iterable[str] | None) -> Literal:
    """A Go `[]string`; None is a nil slice."""
    if value is None:
        return Literal("[]string(nil)")
    return Literal(f"[]string{{{', '.join(map(quoted, value))}}}")


def _with_detail(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def required(path: str, detail: str = "") -> Cause:
    """Missing, empty or null."""
    return Cause("FieldValueRequired", _with_detail("Required value", detail), path)


def invalid(path: str, value: object, detail: str) -> Cause:
    """Malformed or out of bounds."""
    return Cause("FieldValueInvalid", _with_detail(f"Invalid value: {shown(value)}", detail), path)


def not_supported(path: str, value: object, choices: Iterable[str]) -> Cause:
    """None of `choices`, which the message lists in their order."""
    listed = ", ".join(quoted(choice) for choice in choices)
    detail = f"supported values: {listed}" if listed else ""
    return Cause("FieldValueNotSupported", _with_detail(f"Unsupported value: {shown(value)}", detail), path)


def forbidden(path: str, detail: str) -> Cause:
    """Well formed, but not allowed here."""
    return Cause("FieldValueForbidden", _with_detail("Forbidden", detail), path)


def duplicate(path: str, value: object, detail: str = "") -> Cause:
    """Must be unique and is not."""
    return Cause("FieldValueDuplicate", _with_detail(f"Duplicate value: {shown(value)}", detail), path)


def not_found(path: str, value: object) -> Cause:
    """Refers to something that does not exist."""
    return Cause("FieldValueNotFound", f"Not found: {shown(value)}", path)


def too_long(path: str, maximum: int) -> Cause:
    """More than `maximum` bytes."""
    unit = "byte" if maximum == 1 else "bytes"
    return Cause("FieldValueTooLong", f"Too long: may not be more than {maximum} {unit}", path)


def too_many(path: str, actual: int, maximum: int) -> Cause:
    """`actual` items where `maximum` are allowed."""
    unit = "item" if maximum == 1 else "items"
    return Cause("FieldValueTooMany", f"Too many: {actual}: must have at most {maximum} {unit}", path)
