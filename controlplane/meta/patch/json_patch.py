"""JSON patch (RFC 6902), `application/json-patch+json`.

Called by the registry for every kind. Like the library upstream uses (evanphx/json-patch v4): a negative
index counts from the end, `test` takes a missing value as null, a failing operation leaves nothing changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from controlplane.errors import BadRequest, Invalid, Object, RequestEntityTooLarge
from controlplane.meta.objects import clone

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024
"""Bytes that the copy operations of one patch may add."""
REJECTED = "the server rejected our request due to an error in our request"
_INDEX = re.compile(r"-?(0|[1-9]\d*)").fullmatch
_MISSING = object()


class _Fault(Exception):
    """Why an operation does not apply."""


def apply_json_patch(obj: Object, operations: Any) -> Object:
    """A new object with all operations applied in order.

    Raises BadRequest for something that is no patch, RequestEntityTooLarge for more than `MAX_OPERATIONS`,
    Invalid when an operation does not apply or all copies together are larger than `MAX_COPIED`: with upstream's
    general message, the fault itself is the exception's `__cause__`.
    """
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        kind = "object" if isinstance(operations, dict) else type(operations).__name__
        raise BadRequest(f"json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}"
        )
    holder: dict[str, Any] = {"": clone(obj)}
    copied = 0
    try:
        for operation in operations:
            _operate(holder, operation)
            if operation.get("op") == "copy":
                copied = _counted(copied, holder, operation)
    except _Fault as fault:
        raise Invalid(REJECTED) from fault
    result = holder[""]
    if not isinstance(result, dict):
        raise Invalid(REJECTED) from _Fault("the patched document is not an object")
    return result


def _counted(copied: int, holder: dict[str, Any], operation: Mapping[str, Any]) -> int:
    """Bytes copied so far. Copies of copies double with each operation, so that a short patch could fill memory."""
    container, part = _find(holder, operation["path"])
    value = container[-1 if part == "-" else int(part)] if isinstance(container, list) else container[part]
    copied += len(orjson.dumps(value))
    if copied > MAX_COPIED:
        raise _Fault(
            f"Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit "
            f"{MAX_COPIED}"
        )
    return copied


def _operate(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    name = operation.get("op")
    run = _OPERATIONS.get(name) if isinstance(name, str) else None
    if run is None:
        raise _Fault(f"Unexpected kind: {name if isinstance(name, str) else 'unknown'}")
    run(holder, operation)


def _pointer(operation: Mapping[str, Any], field: str = "path") -> str:
    value = operation.get(field)
    if not isinstance(value, str):
        raise _Fault(f'{operation["op"]} operation does not have a "{field}"')
    return value


def _value(operation: Mapping[str, Any]) -> Any:
    value = operation.get("value", _MISSING)
    if value is _MISSING:
        raise _Fault(f"{operation['op']} operation of {_pointer(operation)} does not have a value")
    return clone(value)


def _find(holder: dict[str, Any], pointer: str) -> tuple[Any, str]:
    """The container a pointer's last part lives in, and that part; the container is None when it is missing.

    The whole document lives in `holder` under the empty key, so the empty pointer needs no case of its own.
    """
    if pointer and not pointer.startswith("/"):
        return None, pointer
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
    container: Any = holder
    for part in parts[:-1]:
        container = _get(container, part)
        if not isinstance(container, dict | list):
            return None, parts[-1]
    return container, parts[-1]


def _get(container: Any, part: str) -> Any:
    """The member, or the missing mark."""
    if isinstance(container, dict):
        return container.get(part, _MISSING)
    if not _INDEX(part):
        return _MISSING
    index = int(part)
    return container[index] if -len(container) <= index < len(container) else _MISSING


def _position(items: list[Any], part: str, end: int) -> int:
    """A list index below `end`, counted from the end when negative."""
    if not _INDEX(part):
        raise _Fault(f'strconv.Atoi: parsing "{part}": invalid syntax')
    index = int(part)
    if not -end <= index < end:
        raise _Fault(f"Unable to access invalid index: {index}: invalid index referenced")
    return index + end if index < 0 else index


def _insert(holder: dict[str, Any], pointer: str, value: Any, name: str) -> None:
    container, part = _find(holder, pointer)
    if container is None:
        raise _Fault(f'{name} operation does not apply: doc is missing path: "{pointer}": missing value')
    if isinstance(container, dict):
        container[part] = value
    elif part == "-":
        container.append(value)
    else:
        container.insert(_position(container, part, len(container) + 1), value)


def _take(holder: dict[str, Any], pointer: str, name: str, which: str = "path") -> Any:
    """Removes and returns what the pointer names."""
    container, part = _find(holder, pointer)
    if container is None:
        raise _Fault(f'{name} operation does not apply: doc is missing {which}: "{pointer}": missing value')
    if isinstance(container, list):
        return container.pop(_position(container, part, len(container)))
    if part not in container:
        raise _Fault(
            f"error in {name} for path: '{pointer}': Unable to remove nonexistent key: {part}: missing value"
        )
    return container.pop(part)


def _add(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    _insert(holder, _pointer(operation), _value(operation), "add")


def _remove(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    pointer = _pointer(operation)
    if not pointer:
        raise _Fault("remove operation does not apply: the whole document cannot be removed")
    _take(holder, pointer, "remove")


def _replace(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    pointer = _pointer(operation)
    container, part = _find(holder, pointer)
    if container is None:
        raise _Fault(f"replace operation does not apply: doc is missing path: {pointer}: missing value")
    if _get(container, part) is _MISSING:
        raise _Fault(f"replace operation does not apply: doc is missing key: {pointer}: missing value")
    if isinstance(container, dict):
        container[part] = _value(operation)
    else:
        container[_position(container, part, len(container))] = _value(operation)


def _move(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    source, target = _pointer(operation, "from"), _pointer(operation)
    if target.startswith(f"{source}/"):
        raise _Fault(f"move operation does not apply: {source} cannot be moved into itself")
    _insert(holder, target, _take(holder, source, "move", "from path"), "move")


def _copy(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    source = _pointer(operation, "from")
    container, part = _find(holder, source)
    value = _MISSING if container is None else _get(container, part)
    if value is _MISSING:
        raise _Fault(f"copy operation does not apply: doc is missing from path: {source}: missing value")
    _insert(holder, _pointer(operation), clone(value), "copy")


def _test(holder: dict[str, Any], operation: Mapping[str, Any]) -> None:
    pointer = _pointer(operation)
    container, part = _find(holder, pointer)
    if container is None:
        raise _Fault(f"test operation does not apply: is missing path: {pointer}: missing value")
    found = _get(container, part)
    if not _equal(None if found is _MISSING else found, operation.get("value")):
        raise _Fault(f"testing value {pointer} failed: test failed")


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


_OPERATIONS: Mapping[str, Callable[[dict[str, Any], Mapping[str, Any]], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
