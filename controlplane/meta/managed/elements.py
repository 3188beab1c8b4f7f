"""Items of lists -> path elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from controlplane.meta.managed.sets import key_element, value_element
from controlplane.meta.managed.shapes import Shape


class NoElement(ValueError):
    """Why an item has no element of its own, in upstream's words."""


def element_of(shape: Shape, item: Any) -> str:
    """The element of an item of a granular list. Raises NoElement."""
    if not shape.keys:
        if isinstance(item, str):
            return _string_element(item)
        if isinstance(item, dict):
            raise NoElement("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise NoElement("not supported: associative list with lists as elements")
        if item is None:
            raise NoElement("associative list without keys has an element that's an explicit null")
        return value_element(item)
    if item is None:
        raise NoElement("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise NoElement("associative list with keys may not have non-map elements")
    found = []
    for name in shape.keys:
        value = item.get(name)
        if value is None:
            value = shape.defaults.get(name)
            if value is None and name not in item:
                raise NoElement(
                    f'associative list with keys has an element that omits key field "{name}" '
                    "(and doesn't have default value)"
                )
        found.append(value)
    try:
        return _keyed(shape.keys, tuple(found), tuple(map(type, found)))
    except TypeError:
        return key_element(dict(zip(shape.keys, found, strict=True)))


@lru_cache(maxsize=8192)
def _string_element(text: str) -> str:
    return value_element(text)


@lru_cache(maxsize=8192)
def _keyed(names: tuple[str, ...], values: tuple[Any, ...], kinds: tuple[type, ...]) -> str:
    """`kinds` tells true from 1, which are equal as parts of the cache's key."""
    return key_element(dict(zip(names, values, strict=True)))


def indexed(shape: Shape, items: Sequence[Any]) -> dict[str, list[Any]]:
    """Items by element, in the order of their first appearance.

    Stored objects may hold what has no element, written before the schema asked for one: such an item goes by its text.
    """
    found: dict[str, list[Any]] = {}
    for item in items:
        try:
            element = element_of(shape, item)
        except NoElement:
            element = f"v:{orjson.dumps(item).decode()}"
        found.setdefault(element, []).append(item)
    return found
