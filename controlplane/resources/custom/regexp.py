"""Go's regular expressions (RE2 syntax) as Python's, for the patterns of schemas. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": "\\x00-\\x7F", "blank": "\\t ", "cntrl": "\\x00-\\x1F\\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\v\\f\\r ", "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_LETTERS = {"L": r"(?u:[^\W\d_])", "Nd": r"(?u:\d)", "N": r"(?u:\d)"}
"""What Python can say of Unicode's classes, outside of brackets."""
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_UNICODE = re.compile(r"\\p(?:\{(\^?\w+)\}|(\w))")
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|\Z)", re.DOTALL)
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z_]\w*)>|([A-Za-z-]*):|([A-Za-z-]+)\)|(.?))")


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern, to be searched for. Raises ValueError for what Go would not take."""
    try:
        return re.compile("".join(_translated(pattern)), re.ASCII)
    except (re.error, RecursionError, OverflowError) as fault:
        raise ValueError(f"error parsing regexp: {fault}: `{pattern}`") from fault


def _translated(pattern: str) -> Iterator[str]:
    at, in_class = 0, False
    multiline = "(?m" in pattern or "(?sm" in pattern
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            piece, at = _escaped(pattern, at, in_class)
            yield piece
            continue
        if in_class:
            piece, at, in_class = _inside_class(pattern, at)
            yield piece
            continue
        if letter == "[":
            in_class = True
            # A bracket that closes at once is a member.
            end = at + 1 + pattern.startswith("^", at + 1)
            yield pattern[at:end] + ("\\]" if pattern.startswith("]", end) else "")
            at = end + pattern.startswith("]", end)
            continue
        if letter == "(" and pattern.startswith("(?", at):
            piece, at = _group(pattern, at)
            yield piece
            continue
        # Without the multi-line flag Go's `$` is the very end; Python's also fits before a last line break.
        yield r"\Z" if letter == "$" and not multiline else letter
        at += 1


def _inside_class(pattern: str, at: int) -> tuple[str, int, bool]:
    match = _POSIX.match(pattern, at)
    if match:
        negated, name = match.groups()
        if name not in _CLASSES or negated:
            raise re.error(f"invalid character class range: `{match.group(0)}`")
        return _CLASSES[name], match.end(), True
    letter = pattern[at]
    if letter in "[&~|":
        # Python warns of what may become set operations.
        return f"\\{letter}", at + 1, True
    return letter, at + 1, letter != "]"


def _escaped(pattern: str, at: int, in_class: bool) -> tuple[str, int]:
    match = _QUOTED.match(pattern, at)
    if match:
        return re.escape(match.group(1)), match.end()
    match = _UNICODE.match(pattern, at)
    if match:
        name = match.group(1) or match.group(2)
        if in_class or name not in _LETTERS:
            return ("" if in_class else r"(?:[^\x00-\x7F]|[A-Za-z])"), match.end()
        return _LETTERS[name], match.end()
    letter = pattern[at + 1 : at + 2]
    if not letter:
        raise re.error("trailing backslash at end of expression")
    if letter == "z":
        return r"\Z", at + 2
    if letter == "C":
        return "(?s:.)", at + 2
    if letter == "Z" or (letter.isdigit() and letter != "0"):
        raise re.error(f"invalid escape sequence: `\\{letter}`")
    braced = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}").match(pattern, at)
    if braced:
        return re.escape(chr(int(braced.group(1), 16))), braced.end()
    return pattern[at : at + 2], at + 2


def _group(pattern: str, at: int) -> tuple[str, int]:
    match = _GROUP.match(pattern, at)
    assert match is not None
    name, flags, setting, other = match.groups()
    if name:
        return f"(?P<{name}>", match.end()
    if other is not None or set((flags or "") + (setting or "")) - set("imsU-"):
        raise re.error(f"invalid or unsupported Perl syntax: `{match.group(0)}`")
    return match.group(0), match.end()
