"""A pod's quality of service class from its containers' requests and limits (v1.32). Pure."""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.meta.quantity import Quantity

GUARANTEED = "Guaranteed"
BURSTABLE = "Burstable"
BEST_EFFORT = "BestEffort"

_COMPUTE = ("cpu", "memory")


def qos_class(pod: Object) -> str:
    """`Guaranteed` if every container has equal requests and limits of cpu and memory, `BestEffort` if none
    has any.
    """
    spec = pod.get("spec") or {}
    some = False
    guaranteed = True
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        resources = container.get("resources") or {}
        requests, limits = _amounts(resources.get("requests")), _amounts(resources.get("limits"))
        some = some or bool(requests) or bool(limits)
        # A request left out equals the limit.
        full = all(name in limits and requests.get(name, limits[name]) == limits[name] for name in _COMPUTE)
        guaranteed = guaranteed and full
    if not some:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def _amounts(resources: Object | None) -> dict[str, Quantity]:
    """The cpu and memory amounts greater than zero."""
    found = {}
    for name in _COMPUTE:
        text = (resources or {}).get(name)
        if text is None:
            continue
        try:
            amount = Quantity.parse(str(text))
        except ValueError:
            continue
        if amount.nanos > 0:
            found[name] = amount
    return found
