"""Amounts of resources inside objects: their canonical form and requests that follow from limits. Pure."""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.meta.quantity import Quantity


def canonical(holder: Object, name: str) -> None:
    """Rewrites the map of amounts `holder[name]` as the API server stores them: `1000m` becomes `1`.

    Text that is no quantity stays as it is, for validation to refuse.
    """
    amounts = holder.get(name)
    if isinstance(amounts, dict):
        for resource, amount in amounts.items():
            amounts[resource] = canonical_text(amount)


def canonical_text(amount: object) -> object:
    """One amount in canonical form; numbers become text."""
    if amount is None or isinstance(amount, bool):
        return amount
    try:
        return str(Quantity.parse(str(amount).strip()))
    except ValueError:
        return amount


def requests_from_limits(container: Object) -> None:
    """A limit without a request is a request too (for pods, not for templates)."""
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
