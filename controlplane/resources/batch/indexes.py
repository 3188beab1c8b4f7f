"""Sets of completion indexes as text (`0,2-5,7`): reading, writing, and what is wrong with a given text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?\d{1,10}").fullmatch
_MAX_INT32 = 2**31 - 1


def format_indexes(indexes: Iterable[int]) -> str:
    """The shortest text: two neighbours are `1,2`, three and more `1-3`."""
    parts: list[str] = []
    first = last = -2
    for index in [*sorted(indexes), None]:
        if index == last + 1:
            last = index
            continue
        if first >= 0:
            parts.append(_span(first, last))
        if index is not None:
            first = last = index
    return ",".join(parts)


def _span(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def parse_indexes(text: str, completions: int) -> set[int]:
    """The indexes below `completions`; what cannot be read is left out, as the controller must live with it."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        if low.isdecimal() and (not high or high.isdecimal()):
            found.update(range(int(low), min(int(high or low), completions - 1) + 1))
    return found


def count_indexes(text: str, completions: int) -> int:
    """How many indexes the text names. Raises ValueError in upstream's words when it is malformed."""
    total = 0
    last: int | None = None
    for part in text.split(",") if text else ():
        low, high = _interval(part, completions)
        if last is not None and low <= last:
            raise ValueError(f"non-increasing order, previous: {last}, current: {low}")
        total += high - low + 1
        last = high
    return total


def overlap(completed: str, failed: str, completions: int) -> int | None:
    """The first index that both texts name, or None."""
    both = parse_indexes(completed, completions) & parse_indexes(failed, completions)
    return min(both) if both else None


def _interval(text: str, completions: int) -> tuple[int, int]:
    limits = text.split("-")
    if len(limits) > 2:
        raise ValueError(
            f'the fragment "{text}" violates the requirement that an index interval can have at most two '
            "parts separated by '-'"
        )
    low = _index(limits[0])
    if low >= completions:
        raise ValueError(f'too large index: "{limits[0]}"')
    if len(limits) == 1:
        return low, low
    high = _index(limits[1])
    if high >= completions:
        raise ValueError(f'too large index: "{limits[1]}"')
    if low >= high:
        raise ValueError(f"non-increasing order, previous: {low}, current: {high}")
    return low, high


def _index(text: str) -> int:
    if not _NUMBER(text) or int(text) > _MAX_INT32:
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    return int(text)
