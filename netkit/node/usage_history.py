"""Samples of what containers and the node use, and the rates they give. Pure.

A rate is taken between the newest sample and one some seconds older; of what began since then it is taken from its
beginning. Fed by `usage_meter`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from netkit.node.runtime.spec import ContainerUsage

SHORTEST_WINDOW: Final = 5.0
_YOUNGEST: Final = 2.0
_KEPT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """CPU time in nanoseconds and memory in bytes of the node's own processes."""

    cpu_nanos: int
    memory: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment (seconds since the epoch): running containers by id, and the node's own parts by name."""

    at: float
    containers: Mapping[str, ContainerUsage]
    parts: Mapping[str, Part]

    @property
    def memory(self) -> int:
        containers = sum(each.memory for each in self.containers.values())
        return containers + sum(part.memory for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class Rate:
    """Billionths of a core, averaged over `window` seconds."""

    nano_cores: int
    window: float


class History:
    """The samples of the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[Sample, int]] = deque()
        self._past_nanos = 0

    @property
    def newest(self) -> Sample | None:
        return self._samples[-1][0] if self._samples else None

    @property
    def node_cpu_nanos(self) -> int:
        """CPU time of all that ran on the node, also of what has ended."""
        return self._samples[-1][1] if self._samples else 0

    def add(self, sample: Sample) -> None:
        """A newer sample than all before."""
        before = self.newest
        if before is not None:
            gone = before.containers.keys() - sample.containers.keys()
            self._past_nanos += sum(before.containers[name].cpu_nanos for name in gone)
            for name, part in before.parts.items():
                now = sample.parts.get(name)
                if now is None or now.cpu_nanos < part.cpu_nanos:  # it was started again
                    self._past_nanos += part.cpu_nanos
        running = sum(each.cpu_nanos for each in sample.containers.values())
        running += sum(part.cpu_nanos for part in sample.parts.values())
        self._samples.append((sample, self._past_nanos + running))
        while len(self._samples) > 2 and sample.at - self._samples[0][0].at > _KEPT_SECONDS:
            self._samples.popleft()

    def rate(self, container: str, started_at: float) -> Rate | None:
        """Of a container of the newest sample; None while it is too young."""
        newest = self.newest
        if newest is None or container not in newest.containers:
            return None
        used = newest.containers[container].cpu_nanos
        for sample, _ in reversed(self._samples):
            if newest.at - sample.at >= SHORTEST_WINDOW and container in sample.containers:
                return _rate(used - sample.containers[container].cpu_nanos, newest.at - sample.at)
        age = newest.at - started_at
        return _rate(used, age) if age >= _YOUNGEST else None

    def node_rate(self) -> Rate | None:
        """Of the whole node; None at its beginning."""
        if not self._samples:
            return None
        newest, used = self._samples[-1]
        for sample, before in reversed(self._samples):
            if newest.at - sample.at >= SHORTEST_WINDOW:
                return _rate(used - before, newest.at - sample.at)
        return None


def _rate(nanos: int, seconds: float) -> Rate:
    return Rate(max(round(nanos / seconds), 0), seconds)
