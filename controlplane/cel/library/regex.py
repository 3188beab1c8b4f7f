"""find and findAll, over RE2 like the built-in `matches`: linear in the text, whatever the pattern."""

from __future__ import annotations

from typing import Any

import re2

from controlplane.cel.functions import Function, member
from controlplane.cel.types import INT, STRING, list_of


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as fault:
        raise ValueError(f"Illegal regex: error parsing regexp: {_text(fault)}: `{pattern}`") from fault


def _text(fault: Exception) -> str:
    first = fault.args[0] if fault.args else fault
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def _find(text: str, pattern: str) -> str:
    match = _compiled(pattern).search(text)
    return str(match.group(0)) if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    compiled = _compiled(pattern)
    found: list[str] = []
    if limit == 0:
        return found
    for match in compiled.finditer(text):
        found.append(str(match.group(0)))
        if len(found) == limit:
            break
    return found


FUNCTIONS: tuple[Function, ...] = (
    member("find", _find, ("string_find_string", (STRING, STRING), STRING)),
    member(
        "findAll",
        _find_all,
        ("string_find_all_string", (STRING, STRING), list_of(STRING)),
        ("string_find_all_string_int", (STRING, STRING, INT), list_of(STRING)),
    ),
)
