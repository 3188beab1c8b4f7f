"""Numbers that grow while the server works: as cheap as a dictionary on the way, families of samples when asked.

The Prometheus library is loaded when somebody first asks for /metrics; until then nothing here needs it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """`name` as exposed (counters with `_total`), `help` one sentence with its stability level, label names."""

    name: str
    help: str
    labels: Sequence[str] = ()


class Counter:
    """Counts events by labels."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def collect(self) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        told = self.description
        family = CounterMetricFamily(told.name.removesuffix("_total"), told.help, labels=list(told.labels))
        for labels, value in self.values.items():
            family.add_metric(list(labels), value)
        return family


class Gauge:
    """Values as they are now: set while things happen, or read from `source` when asked."""

    def __init__(
        self, description: Description, source: Callable[[], Mapping[Labels, float]] | None = None
    ) -> None:
        self.description = description
        self.values: dict[Labels, float] = {}
        self._source = source

    def add(self, labels: Labels, amount: float) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def collect(self) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        told = self.description
        family = GaugeMetricFamily(told.name, told.help, labels=list(told.labels))
        for labels, value in (self._source() if self._source else self.values).items():
            family.add_metric(list(labels), value)
        return family


class Histogram:
    """Counts observations in buckets with upper bounds `bounds` (ascending), and their sum."""

    def __init__(self, description: Description, bounds: Sequence[float]) -> None:
        self.description = description
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, value: float) -> None:
        self._of(labels)[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def merge(self, labels: Labels, counts: Sequence[int], total: float) -> None:
        """Add observations that were counted elsewhere, by the same bounds."""
        mine = self._of(labels)
        for index, count in enumerate(counts):
            mine[index] += count
        self._sums[labels] += total

    def _of(self, labels: Labels) -> list[int]:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        return counts

    def collect(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        told = self.description
        family = HistogramMetricFamily(told.name, told.help, labels=list(told.labels))
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            buckets, total = [], 0
            for name, count in zip(names, counts, strict=True):
                total += count
                buckets.append((name, float(total)))
            family.add_metric(list(labels), buckets, self._sums[labels])
        return family


Series = Counter | Gauge | Histogram


def exponential(start: float, factor: float, count: int) -> list[float]:
    """Bucket bounds that grow by a factor."""
    return [start * factor**number for number in range(count)]


def collected(series: Iterable[Series]) -> list[Metric]:
    return [one.collect() for one in series]
