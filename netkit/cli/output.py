"""How commands print: text for people, `-o json` for programs, one line and a hint for errors.

Used by every command. Colour appears only on a terminal and never with NO_COLOR set.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO


class Format(StrEnum):
    """What `-o` takes."""

    TEXT = "text"
    JSON = "json"


def as_plain(value: object) -> Any:
    """The value as JSON types: dataclasses become mappings, paths and addresses text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def print_json(value: object) -> None:
    print(json.dumps(as_plain(value), indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns padded to their widest cell, in kubectl's manner: three spaces between, none at the end."""
    lines = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headers))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


class Ink:
    """ANSI colours for one stream, or none at all."""

    def __init__(self, stream: TextIO) -> None:
        self.on = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text

    def good(self, text: str) -> str:
        return self._wrap("32", text)

    def bad(self, text: str) -> str:
        return self._wrap("31", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def bold(self, text: str) -> str:
        return self._wrap("1", text)


def print_differing(missing: Sequence[str], unwanted: Sequence[str], ink: Ink) -> None:
    """Entries of one section of rules that should be there, and those that should not."""
    for entry in missing:
        print(ink.bad(f"    - {entry}"))
    for entry in unwanted:
        print(ink.good(f"    + {entry}"))


def print_error(message: str, hint: str = "") -> None:
    ink = Ink(sys.stderr)
    print(f"{ink.bad('netkit:')} {message}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)


def display_path(path: Path) -> str:
    """The path with the home directory written `~`."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
