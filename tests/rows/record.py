"""Which row noticed each kind of rule when the mutation check was run in full: `noticed.yaml`.

A kind that is known is then checked with one row instead of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

PATH = Path(__file__).with_name("noticed.yaml")


@dataclass(frozen=True, slots=True)
class Noticed:
    """The rule that was taken away, as `Mutant.what`, and the title of the row that failed."""

    rule: str
    row: str


Record = Mapping[str, Noticed]
"""By kind."""


def recorded(variety_name: str, path: Path = PATH) -> Record:
    """What is recorded of a variety; nothing if it never was."""
    found = _read(path).get(variety_name, {})
    return {kind: Noticed(entry["rule"], entry["row"]) for kind, entry in found.items()}


def write(variety_name: str, record: Record, path: Path = PATH) -> None:
    """Record a variety anew; the others stay."""
    varieties = _read(path)
    varieties[variety_name] = {kind: {"rule": item.rule, "row": item.row} for kind, item in record.items()}
    text = yaml.safe_dump(varieties, sort_keys=True, width=10_000, allow_unicode=True)
    path.write_text("# Written by `python -m rows.mutation --record`; README.md says what for.\n" + text)


def _read(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
