"""Sets of fields, in the form FieldsV1 has on the wire, and their algebra.

A set is a mapping from path elements (`f:spec`, `k:{"name":"web"}`, `v:"x"`, `i:0`) to nodes. An empty node is a member
without children; a node with children is a member itself when it holds `.`. So `metadata.managedFields` needs no
decoding to be worked with. Sets are values: nothing here changes its arguments, results share parts with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

FieldSet = dict[str, Any]

SELF = "."
LEAF: FieldSet = {}
"""The node of a member without children; shared, so never to be changed."""

_SHARED_BYTES = 8 * 1024
_RANKS = {"f": 0, "k": 1, "v": 2, "i": 3}


def is_member(node: FieldSet) -> bool:
    return not node or SELF in node


def as_member(node: FieldSet) -> FieldSet:
    """The node with its own element in the set."""
    return node if is_member(node) else {SELF: LEAF, **node}


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    if not one or one is other:
        return other
    if not other:
        return one
    merged = dict(one)
    for element, node in other.items():
        present = merged.get(element)
        merged[element] = node if present is None else _join(present, node)
    return merged


def _join(one: FieldSet, other: FieldSet) -> FieldSet:
    if one is other:
        return one
    if not one:
        return as_member(other)
    if not other:
        return as_member(one)
    return union(one, other)


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in `one` and not in `other`. Taking away a member leaves its children."""
    if not other or not one:
        return one
    left: FieldSet = {}
    changed = False
    for element, node in one.items():
        taken = other.get(element)
        if taken is None or element == SELF:
            left[element] = node
            continue
        rest = _less(node, taken)
        changed = changed or rest is not node
        if rest is not None:
            left[element] = rest
    return left if changed else one


def _less(node: FieldSet, taken: FieldSet) -> FieldSet | None:
    """The node without what is taken; None when nothing is left, the same node when nothing was taken."""
    taken_itself = is_member(taken)
    if not node:
        return None if taken_itself else node
    rest = difference(node, taken)
    if taken_itself and SELF in rest:
        rest = {element: child for element, child in rest.items() if element != SELF}
    elif len(rest) == 1 and SELF in rest:
        return LEAF
    return rest or None


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    shared: FieldSet = {}
    for element, node in one.items():
        if element == SELF:
            continue
        wanted = other.get(element)
        if wanted is None:
            continue
        children = intersection(node, wanted)
        if is_member(node) and is_member(wanted):
            shared[element] = {SELF: LEAF, **children} if children else LEAF
        elif children:
            shared[element] = children
    return shared


def has(fields: FieldSet, path: Iterable[str]) -> bool:
    node: FieldSet | None = fields
    for element in path:
        node = node.get(element) if node else None
        if node is None:
            return False
    return node is not None and is_member(node)


def at(*path: str) -> FieldSet:
    """The set with one member."""
    node: FieldSet = LEAF
    for element in reversed(path):
        node = {element: node}
    return node


def without(fields: FieldSet, path: tuple[str, ...]) -> FieldSet:
    """The set without a path and all below it."""
    first, rest = path[0], path[1:]
    node = fields.get(first)
    if node is None:
        return fields
    left = {element: child for element, child in fields.items() if element != first}
    if rest and node:
        kept = without(node, rest)
        if kept:
            left[first] = LEAF if kept.keys() == {SELF} else kept
    elif rest:
        left[first] = node
    return left


