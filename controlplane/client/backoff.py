"""Growing waiting times with jitter, for loops that try again. Pure but for the random number."""

from __future__ import annotations

import random


class Backoff:
    """Waiting times in seconds: `first`, doubled each time up to `limit`, each shortened at random by up to a
    third.

    The jitter keeps many clients of one restarted server from coming back at the same instant.
    """

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def next(self) -> float:
        """How long to wait now."""
        delay, self._next = self._next, min(self._next * 2, self._limit)
        return delay * random.uniform(2 / 3, 1)

    def reset(self) -> None:
        """Something worked: start small again."""
        self._next = self._first
