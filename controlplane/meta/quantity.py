"""Resource quantities (`100m`, `1.5Gi`, `12e6`), exact, with apimachinery's canonical text.

Called by validation, the scheduler and node capacity. The smallest unit is a nano (`n`); finer values are
rounded away from zero, values beyond 2^63-1 are capped, both as upstream does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import total_ordering

_NANO = 10**9
_CAP = (2**63 - 1) * _NANO
_PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_SHAPE = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)").fullmatch
_LOOSE = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)").fullmatch
_EXPONENT = re.compile(r"[eE]([+-]?\d+)").fullmatch
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_SUFFIXES = {suffix: 10**power for power, suffix in _DECIMAL.items() if power >= 0}
_SMALL = {"n": 9, "u": 6, "m": 3}


class Format(StrEnum):
    """Which family of suffixes a quantity is written in."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount in `nanos` (10^-9) and the `format` it is written in. Equal if the amounts are."""

    nanos: int
    format: Format = Format.DECIMAL_SI

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Raises ValueError in upstream's words."""
        match = _SHAPE(text)
        if match is None or not (match[2] or match[3]):
            if not _LOOSE(text):
                raise ValueError(f"quantities must match the regular expression '{_PATTERN}'")
            raise ValueError("unable to parse numeric part of quantity")
        sign, whole, fraction, suffix = match[1], match[2], match[3] or "", match[4]
        multiplier, divisor, form = _scale(suffix)
        number = int(whole + fraction or "0") * multiplier * _NANO
        divisor *= 10 ** len(fraction)
        nanos = min(-(-number // divisor), _CAP)
        return cls(-nanos if sign == "-" else nanos, form)

    @classmethod
    def of(cls, amount: int | str | Decimal, form: Format = Format.DECIMAL_SI) -> Quantity:
        """A quantity from a number of whole units (cores, bytes, pods)."""
        return cls(int(Decimal(amount).scaleb(9)) if not isinstance(amount, int) else amount * _NANO, form)

    @property
    def value(self) -> Decimal:
        """The exact amount in whole units."""
        sign, digits = (1 if self.nanos < 0 else 0), tuple(map(int, str(abs(self.nanos))))
        return Decimal((sign, digits, -9))

    def whole(self) -> int:
        """The amount in whole units, rounded away from zero (upstream's `Value()`)."""
        return _away_from_zero(self.nanos, _NANO)

    def milli(self) -> int:
        """The amount in thousandths, rounded away from zero (upstream's `MilliValue()`)."""
        return _away_from_zero(self.nanos, _NANO // 1000)

    def __str__(self) -> str:
        """The canonical text: `1000m` is `1`, `0.5Gi` is `512Mi`, `1024Ki` is `1Mi`."""
        if not self.nanos:
            return "0"
        if self.format is Format.BINARY_SI and not self.nanos % _NANO and abs(self.nanos) >= 1024 * _NANO:
            return self._binary()
        amount, exponent = self.nanos, -9
        # E is the largest suffix there is: beyond it the number grows instead.
        limit = 10**9 if self.format is Format.DECIMAL_EXPONENT else 18
        while amount % 1000 == 0 and exponent < limit:
            amount //= 1000
            exponent += 3
        if self.format is Format.DECIMAL_EXPONENT:
            return f"{amount}e{exponent}" if exponent else str(amount)
        return f"{amount}{_DECIMAL[exponent]}"

    def _binary(self) -> str:
        amount, power = self.nanos // _NANO, 0
        while amount % 1024 == 0 and power < len(_BINARY) - 1:
            amount //= 1024
            power += 1
        return f"{amount}{_BINARY[power]}"

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def __bool__(self) -> bool:
        return bool(self.nanos)

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)


def _away_from_zero(amount: int, unit: int) -> int:
    rounded = -(-abs(amount) // unit)
    return -rounded if amount < 0 else rounded


def _scale(suffix: str) -> tuple[int, int, Format]:
    """Multiplier, divisor and family of a suffix."""
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix], 1, Format.DECIMAL_SI
    if suffix in _SMALL:
        return 1, int(10 ** _SMALL[suffix]), Format.DECIMAL_SI
    if suffix in _BINARY:
        return int(1024 ** _BINARY.index(suffix)), 1, Format.BINARY_SI
    if match := _EXPONENT(suffix):
        power = int(match[1])
        if abs(power) <= 400:
            return 10 ** max(power, 0), 10 ** max(-power, 0), Format.DECIMAL_EXPONENT
    raise ValueError("unable to parse quantity's suffix")


ZERO = Quantity(0)
