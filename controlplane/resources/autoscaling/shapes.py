"""The shape of what v1's annotations hold. They are text that anybody may write, and nothing else checks it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AMOUNT = (str, int)
_REFERENCE = {"kind": str, "name": str, "apiVersion": str}
_SELECTOR = {
    "matchLabels": {None: str},
    "matchExpressions": [{"key": str, "operator": str, "values": [str]}],
}
_SOURCE = {
    "name": str,
    "container": str,
    "metricName": str,
    "target": _REFERENCE,
    "selector": _SELECTOR,
    "metricSelector": _SELECTOR,
    "averageValue": _AMOUNT,
    "targetValue": _AMOUNT,
    "targetAverageValue": _AMOUNT,
    "targetAverageUtilization": int,
    "currentValue": _AMOUNT,
    "currentAverageValue": _AMOUNT,
    "currentAverageUtilization": int,
}
METRIC_LIST = [
    {"type": str, **dict.fromkeys(("object", "pods", "resource", "containerResource", "external"), _SOURCE)}
]
_SCALING = {
    "StabilizationWindowSeconds": int,
    "SelectPolicy": str,
    "Policies": [{"Type": str, "Value": int, "PeriodSeconds": int}],
}
RULES = {"ScaleUp": _SCALING, "ScaleDown": _SCALING}
CONDITION_LIST = [dict.fromkeys(("type", "status", "lastTransitionTime", "reason", "message"), str)]


def fits(value: Any, shape: Any) -> bool:
    """Whether a JSON value has a shape: a type or several, a list of one shape, or fields with theirs (None stands for
    any name). Null fits everywhere; fields that the shape does not name do not fit.
    """
    if value is None:
        return True
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) and item is not None for item in value)
    if isinstance(shape, Mapping):
        return isinstance(value, Mapping) and all(
            (name in shape or None in shape) and fits(item, shape.get(name, shape.get(None)))
            for name, item in value.items()
        )
    return isinstance(value, shape) and not isinstance(value, bool)
