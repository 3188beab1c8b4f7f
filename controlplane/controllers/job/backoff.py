"""How long a Job waits after failed pods: 10 s, doubled with each failure since the last success, 10 min at most.

Pure but for `Backoffs`, which remembers the failures of each Job while this controller lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.client.controller import NamespacedName
from controlplane.controllers.job.pods import all_failures, finished_at
from controlplane.errors import Object

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures since the last success, and the time of the last one."""

    count: int = 0
    last: datetime | None = None

    def with_finished(self, succeeded: Sequence[Object], failed: Sequence[Object]) -> Failures:
        """Together with pods that have ended since."""
        ends = sorted(finished_at(pod) for pod in failed)
        if succeeded:
            success = max(finished_at(pod) for pod in succeeded)
            ends = [end for end in ends if end > success]
            return Failures(len(ends), ends[-1] if ends else None)
        if not ends:
            return self
        return Failures(self.count + len(ends), max(ends[-1], self.last or ends[-1]))

    def remaining(self, now: datetime) -> float:
        """Seconds until the next pod may be created; 0 when it may at once."""
        return _remaining(self.count, self.last, now)


def remaining_of_index(pod: Object | None, now: datetime) -> float:
    """The same for one index with a limit of its own; `pod` is its last failed one."""
    return 0.0 if pod is None else _remaining(all_failures(pod) + 1, finished_at(pod), now)


def _remaining(count: int, last: datetime | None, now: datetime) -> float:
    if not count or last is None:
        return 0.0
    wait = min(FIRST_SECONDS * 2.0 ** min(count - 1, 16), LONGEST_SECONDS)
    return max(0.0, wait - (now - last).total_seconds())


class Backoffs:
    """The failures of each Job."""

    def __init__(self) -> None:
        self._known: dict[NamespacedName, Failures] = {}

    def of(self, key: NamespacedName) -> Failures:
        return self._known.get(key, Failures())

    def put(self, key: NamespacedName, failures: Failures) -> None:
        self._known[key] = failures

    def forget(self, key: NamespacedName) -> None:
        self._known.pop(key, None)
