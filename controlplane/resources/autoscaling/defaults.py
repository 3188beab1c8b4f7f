"""Defaults of HorizontalPodAutoscalers (pkg/apis/autoscaling/v2, v1.32). Pure; they edit the object in place."""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.resources.podspec.quantities import canonical_text

CPU_UTILIZATION = 80
_SOURCES = ("object", "pods", "resource", "containerResource", "external")
_UP: Object = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Object = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


def default(autoscaler: Object) -> None:
    spec = default_least(autoscaler)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": CPU_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    for metric in spec["metrics"]:
        for source in _SOURCES:
            target = (metric.get(source) or {}).get("target") or {}
            for amount in ("value", "averageValue"):
                if target.get(amount) is not None:
                    target[amount] = canonical_text(target[amount])
    behavior = spec.get("behavior")
    if behavior is not None:
        for direction, rules in (("scaleUp", _UP), ("scaleDown", _DOWN)):
            given = {
                name: value for name, value in (behavior.get(direction) or {}).items() if value is not None
            }
            policies = [dict(policy) for policy in given.get("policies") or rules["policies"]]
            behavior[direction] = {**rules, **given, "policies": policies}


def default_least(autoscaler: Object) -> Object:
    """What both versions default; returns the spec."""
    if autoscaler.get("spec") is None:
        autoscaler["spec"] = {}
    spec: Object = autoscaler["spec"]
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if autoscaler.get("status") is None:
        autoscaler["status"] = {}
    return spec
