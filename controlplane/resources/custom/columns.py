"""Printer columns of custom resources: from a definition's `additionalPrinterColumns` to cells. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import UNKNOWN, parse, since
from controlplane.resources.cells import NAME
from controlplane.resources.custom import jsonpath
from controlplane.resources.kind import Column

AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_AGE_DESCRIPTION = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not "
    "guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is "
    "represented in RFC3339 form and is in UTC."
)

Row = Callable[[Object, datetime], Sequence[object]]


def columns_of(definitions: Sequence[Object]) -> tuple[tuple[Column, ...], Row]:
    """The table's columns and its row function; without any definition the age is shown."""
    chosen = list(definitions) or [AGE]
    columns = [NAME]
    readers: list[Callable[[Object, datetime], object]] = []
    for each in chosen:
        columns.append(
            Column(
                each["name"],
                type=each["type"],
                format=each.get("format") or "",
                priority=each.get("priority") or 0,
                description=each.get("description") or _description(each),
            )
        )
        readers.append(_reader(each["type"], each["jsonPath"]))

    def row(obj: Object, now: datetime) -> Sequence[object]:
        return [name(obj), *(reader(obj, now) for reader in readers)]

    return tuple(columns), row


def _description(column: Object) -> str:
    if column["jsonPath"] == AGE["jsonPath"]:
        return _AGE_DESCRIPTION
    return f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"


def _reader(kind: str, path: str) -> Callable[[Object, datetime], object]:
    try:
        compiled = jsonpath.parse(path)
    except ValueError:
        # What was accepted by an older rule shows nothing, as upstream.
        return lambda obj, now: None

    def read(obj: Object, now: datetime) -> object:
        found = compiled.find(obj)
        if not found:
            return None
        if kind == "string":
            return ",".join(_text(value) for value in found)
        return _cell(kind, found[0], now)

    return read


def _cell(kind: str, value: Any, now: datetime) -> object:
    """A value that is not of the column's type shows nothing."""
    if kind == "date":
        return _age(value, now) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if kind == "integer":
        if isinstance(value, float):
            return int(value)
        return value if isinstance(value, int) else None
    return value if isinstance(value, int | float) else None


def _age(text: str, now: datetime) -> str:
    try:
        parse(text)
    except ValueError:
        return "<invalid>"
    return since(text, now) if text else UNKNOWN


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
