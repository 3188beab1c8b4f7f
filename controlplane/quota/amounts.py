"""Arithmetic with lists of resources, as in upstream's `quota/v1/resources.go`. Pure; nothing is changed in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from controlplane.meta.quantity import ZERO, Quantity

Amounts = Mapping[str, Quantity]


def parsed(resources: Mapping[str, Any] | None) -> dict[str, Quantity]:
    """A resource list of an object. Raises ValueError."""
    return {name: Quantity.parse(str(amount)) for name, amount in (resources or {}).items()}


def texts(amounts: Amounts) -> dict[str, str]:
    """The list as objects hold it."""
    return {name: str(amount) for name, amount in sorted(amounts.items())}


def add(first: Amounts, second: Amounts) -> dict[str, Quantity]:
    total = dict(first)
    for name, amount in second.items():
        total[name] = total[name] + amount if name in total else amount
    return total


def largest(first: Amounts, second: Amounts) -> dict[str, Quantity]:
    """The larger amount of each."""
    return {
        name: max(first.get(name, amount), second.get(name, amount))
        for name, amount in {**first, **second}.items()
    }


def increase(new: Amounts, old: Amounts) -> dict[str, Quantity]:
    """What `new` has more than `old`; never negative."""
    return {name: max(amount - old.get(name, ZERO), ZERO) for name, amount in new.items()}


def mask(amounts: Amounts, names: Collection[str]) -> dict[str, Quantity]:
    return {name: amount for name, amount in amounts.items() if name in names}


def without_zeros(amounts: Amounts) -> dict[str, Quantity]:
    return {name: amount for name, amount in amounts.items() if amount}


def exceeding(amounts: Amounts, limits: Amounts) -> list[str]:
    """The names whose amount is above its limit; what has no limit is not."""
    return sorted(name for name, amount in amounts.items() if name in limits and amount > limits[name])


def negative(amounts: Amounts) -> list[str]:
    return sorted(name for name, amount in amounts.items() if amount.nanos < 0)


def shown(amounts: Amounts) -> str:
    """`cpu=1,pods=3`, as messages list it."""
    return ",".join(f"{name}={amount}" for name, amount in sorted(amounts.items()))


def total(all_amounts: Iterable[Amounts]) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for amounts in all_amounts:
        found = add(found, amounts)
    return found
