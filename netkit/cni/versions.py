"""Versions of the CNI specification. Pure."""

from __future__ import annotations

from typing import Final

SUPPORTED: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those whose results have interfaces and chains; 0.1.0 and 0.2.0 are something else."""

LATEST: Final = SUPPORTED[-1]
CHECK_SINCE: Final = "0.4.0"
"""From here on plug-ins know CHECK, and get the result of ADD with DEL."""

GC_SINCE: Final = "1.1.0"


def at_least(version: str, wanted: str) -> bool:
    """Whether `version` is `wanted` or later. ValueError for what is no version."""
    return _numbers(version) >= _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
