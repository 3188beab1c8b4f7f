"""Quantities: exact values and apimachinery's canonical text."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta.quantity import ZERO, Format, Quantity

UNITS = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)}
UNITS |= {letter: Fraction(1000 ** (at + 1)) for at, letter in enumerate("kMGTPE")}
UNITS |= {letter + "i": Fraction(1024 ** (at + 1)) for at, letter in enumerate("KMGTPE")}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"), ("0Ki", "0"), ("-0", "0"), ("1000m", "1"), ("0.5", "500m"), ("1.5", "1500m"), ("5.", "5"),
        (".5", "500m"),
        ("+1", "1"), ("100000k", "100M"), ("1500k", "1500k"), ("1E", "1E"), ("0.5Gi", "512Mi"),
        ("1024Ki", "1Mi"), ("1.5Ki", "1536"), ("1000Ki", "1000Ki"), ("0.5Ki", "512"), ("1e3", "1e3"),
        ("1e4", "10e3"), ("1.1e3", "1100"), ("1E-1", "100e-3"), ("0.1n", "1n"), ("-0.1n", "-1n"),
        ("0.1Ki", "102400m"), ("1e30", "9223372036854775807"), ("-1.5Gi", "-1536Mi"),
    ],
)  # fmt: skip
def test_canonical_text(text, canonical):
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "quantities must match the regular expression"),
        ("a", "quantities must match the regular expression"),
        ("1 Gi", "quantities must match the regular expression"),
        ("1\n", "quantities must match the regular expression"),
        ("1.2.3", "unable to parse numeric part of quantity"),
        (".", "unable to parse numeric part of quantity"),
        ("1mm", "unable to parse quantity's suffix"),
        ("1ki", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
    ],
)
def test_messages(text, message):
    with pytest.raises(ValueError, match=message):
        Quantity.parse(text)


def test_arithmetic():
    one, half = Quantity.parse("1Gi"), Quantity.parse("512Mi")
    assert str(one - half) == "512Mi"
    assert str(one + half) == "1536Mi"
    assert half < one
    assert max(half, one) is one
    assert str(ZERO + half) == "512Mi"
    assert str(-half) == "-512Mi"
    assert Quantity.parse("1000m") == Quantity.parse("1")
    assert len({Quantity.parse("1000m"), Quantity.parse("1")}) == 1
    assert not ZERO
    assert Quantity.of(110) == Quantity.parse("110")
    assert Quantity.of(Decimal("0.25")) == Quantity.parse("250m")
    assert Quantity.parse("250m").value == Decimal("0.25")


def test_rounding_goes_away_from_zero():
    assert (Quantity.parse("1100m").whole(), Quantity.parse("-1100m").whole()) == (2, -2)
    assert (Quantity.parse("1100u").milli(), Quantity.parse("-1100u").milli()) == (2, -2)
    assert (Quantity.parse("250m").milli(), Quantity.parse("2").whole()) == (250, 2)


@given(st.integers(-(2**62), 2**62), st.sampled_from(Format))
def test_canonical_text_keeps_the_amount(nanos, form):
    quantity = Quantity(nanos, form)
    again = Quantity.parse(str(quantity))
    assert again == quantity
    assert str(again) == str(quantity)


@given(st.integers(0, 10**7), st.integers(0, 6), st.sampled_from(sorted(UNITS)))
def test_parsing_is_exact_down_to_nanos(digits, shift, suffix):
    text = f"{Decimal(digits).scaleb(-shift):f}{suffix}"
    exact = Fraction(digits, 10**shift) * UNITS[suffix] * 10**9
    expected = min(-(-exact.numerator // exact.denominator), (2**63 - 1) * 10**9)
    assert Quantity.parse(text).nanos == expected
