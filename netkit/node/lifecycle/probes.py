"""What a probe's results mean: thresholds, first results, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ProbeKind(StrEnum):
    """The three probes of a container, by the names of its fields."""

    STARTUP = "startupProbe"
    LIVENESS = "livenessProbe"
    READINESS = "readinessProbe"

    @property
    def word(self) -> str:
        """As events say it: `Readiness probe failed: ...`."""
        return self.value.removesuffix("Probe").capitalize()


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds and counts of one probe, with Kubernetes' defaults."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    grace: float | None


def timing(probe: Mapping[str, Any]) -> Timing:
    """The timing a probe's spec asks for."""
    grace = probe.get("terminationGracePeriodSeconds")
    return Timing(
        initial_delay=float(probe.get("initialDelaySeconds") or 0),
        period=float(probe.get("periodSeconds") or 10),
        timeout=float(probe.get("timeoutSeconds") or 1),
        success_threshold=int(probe.get("successThreshold") or 1),
        failure_threshold=int(probe.get("failureThreshold") or 3),
        grace=None if grace is None else float(grace),
    )


@dataclass(slots=True)
class ProbeState:
    """Counts results in a row. `result` is what the outside sees: None until a threshold is reached."""

    timing: Timing
    result: bool | None = None
    _last: bool | None = None
    _in_a_row: int = 0

    def take(self, success: bool) -> bool:
        """Note one result; True when `result` changed."""
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        threshold = self.timing.success_threshold if success else self.timing.failure_threshold
        if self._in_a_row < threshold or self.result == success:
            return False
        self.result = success
        return True
