"""How long to leave a failed daemon pod alone, so that a node that refuses it is not asked over and over. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 15 * 60.0


@dataclass(slots=True)
class _Failure:
    at: float
    delay: float


class FailedPods:
    """Per key (a DaemonSet on a node) the time of the last deletion of a failed pod. Times in seconds of one clock."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], _Failure] = {}

    def wait(self, key: tuple[str, str], moment: float) -> float:
        """Seconds the next deletion has to wait; at 0 it may go on, and counts as done."""
        failure = self._failures.get(key)
        if failure is not None and moment - failure.at < failure.delay:
            return failure.delay - (moment - failure.at)
        if failure is None or moment - failure.at > 2 * _LONGEST_SECONDS:
            self._failures[key] = _Failure(moment, _FIRST_SECONDS)
        else:
            self._failures[key] = _Failure(moment, min(2 * failure.delay, _LONGEST_SECONDS))
        return 0.0

    def forget(self, owner: str) -> None:
        """The DaemonSet of that uid is gone."""
        for key in [key for key in self._failures if key[0] == owner]:
            del self._failures[key]
