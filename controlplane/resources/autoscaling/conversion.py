"""HorizontalPodAutoscaler between `v1` and `v2` (pkg/apis/autoscaling/v1/conversion.go, v1.32). Pure.

What v1 has no field for travels in annotations, in the form upstream gives them: metrics and conditions as v1 prints
its own types, behaviour as Go prints a struct without names for JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.resources.autoscaling.shapes import CONDITION_LIST, METRIC_LIST, RULES, fits

_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS = f"{_PREFIX}metrics"
BEHAVIOR = f"{_PREFIX}behavior"
CURRENT_METRICS = f"{_PREFIX}current-metrics"
CONDITIONS = f"{_PREFIX}conditions"
_ALL = (METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS)
_SHAPES: dict[str, Any] = {
    METRICS: METRIC_LIST,
    CURRENT_METRICS: METRIC_LIST,
    BEHAVIOR: RULES,
    CONDITIONS: CONDITION_LIST,
}

_SHARED_SPEC = ("scaleTargetRef", "minReplicas", "maxReplicas")
_SHARED_STATUS = ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas")
_V1_TARGETS = {"value": "targetValue", "averageValue": "targetAverageValue",
               "averageUtilization": "targetAverageUtilization"}  # fmt: skip
_V1_CURRENT = {"value": "currentValue", "averageValue": "currentAverageValue",
               "averageUtilization": "currentAverageUtilization"}  # fmt: skip


def to_v2(v1: Object) -> Object:
    """A v1 object as v2. Annotations that cannot be read are dropped, as upstream does."""
    metadata, found = _without_annotations(v1)
    spec, status = v1.get("spec") or {}, v1.get("status") or {}
    new_spec = {name: spec[name] for name in _SHARED_SPEC if name in spec}
    metrics = [_metric_to_v2(metric, "target") for metric in _read(found, METRICS) or ()]
    utilization = spec.get("targetCPUUtilizationPercentage")
    if utilization is not None:
        target = {"type": "Utilization", "averageUtilization": utilization}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        new_spec["metrics"] = metrics
    behavior = _read(found, BEHAVIOR)
    if behavior:
        new_spec["behavior"] = _recased(behavior, str.lower)
    new_status = {name: status[name] for name in _SHARED_STATUS if name in status}
    current = [_metric_to_v2(metric, "current") for metric in _read(found, CURRENT_METRICS) or ()]
    cpu = status.get("currentCPUUtilizationPercentage")
    if cpu is not None and not current:
        current.append(
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": cpu}}}
        )
    if current:
        new_status["currentMetrics"] = current
    conditions = _read(found, CONDITIONS)
    if conditions:
        new_status["conditions"] = conditions
    return {
        **v1,
        "apiVersion": "autoscaling/v2",
        "metadata": metadata,
        "spec": new_spec,
        "status": new_status,
    }


def to_v1(v2: Object) -> Object:
    """A v2 object as v1, with annotations for what v1 has no fields for."""
    metadata, _ = _without_annotations(v2)
    spec, status = v2.get("spec") or {}, v2.get("status") or {}
    new_spec = {name: spec[name] for name in _SHARED_SPEC if name in spec}
    new_status = {name: status[name] for name in _SHARED_STATUS if name in status}
    notes: dict[str, str] = {}
    others, utilization = _split_cpu(spec.get("metrics") or (), "target")
    if utilization is not None:
        new_spec["targetCPUUtilizationPercentage"] = utilization
    if others:
        notes[METRICS] = _text([_metric_to_v1(metric, "target") for metric in others])
    _, cpu = _split_cpu(status.get("currentMetrics") or (), "current")
    if cpu is not None:
        new_status["currentCPUUtilizationPercentage"] = cpu
    every = status.get("currentMetrics") or ()
    if every:
        # All of them, since the one field of v1 has no room for the processor's raw value.
        notes[CURRENT_METRICS] = _text([_metric_to_v1(metric, "current") for metric in every])
    if spec.get("behavior"):
        notes[BEHAVIOR] = _text(_recased(spec["behavior"], str.upper))
    if status.get("conditions"):
        notes[CONDITIONS] = _text(status["conditions"])
    if notes:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    return {
        **v2,
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": new_spec,
        "status": new_status,
    }


def _without_annotations(obj: Object) -> tuple[Object, dict[str, str]]:
    """The metadata without the annotations of this conversion, and those annotations."""
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.pop("annotations", None) or {})
    found = {name: annotations.pop(name) for name in _ALL if name in annotations}
    if annotations:
        metadata["annotations"] = annotations
    return metadata, found


def _read(annotations: dict[str, str], name: str) -> Any:
    """What the annotation holds, nothing when it has another shape than v1 would give it."""
    try:
        value = orjson.loads(annotations.get(name) or "null")
    except (orjson.JSONDecodeError, TypeError):
        return None
    return value if fits(value, _SHAPES[name]) else None


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _recased(value: Any, case: Callable[[str], str]) -> Any:
    """Names of fields with their first letter in another case."""
    if isinstance(value, dict):
        named = {case(name[:1]) + name[1:]: _recased(item, case) for name, item in value.items()}
        return {name: item for name, item in named.items() if item is not None}
    return [_recased(item, case) for item in value] if isinstance(value, list) else value


def _split_cpu(metrics: Any, part: str) -> tuple[list[Object], int | None]:
    """The metrics but the first that is the processor's average utilization, and that one's value."""
    others: list[Object] = []
    found: int | None = None
    for metric in metrics:
        resource = metric.get("resource") or {}
        value = (resource.get(part) or {}).get("averageUtilization")
        is_cpu = metric.get("type") == "Resource" and resource.get("name") == "cpu" and value is not None
        if is_cpu and found is None:
            found = value
        else:
            others.append(metric)
    return others, found


def _source_name(metric: Object) -> str:
    kind = str(metric.get("type", ""))
    return kind[:1].lower() + kind[1:]


def _metric_to_v1(metric: Object, part: str) -> Object:
    source_name = _source_name(metric)
    source = metric.get(source_name) or {}
    amounts = source.get(part) or {}
    names = dict(_V1_TARGETS if part == "target" else _V1_CURRENT)
    if source_name == "object":
        names["averageValue"] = "averageValue"
    flat: Object = {name: source[name] for name in ("name", "container") if name in source}
    if "describedObject" in source:
        flat["target"] = source["describedObject"]
    identifier = source.get("metric") or {}
    if "name" in identifier:
        flat["metricName"] = identifier["name"]
    if identifier.get("selector"):
        flat["metricSelector" if source_name == "external" else "selector"] = identifier["selector"]
    flat.update({names[name]: amounts[name] for name in names if amounts.get(name) is not None})
    return {"type": metric.get("type"), source_name: flat}


def _metric_to_v2(metric: Object, part: str) -> Object:
    source_name = _source_name(metric)
    flat = metric.get(source_name) or {}
    names = dict(_V1_TARGETS if part == "target" else _V1_CURRENT)
    if source_name == "object":
        names["averageValue"] = "averageValue"
    source: Object = {name: flat[name] for name in ("name", "container") if name in flat}
    if "target" in flat:
        source["describedObject"] = flat["target"]
    identifier: Object = {}
    if "metricName" in flat:
        identifier["name"] = flat["metricName"]
    selector = flat.get("metricSelector") or flat.get("selector")
    if selector:
        identifier["selector"] = selector
    if identifier:
        source["metric"] = identifier
    amounts = {name: flat[v1] for name, v1 in names.items() if flat.get(v1) is not None}
    if part == "target":
        amounts = {"type": _target_type(source_name, amounts), **amounts}
    source[part] = amounts
    return {"type": metric.get("type"), source_name: source}


def _target_type(source_name: str, amounts: Object) -> str:
    """v1 does not say it: it follows from what is set."""
    if "averageUtilization" in amounts:
        return "Utilization"
    if source_name == "object":
        return "AverageValue" if "averageValue" in amounts else "Value"
    return "AverageValue" if "averageValue" in amounts or source_name in ("pods", "resource") else "Value"
