"""How Go prints values, where messages about custom resources show them. Pure."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from controlplane.resources.fieldpath import Literal, quoted


def number(value: float) -> str:
    """`%v` of an int64 or a float64: the shortest digits; floats from 1e+06 on and below 1e-04 have an exponent."""
    if isinstance(value, int):
        return str(value)
    if math.isinf(value) or math.isnan(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    power = len(digits) - 1 + exponent
    if value == 0 or -4 <= power < 6:
        return format(Decimal(repr(value)).normalize(), "f")
    text = "".join(map(str, digits))
    mantissa = text[0] + ("." + text[1:] if text[1:] else "")
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def literal(value: Any) -> Literal:
    """`%#v` of unstructured JSON; plain values as field errors print them."""
    return Literal(_literal(value, top=True))


def _literal(value: Any, *, top: bool = False) -> str:
    if value is None:
        return '"null"' if top else "interface {}(nil)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        pairs = ", ".join(f"{quoted(key)}:{_literal(value[key])}" for key in sorted(value))
        return f"map[string]interface {{}}{{{pairs}}}"
    return f"[]interface {{}}{{{', '.join(_literal(item) for item in value)}}}"
