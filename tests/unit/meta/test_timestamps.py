"""Timestamps and the durations kubectl shows."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta import timestamps

DAY, HOUR, MINUTE = 86400, 3600, 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-2, "<invalid>"), (-1.5, "0s"), (-0.5, "0s"), (0, "0s"), (1.9, "1s"),
        (119, "119s"),
        (2 * MINUTE, "2m"), (2 * MINUTE + 1, "2m1s"), (10 * MINUTE - 1, "9m59s"), (10 * MINUTE + 5, "10m"),
        (3 * HOUR - 1, "179m"), (3 * HOUR, "3h"), (3 * HOUR + 5 * MINUTE, "3h5m"), (8 * HOUR - 1, "7h59m"),
        (8 * HOUR + 59, "8h"), (48 * HOUR - 1, "47h"), (48 * HOUR, "2d"), (3 * DAY + 4 * HOUR, "3d4h"),
        (8 * DAY - 1, "7d23h"), (8 * DAY + HOUR, "8d"), (2 * 365 * DAY - 1, "729d"), (2 * 365 * DAY, "2y"),
        (3 * 365 * DAY + 12 * DAY, "3y12d"), (8 * 365 * DAY + DAY, "8y"),
    ],
)  # fmt: skip
def test_human_duration(seconds, text):
    assert timestamps.human_duration(seconds) == text


def test_age():
    moment = datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC)
    assert timestamps.age({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}}, moment) == "61s"
    assert timestamps.age({}, moment) == "<unknown>"


def test_now_is_utc():
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= timestamps.parse(timestamps.now()) <= datetime.now(UTC)
    micro = timestamps.micro_now()
    assert len(micro) == len("2026-01-02T03:04:05.000006Z")
    assert before <= timestamps.parse(micro) <= datetime.now(UTC)


def test_parse_turns_offsets_into_utc():
    assert timestamps.parse("2026-01-02T03:04:05.25+01:00") == datetime(
        2026, 1, 2, 2, 4, 5, 250000, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soon", 'parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"'),
        ("2026-13-02T03:04:05Z", 'parsing time "2026-13-02T03:04:05Z": month out of range'),
        ("2026-02-30T03:04:05Z", 'parsing time "2026-02-30T03:04:05Z": day out of range'),
        ("2026-01-02T24:04:05Z", 'parsing time "2026-01-02T24:04:05Z": hour out of range'),
        ("2026-01-02T03:04:60Z", 'parsing time "2026-01-02T03:04:60Z": second out of range'),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        timestamps.parse(text)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1)), st.integers(-12, 12))
def test_formats_survive_a_round_trip(naive, offset):
    moment = naive.replace(tzinfo=timezone(timedelta(hours=offset)))
    assert timestamps.parse(timestamps.format_micro_time(moment)) == moment
    assert timestamps.parse(timestamps.format_time(moment)) == moment.replace(microsecond=0)
