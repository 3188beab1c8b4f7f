"""How benchmarks print: the machine's facts, one table, medians of several runs; and a saved result as JSON.

A figure is compared with a floor or a peer taken in the same run, as machines differ and are noisy.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured thing. `floor` is the compared value in the same unit (0 = none), `values` all runs."""

    name: str
    unit: str
    values: tuple[float, ...]
    floor: float = 0.0
    floor_name: str = ""
    aim: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> str:
        return f"{self.median / self.floor:.2f}" if self.floor else "-"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    memory = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "memory": f"{int(memory.split()[1]) // 1024} MB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def timed(what: Callable[[], object]) -> float:
    """Seconds one call takes."""
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def report(title: str, figures: Sequence[Figure]) -> None:
    """Print the table and save it as `results/<title>.json`."""
    facts = machine()
    print(f"{title}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    rows = [("FIGURE", "MEDIAN", "MIN", "MAX", "RUNS", "UNIT", "RATIO", "AGAINST", "AIM")]
    for figure in figures:
        rows.append(
            (
                figure.name,
                f"{figure.median:.4g}",
                f"{min(figure.values):.4g}",
                f"{max(figure.values):.4g}",
                str(len(figure.values)),
                figure.unit,
                figure.ratio,
                f"{figure.floor_name} {figure.floor:.4g}" if figure.floor else "-",
                figure.aim or "-",
            )
        )
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    saved = {"machine": facts, "figures": [asdict(figure) for figure in figures]}
    (RESULTS / f"{title}.json").write_text(json.dumps(saved, indent=1) + "\n")
