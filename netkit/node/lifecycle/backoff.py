"""Kubelet's back-off for containers that keep ending and images that cannot be had. Pure: the clock is an
argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 300.0


@dataclass(slots=True)
class _Entry:
    delay: float
    at: float


class BackOff:
    """Delays per key that double from 10 s to 300 s and are forgotten after twice the longest."""

    def __init__(self, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self._entries: dict[str, _Entry] = {}

    def until(self, key: str, since: float) -> float:
        """When `key` may be tried again, given that it failed at `since`; `since` itself the first time."""
        entry = self._fresh(key, since)
        return since + entry.delay if entry is not None else since

    def delay(self, key: str) -> float:
        """The present delay in seconds, 0 when there is none."""
        entry = self._entries.get(key)
        return entry.delay if entry is not None else 0.0

    def next(self, key: str, since: float, now: float) -> None:
        """A new try is made now after the failure at `since`: the next one has to wait longer."""
        entry = self._fresh(key, since)
        delay = self._first if entry is None else min(entry.delay * 2, self._longest)
        self._entries[key] = _Entry(delay, now)

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)

    def _fresh(self, key: str, moment: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and moment - entry.at > 2 * self._longest:
            del self._entries[key]
            return None
        return entry
