"""Prometheus' text format, version 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Row:
    """One value; `at` in milliseconds since the epoch, 0 = when it is read."""

    labels: Mapping[str, str]
    value: int | float
    at: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """One family."""

    name: str
    kind: Kind
    help: str
    rows: Sequence[Row]


def render(metrics: Iterable[Metric]) -> bytes:
    """All families that have a value."""
    lines: list[str] = []
    for metric in metrics:
        if metric.rows:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += [_line(metric.name, row) for row in metric.rows]
    return "".join(f"{line}\n" for line in lines).encode()


def _line(name: str, row: Row) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in row.labels.items())
    place = f"{name}{{{labels}}}" if labels else name
    value = repr(row.value) if isinstance(row.value, float) else str(row.value)
    return f"{place} {value} {row.at}" if row.at else f"{place} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
