"""quantity, isQuantity and arithmetic with resource quantities. The payload is the exact amount in nanos, as text."""

from __future__ import annotations

from typing import Any

from controlplane.cel.functions import Function, member, plain, unwrap, wrap
from controlplane.cel.types import BOOL, DOUBLE, INT, QUANTITY, STRING
from controlplane.meta.quantity import Quantity

_NANO = 10**9


def _quantity(text: str) -> dict[str, Any]:
    return wrap(QUANTITY, str(Quantity.parse(text).nanos))


def _is_quantity(text: str) -> bool:
    try:
        Quantity.parse(text)
    except ValueError:
        return False
    return True


def _nanos(value: Any) -> int:
    if isinstance(value, int):
        return value * _NANO
    return int(unwrap(QUANTITY, value))


def _is_integer(value: Any) -> bool:
    nanos = _nanos(value)
    return nanos % _NANO == 0 and -(2**63) <= nanos // _NANO < 2**63


def _as_integer(value: Any) -> int:
    if not _is_integer(value):
        raise ValueError("cannot convert value to integer")
    return _nanos(value) // _NANO


def _as_float(value: Any) -> float:
    return _nanos(value) / _NANO


def _sign(value: Any) -> int:
    nanos = _nanos(value)
    return (nanos > 0) - (nanos < 0)


def _add(one: Any, other: Any) -> dict[str, Any]:
    return wrap(QUANTITY, str(_nanos(one) + _nanos(other)))


def _sub(one: Any, other: Any) -> dict[str, Any]:
    return wrap(QUANTITY, str(_nanos(one) - _nanos(other)))


def _less(one: Any, other: Any) -> bool:
    return _nanos(one) < _nanos(other)


def _greater(one: Any, other: Any) -> bool:
    return _nanos(one) > _nanos(other)


def _compare(one: Any, other: Any) -> int:
    return _sign(_sub(one, other))


FUNCTIONS: tuple[Function, ...] = (
    plain("quantity", _quantity, ("string_to_quantity", (STRING,), QUANTITY)),
    plain("isQuantity", _is_quantity, ("is_quantity_string", (STRING,), BOOL)),
    member("sign", _sign, ("quantity_sign", (QUANTITY,), INT)),
    member("isInteger", _is_integer, ("quantity_is_integer", (QUANTITY,), BOOL)),
    member("asInteger", _as_integer, ("quantity_as_integer", (QUANTITY,), INT)),
    member("asApproximateFloat", _as_float, ("quantity_get_float", (QUANTITY,), DOUBLE)),
    member(
        "add",
        _add,
        ("quantity_add", (QUANTITY, QUANTITY), QUANTITY),
        ("quantity_add_int", (QUANTITY, INT), QUANTITY),
    ),
    member(
        "sub",
        _sub,
        ("quantity_sub", (QUANTITY, QUANTITY), QUANTITY),
        ("quantity_sub_int", (QUANTITY, INT), QUANTITY),
    ),
    member("isLessThan", _less, ("quantity_is_less_than", (QUANTITY, QUANTITY), BOOL)),
    member("isGreaterThan", _greater, ("quantity_is_greater_than", (QUANTITY, QUANTITY), BOOL)),
    member("compareTo", _compare, ("quantity_compare_to", (QUANTITY, QUANTITY), INT)),
)
