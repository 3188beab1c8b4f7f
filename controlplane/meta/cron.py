"""The schedules of CronJobs: parsing and the next time, exactly as robfig/cron v3 does it, which upstream uses. Pure.

Called by validation and by the CronJob controller. The parsers on PyPI accept more (`7` for Sunday, `L`, `#`, `W`) and
treat changes of the clock in other ways, so that a schedule would mean something else here than on a real cluster.
Raises ValueError in robfig's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_NO_NAMES: Mapping[str, int] = {}
_FIELDS = ((0, 59, _NO_NAMES), (0, 23, _NO_NAMES), (1, 31, _NO_NAMES), (1, 12, _MONTHS), (0, 6, _DAYS))
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_YEARS_AHEAD = 5
_LONGEST = (2**63 - 1) / 1e9
_HOUR, _MINUTE = 3600, 60


class Schedule(Protocol):
    def next(self, after: datetime) -> datetime | None:
        """The first time later than `after` (aware), None when there is none within five years."""


def location(name: str) -> tzinfo:
    """The time zone of that name in the zone database. Raises ValueError in Go's words."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {name}") from error


def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """A schedule of five fields, a descriptor such as `@daily`, or `@every 90s`, in `zone` unless it names its own."""
    if not text:
        raise ValueError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        named, _, text = text.partition(" ")
        name = named.partition("=")[2]
        try:
            zone = location(name)
        except ValueError as error:
            raise ValueError(f"provided bad location {name}: {error}") from error
        text = text.strip()
    if text.startswith("@"):
        if text.startswith(_EVERY):
            return Every(_every(text))
        if text not in _DESCRIPTORS:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = _DESCRIPTORS[text]
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    minute, hour, day, month, weekday = (
        _field(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)
    )
    return Times(minute.values, hour.values, day, month.values, weekday, zone)


@dataclass(frozen=True, slots=True)
class _Field:
    """The values of one field; `star` when one of its parts was a plain `*`."""

    values: frozenset[int]
    star: bool


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many whole seconds after the last time."""

    seconds: int

    def next(self, after: datetime) -> datetime | None:
        return after.replace(microsecond=0) + timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Times:
    """Five fields read in a time zone."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: _Field
    months: frozenset[int]
    weekdays: _Field
    zone: tzinfo

    def next(self, after: datetime) -> datetime | None:
        """The search goes by whole months, days, hours and minutes of the zone's clock, as robfig's does: a time that
        the clock skips is left out, one that comes twice counts twice (unless it is passed over with its hour).
        """
        clock = _Clock(int(after.timestamp()) + 1, self.zone)
        last_year = clock.now.year + _YEARS_AHEAD
        while clock.now.year <= last_year:
            if self._month(clock) and self._day(clock) and self._hour(clock) and self._minute(clock):
                if clock.now.second:
                    clock.truncate_to_minute()
                    clock.add(_MINUTE)
                    if clock.now.minute not in self.minutes:
                        continue
                    if not self._holds(clock.now):
                        continue
                return datetime.fromtimestamp(clock.seconds, UTC)
        return None

    def _holds(self, now: datetime) -> bool:
        return now.month in self.months and self._day_matches(now) and now.hour in self.hours

    def _month(self, clock: _Clock) -> bool:
        """Each step is False when a larger unit has changed and must be looked at again."""
        while clock.now.month not in self.months:
            now = clock.now
            year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
            clock.set(year, month, 1)
            if month == 1:
                return False
        return True

    def _day(self, clock: _Clock) -> bool:
        while not self._day_matches(clock.now):
            following = (clock.now.replace(tzinfo=None) + timedelta(days=1)).date()
            clock.set(following.year, following.month, following.day)
            # Where the clock was put on at midnight the day begins at one; where it was put back it is 23 o'clock.
            if clock.now.hour > 12:
                clock.add((24 - clock.now.hour) * _HOUR)
            elif clock.now.hour:
                clock.add(-clock.now.hour * _HOUR)
            if clock.now.day == 1:
                return False
        return True

    def _hour(self, clock: _Clock) -> bool:
        first = True
        while clock.now.hour not in self.hours:
            if first:
                clock.truncate_to_hour()
                first = False
            clock.add(_HOUR)
            if clock.now.hour == 0:
                return False
        return True

    def _minute(self, clock: _Clock) -> bool:
        while clock.now.minute not in self.minutes:
            clock.truncate_to_minute()
            clock.add(_MINUTE)
            if clock.now.minute == 0:
                return False
        return True

    def _day_matches(self, now: datetime) -> bool:
        """With a `*` in one of the two day fields both must hold, else either is enough."""
        by_day, by_weekday = now.day in self.days.values, now.isoweekday() % 7 in self.weekdays.values
        if self.days.star or self.weekdays.star:
            return by_day and by_weekday
        return by_day or by_weekday


