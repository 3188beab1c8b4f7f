"""Go's regular expressions (RE2 syntax) as Python's, for the patterns of schemas. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": "\\x00-\\x7F", "blank": "\\t ", "cntrl": "\\x00-\\x1F\\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\v\\f\\r ", "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_TOKEN = re.compile(r"\\Q(.*?)(?:\\E|\Z)|\\(.)|\(\?P?<([A-Za-z_]\w*)>|\(\?[=!<]|(?<![*+?}])\$", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern, to be searched for. Raises ValueError for what Go would not take."""
    try:
        return re.compile(_translated(pattern), re.ASCII)
    except (re.error, RecursionError, OverflowError) as fault:
        raise ValueError(f"error parsing regexp: {fault}: `{pattern}`") from fault


def _translated(pattern: str) -> str:
    text = _POSIX.sub(_posix, pattern)
    return _TOKEN.sub(_token, text)


def _posix(match: re.Match[str]) -> str:
    negated, name = match.groups()
    members = _CLASSES.get(name)
    if members is None:
        raise re.error(f"invalid character class range: `[:{name}:]`")
    return f"\\x00-\\U0010ffff{members}" if negated else members


def _token(match: re.Match[str]) -> str:
    whole = match.group(0)
    if match.group(1) is not None:
        return re.escape(match.group(1))
    if whole.startswith("\\"):
        letter = match.group(2)
        if letter == "z":
            return r"\Z"
        if letter.isdigit() and letter != "0":
            raise re.error("invalid escape sequence: `\\" + letter + "`")
        if letter == "Z":
            raise re.error("invalid escape sequence: `\\Z`")
        return whole
    if match.group(3):
        return f"(?P<{match.group(3)}>"
    if whole.startswith("(?"):
        raise re.error("invalid or unsupported Perl syntax: `" + whole + "`")
    # Without the multi-line flag Go's `$` is the very end; Python's also fits before a last line break.
    return r"\Z"
