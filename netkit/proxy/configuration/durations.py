"""Durations as Go reads and prints them (`1h2m`, `250ms`, `24h0m0s`): what metav1.Duration is in a file.

Pure. Counted in whole nanoseconds, as in Go, so that what is written reads back the same.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\N{MICRO SIGN}s": 10**3,
    "\N{GREEK SMALL LETTER MU}s": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"(\d*\.?\d*)([^\d.]*)")
_MAXIMUM = 2**63


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of time, negative ones included."""

    nanoseconds: int = 0

    @classmethod
    def of(cls, seconds: float) -> Duration:
        """The duration of that many seconds."""
        return cls(round(seconds * 10**9))

    @classmethod
    def parse(cls, text: str) -> Duration:
        """What Go's time.ParseDuration makes of `text`; ValueError in its words."""
        bad = ValueError(f"time: invalid duration {_quoted(text)}")
        rest = text[1:] if text[:1] in ("-", "+") else text
        if rest == "0":
            return cls()
        if not rest:
            raise bad
        total = 0
        while rest:
            part = _PART.match(rest)
            assert part is not None
            number, unit = part.groups()
            if not number.strip("."):
                raise bad
            if not unit:
                raise ValueError(f"time: missing unit in duration {_quoted(text)}")
            if unit not in _UNITS:
                raise ValueError(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
            total += int(Fraction(f"0{number}0" if "." in number else number) * _UNITS[unit])
            rest = rest[part.end() :]
        if total > _MAXIMUM - (text[0] != "-"):
            raise bad
        return cls(-total if text[0] == "-" else total)

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return self.nanoseconds / 10**9

    def __str__(self) -> str:
        """As Go prints it: the largest unit first, fractions only in the last, and `0s` for none."""
        span = abs(self.nanoseconds)
        sign = "-" if self.nanoseconds < 0 else ""
        if span == 0:
            return "0s"
        if span < 10**9:
            unit = next(unit for unit in ("ms", "\N{MICRO SIGN}s", "ns") if span >= _UNITS[unit])
            return f"{sign}{_decimal(span, _UNITS[unit])}{unit}"
        minutes, rest = divmod(span, _UNITS["m"])
        text = f"{_decimal(rest, _UNITS['s'])}s"
        if minutes:
            hours, minutes = divmod(minutes, 60)
            text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
        return sign + text


ZERO = Duration()


def _decimal(value: int, unit: int) -> str:
    """`value` in units, with no more digits than it needs."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
