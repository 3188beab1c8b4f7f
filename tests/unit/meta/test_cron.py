"""Cron schedules as robfig/cron v3 reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta import cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("*/15 * * * *", "2012-07-09T14:45:00+00:00", "2012-07-09T15:00:00+00:00"),
        ("*/15 * * * *", "2012-07-09T14:59:59+00:00", "2012-07-09T15:00:00+00:00"),
        ("20-35/15 * * * *", "2012-07-09T15:45:00+00:00", "2012-07-09T16:20:00+00:00"),
        ("5/20 * * * *", "2012-07-09T15:26:00+00:00", "2012-07-09T15:45:00+00:00"),
        ("0 0 29 2 *", "2012-02-29T00:00:00+00:00", "2016-02-29T00:00:00+00:00"),
        ("0 0 * feb Mon", "2012-07-09T23:35:00+00:00", "2013-02-04T00:00:00+00:00"),
        ("@monthly", "2012-12-31T23:59:45+00:00", "2013-01-01T00:00:00+00:00"),
        ("@weekly", "2026-03-02T00:00:00+00:00", "2026-03-08T00:00:00+00:00"),
        ("0 12 ? * MON-FRI", "2024-06-08T00:00:30.5+00:00", "2024-06-10T12:00:00+00:00"),
        # Either day is enough, unless one of them is a star.
        ("0 0 13 * 5", "2026-03-01T00:00:00+00:00", "2026-03-06T00:00:00+00:00"),
        ("0 0 */2 * 5", "2026-03-01T00:00:00+00:00", "2026-03-03T00:00:00+00:00"),
        ("@every 1h30m", "2012-01-01T00:00:00+00:00", "2012-01-01T01:30:00+00:00"),
        ("@every 10ms", "2012-01-01T00:00:00.9+00:00", "2012-01-01T00:00:01+00:00"),
        ("CRON_TZ=Asia/Tokyo 30 4 * * *", "2026-01-01T00:00:00+00:00", "2026-01-01T19:30:00+00:00"),
    ],
)
def test_the_next_time(schedule: str, after: str, following: str) -> None:
    assert cron.parse(schedule).next(at(after)) == at(following)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "following"),
    [
        # New York's clock goes from 2 to 3 on 2012-03-11, and from 2 back to 1 on 2012-11-04.
        ("30 2 11 3 ?", "America/New_York", "2012-03-11T00:00:00-05:00", "2013-03-11T02:30:00-04:00"),
        ("0 * * * ?", "America/New_York", "2012-03-11T01:00:00-05:00", "2012-03-11T03:00:00-04:00"),
        ("0 1 * * ?", "America/New_York", "2012-03-11T01:00:00-05:00", "2012-03-12T01:00:00-04:00"),
        ("0 * * * ?", "America/New_York", "2012-11-04T01:00:00-04:00", "2012-11-04T01:00:00-05:00"),
        ("0 1 * * ?", "America/New_York", "2012-11-04T01:00:00-04:00", "2012-11-04T01:00:00-05:00"),
        ("0 2 * * ?", "America/New_York", "2012-11-04T00:00:00-04:00", "2012-11-04T02:00:00-05:00"),
        # In Sao Paulo the day began at one on 2018-11-04.
        ("0 0 * * ?", "America/Sao_Paulo", "2018-11-03T08:00:00-03:00", "2018-11-05T00:00:00-02:00"),
    ],
)
def test_changes_of_the_clock(schedule: str, zone: str, after: str, following: str) -> None:
    assert cron.parse(schedule, cron.location(zone)).next(at(after)) == at(following)


def test_a_day_that_never_comes() -> None:
    assert cron.parse("0 0 30 2 *").next(at("2012-02-29T00:00:00+00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("@reboot", "unrecognized descriptor: @reboot"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
        (
            "@every 9999999h",
            'failed to parse duration @every 9999999h: time: invalid duration "9999999h"',
        ),
        ("TZ=Mars/Olympus * * * * *", "provided bad location Mars/Olympus: unknown time zone Mars/Olympus"),
    ],
)
def test_what_is_wrong(schedule: str, message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole text is compared
        cron.parse(schedule)
    assert str(refusal.value) == message


_MINUTES = st.one_of(st.just("*"), st.integers(0, 59).map(str), st.integers(1, 30).map(lambda n: f"*/{n}"))
_HOURS = st.one_of(st.just("*"), st.integers(0, 23).map(str), st.just("8-17/3"))
_DAYS = st.one_of(st.just("*"), st.integers(1, 28).map(str))
_WEEKDAYS = st.one_of(st.just("*"), st.sampled_from(["mon", "1-5", "0,6"]))


@given(_MINUTES, _HOURS, _DAYS, _WEEKDAYS, st.integers(0, 10**9))
def test_no_time_is_left_out(minute: str, hour: str, day: str, weekday: str, seconds: int) -> None:
    """Against a search minute by minute in UTC, for as far as an hour."""
    schedule = cron.parse(f"{minute} {hour} {day} * {weekday}")
    after = datetime.fromtimestamp(seconds, UTC)
    following = schedule.next(after)
    assert following is not None
    assert following > after
    assert following.second == 0
    start = after.replace(second=0) + timedelta(minutes=1)
    held = [
        start + timedelta(minutes=n)
        for n in range(60)
        if _holds(start + timedelta(minutes=n), minute, hour, day, weekday)
    ]
    if held:
        assert following == held[0]
    else:
        assert following >= start + timedelta(hours=1)


def _holds(moment: datetime, minute: str, hour: str, day: str, weekday: str) -> bool:
    def fits(text: str, value: int, low: int = 0) -> bool:
        if text.startswith("*"):
            return (value - low) % int(text.partition("/")[2] or 1) == 0
        known = {"8-17/3": {8, 11, 14, 17}, "mon": {1}, "1-5": {1, 2, 3, 4, 5}, "0,6": {0, 6}}
        return value in known.get(text, {int(text)} if text.isdecimal() else set())

    if not (fits(minute, moment.minute) and fits(hour, moment.hour)):
        return False
    by_day, by_weekday = fits(day, moment.day), fits(weekday, moment.isoweekday() % 7)
    return by_day and by_weekday if "*" in (day, weekday) else by_day or by_weekday
