"""The printer columns of HorizontalPodAutoscalers, for objects of version v2. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, UNKNOWN, UNSET, number
from controlplane.resources.kind import Column

COLUMNS = (
    NAME,
    Column("Reference", description="What it scales."),
    Column("Targets", description="The metrics it holds, current and wanted."),
    Column("MinPods", description="The fewest replicas."),
    Column("MaxPods", description="The most replicas."),
    Column("Replicas", description="The replicas now."),
    AGE,
)
_SHOWN = 2


def row(autoscaler: Object, now: datetime) -> Sequence[object]:
    spec, status = autoscaler.get("spec") or {}, autoscaler.get("status") or {}
    target, least = spec.get("scaleTargetRef") or {}, spec.get("minReplicas")
    return (
        name(autoscaler),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        targets(spec.get("metrics") or (), status.get("currentMetrics") or ()),
        UNSET if least is None else str(least),
        str(number(spec.get("maxReplicas"))),
        number(status.get("currentReplicas")),
        age(autoscaler, now),
    )


def targets(metrics: Sequence[Object], current: Sequence[Object]) -> str:
    """`cpu: 12%/80%, 3/10 + 1 more...`."""
    if not metrics:
        return NONE
    shown = [_metric(metric, current[at] if at < len(current) else {}) for at, metric in enumerate(metrics)]
    more = len(shown) - _SHOWN
    text = ", ".join(shown[:_SHOWN])
    return f"{text} + {more} more..." if more > 0 else text


def _metric(metric: Object, current: Object) -> str:
    kind = str(metric.get("type", ""))
    source = kind[:1].lower() + kind[1:]
    wanted = dig(metric, source, "target", default={})
    now = dig(current, source, "current", default={})
    average = wanted.get("averageValue")
    match kind:
        case "External" | "Object":
            if average is not None:
                return f"{now.get('averageValue', UNKNOWN)}/{average} (avg)"
            return f"{now.get('value', UNKNOWN)}/{wanted.get('value', UNKNOWN)}"
        case "Pods":
            return f"{now.get('averageValue', UNKNOWN)}/{average}"
        case "Resource" | "ContainerResource":
            label = dig(metric, source, "name", default="")
            if average is not None:
                return f"{label}: {now.get('averageValue', UNKNOWN)}/{average}"
            return f"{label}: {_percent(now, UNKNOWN)}/{_percent(wanted, '<auto>')}"
    return "<unknown type>"


def _percent(amounts: Object, otherwise: str) -> str:
    value = amounts.get("averageUtilization")
    return otherwise if value is None else f"{value}%"