def paths(fields: FieldSet, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All members: of each level first the members, then what is below them."""
    elements = [element for element in _sorted(fields) if element != SELF]
    for element in elements:
        if is_member(fields[element]):
            yield (*before, element)
    for element in elements:
        yield from paths(fields[element], (*before, element))


def ordered(fields: FieldSet, known: FieldSet | None = None) -> FieldSet:
    """The set with its elements in the order of the wire. Parts it shares with `known` have that order already."""
    if not fields or fields is known:
        return fields
    before = known or {}
    return {
        element: ordered(node, before.get(element)) if (node := fields[element]) else node
        for element in _sorted(fields)
    }


def _sorted(fields: FieldSet) -> list[str]:
    if len(fields) < 2:
        return list(fields)
    names = sorted(fields)
    # By text `f:` comes behind nothing but `.`: when the last is a field all are, which is so for most levels.
    return names if names[-1][0] in "f." else sorted(fields, key=_order)


@lru_cache(maxsize=16384)
def _order(element: str) -> tuple[Any, ...]:
    """Fields before keys before values before indexes; keys and values by what they are, not by their text."""
    if element == SELF:
        return (-1,)
    rank, text = _RANKS[element[0]], element[2:]
    if rank == 0:
        return (rank, text)
    value = orjson.loads(text)
    if rank == 1:
        return (rank, [(name, *_scalar(value[name])) for name in sorted(value)])
    return (rank, _scalar(value))


def _scalar(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return 2, value
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, str) else (3, 0)


def decoded(fields: Any) -> FieldSet:
    """A client's FieldsV1 as set, with canonical elements; those of unknown form are left out. Raises ValueError."""
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise ValueError("fieldsV1 must be an object")
    result: FieldSet = {}
    for text, node in fields.items():
        if text == SELF:
            continue
        element = _canonical(text)
        if element is None:
            continue
        children = decoded(node)
        if not node or SELF in node:
            result[element] = as_member(children) if children else LEAF
        elif children:
            result[element] = children
    return result


def _canonical(text: str) -> str | None:
    if len(text) < 2 or text[1] != ":":
        raise ValueError(f"{text}: a path element must begin with a letter and a colon")
    kind, rest = text[0], text[2:]
    if kind == "f":
        return text
    if kind not in _RANKS:
        return None
    value = orjson.loads(rest)
    if kind == "k":
        if (
            not isinstance(value, dict)
            or not value
            or any(isinstance(v, dict | list) for v in value.values())
        ):
            raise ValueError(f"{text}: a key must be an object of plain values")
        return key_element(value)
    if isinstance(value, dict | list) or (kind == "i" and type(value) is not int):
        raise ValueError(f"{text}: not a plain value")
    return f"{kind}:{orjson.dumps(value).decode()}"


def canonical(fields: Any) -> FieldSet:
    """A client's FieldsV1 as set in the order of the wire. Raises ValueError."""
    encoded = orjson.dumps(fields)
    if len(encoded) > _SHARED_BYTES:
        return ordered(decoded(fields))
    return _shared_canonical(encoded)


@lru_cache(maxsize=1024)
def _shared_canonical(encoded: bytes) -> FieldSet:
    return ordered(decoded(orjson.loads(encoded)))


def shared(fields: Any) -> Any:
    """An equal set, the same one for all objects that have it: most objects are owned like others of their kind."""
    encoded = orjson.dumps(fields)
    return _shared(encoded) if len(encoded) <= _SHARED_BYTES else fields


@lru_cache(maxsize=4096)
def _shared(encoded: bytes) -> Any:
    return orjson.loads(encoded)


def key_element(keys: Mapping[str, Any]) -> str:
    """The element of a list's item that is known by its keys."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def value_element(value: Any) -> str:
    """The element of a set's item."""
    return "v:" + orjson.dumps(value).decode()


def printed(path: Iterable[str]) -> str:
    """A path as messages show it: `.spec.containers[name="web"].image`."""
    return "".join(map(printed_element, path))


def printed_element(element: str) -> str:
    kind, text = element[0], element[2:]
    if kind == "f":
        return f".{text}"
    if kind == "k":
        keys = orjson.loads(text)
        inner = ",".join(f"{name}={orjson.dumps(keys[name]).decode()}" for name in sorted(keys))
        return f"[{inner}]"
    return f"[={text}]" if kind == "v" else f"[{text}]"
