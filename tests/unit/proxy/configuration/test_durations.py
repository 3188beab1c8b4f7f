"""Durations read and printed as Go does. The first table is what `time.Duration.String` prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.proxy.configuration.durations import Duration

PRINTED = [
    (0, "0s"),
    (1, "1ns"),
    (1_100, "1.1µs"),
    (2_200_000, "2.2ms"),
    (3_300_000_000, "3.3s"),
    (4 * 60 * 10**9 + 5 * 10**9, "4m5s"),
    (4 * 60 * 10**9 + 5_001_000_000, "4m5.001s"),
    (5 * 3600 * 10**9 + 6 * 60 * 10**9 + 7_001_000_000, "5h6m7.001s"),
    (8 * 60 * 10**9 + 1, "8m0.000000001s"),
    (24 * 3600 * 10**9, "24h0m0s"),
    (-250_000_000, "-250ms"),
]
READ = [
    ("0", 0), ("5s", 5 * 10**9), ("+5s", 5 * 10**9), ("-5s", -5 * 10**9), ("5.0s", 5 * 10**9), ("5.6s", 5_600_000_000),
    ("5.s", 5 * 10**9), (".5s", 500_000_000), ("1.004s", 1_004_000_000), ("100.00100s", 100_001_000_000),
    ("10ns", 10), ("11us", 11_000), ("12µs", 12_000), ("12μs", 12_000), ("13ms", 13_000_000), ("15m", 900 * 10**9),
    ("16h", 57_600 * 10**9), ("3h30m", 12_600 * 10**9), ("10.5s4m", 250_500_000_000), ("-2m3.4s", -123_400_000_000),
    ("1h2m3s4ms5us6ns", 3_723_004_005_006), ("9223372036854775807ns", 2**63 - 1), ("-9223372036854775808ns", -(2**63)),
]  # fmt: skip
REFUSED = [
    ("", 'time: invalid duration ""'),
    ("3", 'time: missing unit in duration "3"'),
    ("-", 'time: invalid duration "-"'),
    ("s", 'time: invalid duration "s"'),
    (".", 'time: invalid duration "."'),
    ("-.s", 'time: invalid duration "-.s"'),
    ("1d", 'time: unknown unit "d" in duration "1d"'),
    ("3000000h", 'time: invalid duration "3000000h"'),
    ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
]


@pytest.mark.parametrize(("nanoseconds", "text"), PRINTED)
def test_printed_as_go_does(nanoseconds: int, text: str) -> None:
    assert str(Duration(nanoseconds)) == text
    assert Duration.parse(text) == Duration(nanoseconds)


@pytest.mark.parametrize(("text", "nanoseconds"), READ)
def test_read_as_go_does(text: str, nanoseconds: int) -> None:
    assert Duration.parse(text).nanoseconds == nanoseconds


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="time: ") as caught:
        Duration.parse(text)
    assert str(caught.value) == message


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_what_is_printed_reads_back(nanoseconds: int) -> None:
    assert Duration.parse(str(Duration(nanoseconds))).nanoseconds == nanoseconds
