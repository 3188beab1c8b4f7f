"""Parsing JSON bodies, with the fields that occur twice.

Called by the API server for every request body. JSON parsers keep the last of two equal keys in silence;
Kubernetes reports them when field validation asks for it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_SPACED_COLON = re.compile(rb'"\s+:')


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its keys came more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: list[str] = []
        if len(self) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self.repeated.append(key)
                seen.add(key)


def parse(body: bytes) -> tuple[Any, list[str]]:
    """The parsed value and the paths (`spec.ports[0].port`) of repeated fields, of which the last one counts.

    Raises ValueError in the words of Go's decoder.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise ValueError(_explain(body, fault)) from fault
    try:
        printed = orjson.dumps(value)
    except orjson.JSONEncodeError as fault:
        # Parsed, but nested too deeply to be stored again.
        raise ValueError("exceeded max depth") from fault
    # What prints as it came holds every key it came with: the case of clients that print as we do.
    if printed == body.rstrip() or _certainly_unique(body, value):
        return value, []
    found: list[str] = []
    _collect(json.loads(body, object_pairs_hook=_Pairs), "", found)
    return value, found


def _certainly_unique(body: bytes, value: Any) -> bool:
    """Whether the text holds exactly as many keys as the parsed value, which rules repetitions out.

    Counts `":` outside of escapes. Text inside of strings can only make the count larger, and what could
    make it smaller (spaces before the colon, a key that ends with a backslash) is excluded first; so equal
    means equal.
    """
    if b'\\\\":' in body or _SPACED_COLON.search(body):
        return False
    return body.count(b'":') - body.count(b'\\":') == _keys(value)


def _keys(value: Any) -> int:
    if type(value) is dict:
        count = len(value)
        for member in value.values():
            if type(member) is dict or type(member) is list:
                count += _keys(member)
        return count
    if type(value) is list:
        return sum(map(_keys, value))
    return 0


def _collect(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        prefix = f"{path}." if path else ""
        found += [f"{prefix}{key}" for key in value.repeated]
        for key, member in value.items():
            _collect(member, f"{prefix}{key}", found)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            _collect(item, f"{path}[{at}]", found)


def _explain(body: bytes, fault: orjson.JSONDecodeError) -> str:
    """Go's text for broken JSON. Its account of what was expected is not told apart further than this."""
    text = body.decode("utf-8", "replace")
    if not text.strip() or fault.pos >= len(text.rstrip()) or "unexpected end" in fault.msg:
        return "unexpected end of JSON input"
    return f"invalid character '{text[fault.pos]}' looking for beginning of value"