class _Clock:
    """A moment in whole seconds, seen on the clock of a zone."""

    def __init__(self, seconds: int, zone: tzinfo) -> None:
        self._zone = zone
        self.add_to(seconds)

    def add_to(self, seconds: int) -> None:
        self.seconds = seconds
        self.now = datetime.fromtimestamp(seconds, self._zone)

    def add(self, seconds: int) -> None:
        self.add_to(self.seconds + seconds)

    def truncate_to_minute(self) -> None:
        self.add(-self.now.second)

    def truncate_to_hour(self) -> None:
        self.add(-self.now.second - self.now.minute * _MINUTE)

    def set(self, year: int, month: int, day: int) -> None:
        """Midnight of that day, found as Go's time.Date does where the clock skips or repeats it."""
        naive = int(datetime(year, month, day, tzinfo=UTC).timestamp())
        self.add_to(naive - self._offset(naive - self._offset(naive)))

    def _offset(self, seconds: int) -> int:
        offset = datetime.fromtimestamp(seconds, self._zone).utcoffset()
        return int(offset.total_seconds()) if offset is not None else 0


def _field(text: str, low: int, high: int, names: Mapping[str, int]) -> _Field:
    values: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        numbers, is_star = _range(part, low, high, names)
        values.update(numbers)
        star = star or is_star
    return _Field(frozenset(values), star)


def _range(text: str, low: int, high: int, names: Mapping[str, int]) -> tuple[range, bool]:
    """`number`, `number-number`, `*` or `?`, each with `/step`."""
    span, *steps = text.split("/")
    first, *rest = span.split("-")
    star = first in ("*", "?")
    if star:
        start, end = low, high
    else:
        start = end = _number_or_name(first, names)
        if len(rest) == 1:
            end = _number_or_name(rest[0], names)
        elif rest:
            raise ValueError(f"too many hyphens: {text}")
    step = 1
    if len(steps) == 1:
        step = _number(steps[0])
        if not rest:
            end = high
        star = star and step <= 1
    elif steps:
        raise ValueError(f"too many slashes: {text}")
    if start < low:
        raise ValueError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise ValueError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star


def _number_or_name(text: str, names: Mapping[str, int]) -> int:
    known = names.get(text.lower())
    return _number(text) if known is None else known


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    number = int(text)
    if number < 0:
        raise ValueError(f"negative number ({number}) not allowed: {text}")
    return number


def _every(text: str) -> int:
    """The whole seconds of `@every 1h30m`, one at least."""
    given = text.removeprefix(_EVERY)
    parts = list(_DURATION.finditer(given))
    if not parts or "".join(part[0] for part in parts) != given.lstrip("+-"):
        raise ValueError(f'failed to parse duration {text}: time: invalid duration "{given}"')
    seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if seconds > _LONGEST:
        raise ValueError(f'failed to parse duration {text}: time: invalid duration "{given}"')
    return max(1, int(-seconds if given.startswith("-") else seconds))
