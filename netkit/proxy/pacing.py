"""When a sync may run: not too often, a few at once, retried later after a failure.

Sans I/O: told the time by its caller, it answers with delays. Used by the family loop.
"""

from __future__ import annotations


class Pacer:
    """A token bucket in front of one repeated action.

    `interval`: seconds in which one token grows back (0: no limit), `burst`: tokens at most and at first.
    """

    def __init__(self, interval: float, burst: int, now: float) -> None:
        self._interval = interval
        self._burst = float(burst)
        self._tokens = self._burst
        self._filled_at = now
        self._wanted_at: float | None = None

    def request(self, at: float) -> None:
        """Ask for a run at time `at` or later; of several requests the earliest counts."""
        self._wanted_at = at if self._wanted_at is None else min(self._wanted_at, at)

    def delay(self, now: float) -> float | None:
        """Seconds to wait until the next run (0: go), None while none is asked for."""
        if self._wanted_at is None:
            return None
        self._fill(now)
        token = 0.0 if self._tokens >= 1 else (1 - self._tokens) * self._interval
        return max(0.0, self._wanted_at - now, token)

    def start(self, now: float) -> None:
        """A run begins: its request is answered and a token is spent."""
        self._fill(now)
        self._wanted_at = None
        self._tokens = max(0.0, self._tokens - 1)

    def _fill(self, now: float) -> None:
        if self._interval:
            grown = (now - self._filled_at) / self._interval
            self._tokens = min(self._burst, self._tokens + grown)
        else:
            self._tokens = self._burst
        self._filled_at = now
