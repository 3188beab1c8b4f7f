"""The latest events of one watch cache, which owns it: where watches and continued lists go back to.

Bounded by number and by age. Each event holds two states of an object, so heartbeats would otherwise pile up for
hours in a cluster that does nothing.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

from controlplane.store.events import CacheEvent

HISTORY_EVENTS = 4096
"""Events that are remembered at least while they are young."""
HISTORY_SECONDS = 300.0
"""How long events count as young: as long as the store keeps its own history."""
OLD_EVENTS = 256
"""Events that are remembered at least, however old."""


class History:
    """Events in the order of their revisions. `floor`: every event after this revision is here."""

    def __init__(self, events: int = HISTORY_EVENTS, clock: Callable[[], float] = time.monotonic) -> None:
        self.floor = 0
        self._limit = events
        self._clock = clock
        self._events: list[CacheEvent] = []
        self._aged = -HISTORY_SECONDS
        self._young_from = 0

    def begin(self, revision: int) -> None:
        """Forget everything; the next events come after `revision`."""
        self.floor = revision
        self._events.clear()
        self._young_from = 0

    def add(self, event: CacheEvent) -> None:
        self._events.append(event)

    def after(self, revision: int) -> Sequence[CacheEvent]:
        """The events after that revision, which is not below the floor."""
        return self._events[bisect_right(self._events, revision, key=lambda event: event.revision) :]

    def trim(self) -> None:
        """Keep within the bounds. To be called after events were added; costs little."""
        if len(self._events) > 2 * self._limit:
            self._forget(len(self._events) - self._limit)
        now = self._clock()
        if now - self._aged >= HISTORY_SECONDS:
            # What was there a whole period ago is old by now.
            self._forget(min(self._young_from, len(self._events) - OLD_EVENTS))
            self._aged, self._young_from = now, len(self._events)

    def _forget(self, count: int) -> None:
        if count > 0:
            self.floor = self._events[count - 1].revision
            del self._events[:count]
            self._young_from = max(0, self._young_from - count)
