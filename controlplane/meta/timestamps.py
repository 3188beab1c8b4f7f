"""Kubernetes' timestamps and the short durations kubectl shows.

Called wherever objects get or show a time. `Time` has whole seconds, `MicroTime` (Leases, Events) six digits,
both in UTC with `Z`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from controlplane.meta.objects import metadata

_LAYOUT = "2006-01-02T15:04:05Z07:00"
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?P<fraction>\.\d+)?(?P<zone>[Zz]|[+-]\d\d:\d\d)"
).fullmatch
UNKNOWN = "<unknown>"


def format_time(moment: datetime) -> str:
    """`Time`: an aware datetime as `2026-01-02T03:04:05Z`; fractions are cut off."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """`MicroTime`: an aware datetime as `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_now() -> datetime:
    """The present, as what takes a clock has it by default."""
    return datetime.now(UTC)


def now() -> str:
    """The present `Time`."""
    return format_time(utc_now())


def micro_now() -> str:
    """The present `MicroTime`."""
    return format_micro_time(utc_now())


@lru_cache(maxsize=1024)
def parse(text: str) -> datetime:
    """An RFC 3339 time as aware UTC datetime, to the microsecond. Raises ValueError in Go's words."""
    match = _RFC3339(text)
    if match is None:
        raise ValueError(f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{text}" as "2006"')
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise ValueError(f'parsing time "{text}": {_out_of_range(text)} out of range') from fault


def _out_of_range(text: str) -> str:
    """Which part of a well-formed time has no such value, in Go's words."""
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in (5, 8, 11, 14, 17))
    if not 1 <= month <= 12:
        return "month"
    if not 1 <= day <= 31:
        return "day"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else "day"


def human_duration(seconds: float) -> str:
    """A duration as kubectl's AGE shows it: `119s`, `2m`, `9m59s`, `3h5m`, `47h`, `3d4h`, `400d`, `3y12d`.

    More than a second before now gives `<invalid>` (a clock is wrong), less than that `0s`.
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 120:
        return f"{max(total, 0)}s"
    minutes, hours = total // 60, total // 3600
    days = hours // 24
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(timestamp: str | None, moment: datetime) -> str:
    """How long before `moment` (aware) the timestamp lies, for people; `<unknown>` without a timestamp."""
    if not timestamp:
        return UNKNOWN
    return human_duration((moment - parse(timestamp)).total_seconds())


def age(obj: Mapping[str, Any], moment: datetime) -> str:
    """The AGE column: the time from the object's creation to `moment` (aware)."""
    return since(metadata(obj).get("creationTimestamp"), moment)
