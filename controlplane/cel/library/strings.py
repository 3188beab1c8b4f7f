"""The string functions of cel-go's ext library in version 2: charAt, indexOf, join, split, replace, format, ..."""

from __future__ import annotations

from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from controlplane.cel.errors import runtime_fault
from controlplane.cel.functions import Function, member, plain
from controlplane.cel.types import DYN, INT, STRING, list_of

MAX_TEXT = 16 * 1024 * 1024
"""Characters a function may return at most; what grows beyond is refused."""
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return text


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise ValueError(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(text: str, wanted: str, start: int = 0) -> int:
    if not wanted:
        return start
    if not 0 <= start < len(text):
        if start == 0 or start == len(text):
            return -1
        raise ValueError(f"index out of range: {start}")
    return text.find(wanted, start)


def _last_index_of(text: str, wanted: str, end: int | None = None) -> int:
    if not wanted:
        return len(text) if end is None else end
    if end is None:
        return text.rfind(wanted)
    if not 0 <= end < len(text):
        raise ValueError(f"index out of range: {end}")
    return text.rfind(wanted, 0, min(end + len(wanted), len(text)))


def _join(parts: list[Any], separator: str = "") -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("no such overload")
    return _bounded(separator.join(parts))


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    if len(text) * max(1, len(new)) > MAX_TEXT * 4:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return _bounded(text.replace(old, new, limit))


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        # As Go: into its characters, the rest in the last part.
        parts = list(text)
        return parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], text[limit - 1 :]]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        if not 0 <= start <= len(text):
            raise ValueError(f"index out of range: {start}")
        return text[start:]
    if start > end:
        raise ValueError(f"invalid substring range. start: {start}, end: {end}")
    if start < 0 or start > len(text):
        raise ValueError(f"index out of range: {start}")
    if end > len(text):
        raise ValueError(f"index out of range: {end}")
    return text[start:end]


def _lower(text: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in text)


def _upper(text: str) -> str:
    return "".join(char.upper() if char.isascii() else char for char in text)


def _trim(text: str) -> str:
    return text.strip()


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_ESCAPES.get(char, char) for char in escaped) + '"'


@cache
def _formatter() -> Any:
    """The runtime's own `format`; its extension cannot be loaded beside lists' `indexOf`."""
    variables = {"text": cel.Type.STRING, "arguments": cel.Type.List(cel.Type.DYN)}
    environment = cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])
    return environment.compile("text.format(arguments)")


def _format(text: str, arguments: list[Any]) -> str:
    result = _formatter().eval(data={"text": text, "arguments": arguments})
    if result.type() == cel.Type.ERROR:
        raise ValueError(str(runtime_fault(str(result.plain_value()))))
    return _bounded(str(result.plain_value()))


FUNCTIONS: tuple[Function, ...] = (
    member("charAt", _char_at, ("string_char_at_int", (STRING, INT), STRING)),
    member(
        "indexOf",
        _index_of,
        ("string_index_of_string", (STRING, STRING), INT),
        ("string_index_of_string_int", (STRING, STRING, INT), INT),
    ),
    member(
        "lastIndexOf",
        _last_index_of,
        ("string_last_index_of_string", (STRING, STRING), INT),
        ("string_last_index_of_string_int", (STRING, STRING, INT), INT),
    ),
    member(
        "join",
        _join,
        ("list_join", (list_of(STRING),), STRING),
        ("list_join_string", (list_of(STRING), STRING), STRING),
    ),
    member("lowerAscii", _lower, ("string_lower_ascii", (STRING,), STRING)),
    member("upperAscii", _upper, ("string_upper_ascii", (STRING,), STRING)),
    member("trim", _trim, ("string_trim", (STRING,), STRING)),
    member(
        "replace",
        _replace,
        ("string_replace_string_string", (STRING, STRING, STRING), STRING),
        ("string_replace_string_string_int", (STRING, STRING, STRING, INT), STRING),
    ),
    member(
        "split",
        _split,
        ("string_split_string", (STRING, STRING), list_of(STRING)),
        ("string_split_string_int", (STRING, STRING, INT), list_of(STRING)),
    ),
    member(
        "substring",
        _substring,
        ("string_substring_int", (STRING, INT), STRING),
        ("string_substring_int_int", (STRING, INT, INT), STRING),
    ),
    member("format", _format, ("string_format", (STRING, list_of(DYN)), STRING)),
    plain("strings.quote", _quote, ("strings_quote", (STRING,), STRING)),
)
