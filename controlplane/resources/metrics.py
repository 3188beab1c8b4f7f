"""The kinds of `metrics.k8s.io/v1beta1`: what nodes and pods use. Never stored: made when somebody asks.

Names, columns and texts are metrics-server's. The API server fills them from the kubelets' summaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.quantity import Format, Quantity
from controlplane.resources.kind import Column, Kind
from controlplane.resources.selectable import selectable_fields

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_PREFIX = f"io.k8s.{GROUP.split('.', 1)[0]}.{VERSION}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Billionths of a core, and bytes."""

    cpu_nanos: int
    memory: int

    def as_resources(self) -> Object:
        return {
            "cpu": str(Quantity(self.cpu_nanos)),
            "memory": str(Quantity.of(self.memory, Format.BINARY_SI)),
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """When a usage was measured (RFC 3339), and over how many seconds the CPU was averaged."""

    at: str
    window: float


def node_metrics(node: Object, measured: Measured, usage: Usage, moment: str) -> Object:
    """`node` is the Node; `moment` is now in RFC 3339."""
    return {**_head("NodeMetrics", node, measured, moment), "usage": usage.as_resources()}


def pod_metrics(pod: Object, measured: Measured, containers: Mapping[str, Usage], moment: str) -> Object:
    """`pod` is the Pod, `containers` what each of its containers uses."""
    listed = [{"name": title, "usage": usage.as_resources()} for title, usage in containers.items()]
    return {**_head("PodMetrics", pod, measured, moment), "containers": listed}


def _head(kind: str, about: Object, measured: Measured, moment: str) -> Object:
    source = about["metadata"]
    metadata: Object = {"name": source["name"], "creationTimestamp": moment}
    for field in ("namespace", "labels"):
        if source.get(field):
            metadata[field] = source[field]
    return {
        "kind": kind,
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": metadata,
        "timestamp": measured.at,
        "window": _go_duration(measured.window),
    }


def _go_duration(seconds: float) -> str:
    """`15.058s`, `1m0.5s`, `1h0m0s`: as Go prints a duration, to the millisecond."""
    millis = round(seconds * 1000)
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{millis / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


_COLUMNS = (
    Column("Name", format="name", description="Name of the resource"),
    Column("cpu", format="quantity"),
    Column("memory", format="quantity"),
    Column("Window", format="duration"),
)


def _node_row(metrics: Object, now: datetime) -> Sequence[object]:
    usage = metrics.get("usage") or {}
    return name(metrics), usage.get("cpu", "0"), usage.get("memory", "0"), metrics.get("window", "0s")


def _pod_row(metrics: Object, now: datetime) -> Sequence[object]:
    cells = []
    for resource, form in (("cpu", Format.DECIMAL_SI), ("memory", Format.BINARY_SI)):
        amounts = [each["usage"][resource] for each in metrics.get("containers") or ()]
        total = sum(Quantity.parse(amount).nanos for amount in amounts)
        cells.append(str(Quantity(total, form)))
    return name(metrics), *cells, metrics.get("window", "0s")


def _of(schema: str, description: str = "") -> Object:
    found: Object = {"allOf": [{"$ref": f"#/components/schemas/{schema}"}], "default": {}}
    return {**found, "description": description} if description else found


_TYPE = {
    "apiVersion": {
        "type": "string",
        "description": "APIVersion defines the versioned schema of this object.",
    },
    "kind": {"type": "string", "description": "Kind is the REST resource this object represents."},
}
_USAGE: Object = {
    "type": "object",
    "description": "The memory usage is the memory working set.",
    "additionalProperties": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"},
}
_MEASURED: Object = {
    **_TYPE,
    "metadata": _of(f"{_META}.ObjectMeta"),
    "timestamp": _of(f"{_META}.Time", "When the window ended over which the metrics were collected."),
    "window": {"type": "string", "description": "How long the metrics were collected, e.g. 15s."},
}


def _schemas(
    kind: str, description: str, properties: Object, more: Mapping[str, Object]
) -> Mapping[str, Object]:
    def identified(kind: str) -> list[Object]:
        return [{"group": GROUP, "version": VERSION, "kind": kind}]

    items = {"type": "array", "items": _of(f"{_PREFIX}.{kind}"), "description": f"List of {kind}."}
    return {
        f"{_PREFIX}.{kind}": {
            "type": "object",
            "description": description,
            "required": ["timestamp", "window", *properties],
            "properties": {**_MEASURED, **properties},
            "x-kubernetes-group-version-kind": identified(kind),
        },
        f"{_PREFIX}.{kind}List": {
            "type": "object",
            "description": f"{kind}List is a list of {kind}.",
            "required": ["items"],
            "properties": {**_TYPE, "metadata": _of(f"{_META}.ListMeta"), "items": items},
            "x-kubernetes-group-version-kind": identified(f"{kind}List"),
        },
        **more,
    }


NODE_METRICS = Kind(
    group=GROUP,
    version=VERSION,
    kind="NodeMetrics",
    plural="nodes",
    singular="",
    storage=f"{GROUP}/nodes",
    namespaced=False,
    verbs=("get", "list"),
    columns=_COLUMNS,
    row=_node_row,
    fields=selectable_fields(),
    definitions=_schemas(
        "NodeMetrics", "NodeMetrics sets resource usage metrics of a node.", {"usage": _USAGE}, {}
    ),
)

POD_METRICS = Kind(
    group=GROUP,
    version=VERSION,
    kind="PodMetrics",
    plural="pods",
    singular="",
    storage=f"{GROUP}/pods",
    namespaced=True,
    verbs=("get", "list"),
    columns=_COLUMNS,
    row=_pod_row,
    fields=selectable_fields(),
    definitions=_schemas(
        "PodMetrics",
        "PodMetrics sets resource usage metrics of a pod.",
        {
            "containers": {
                "type": "array",
                "description": "Metrics for all containers are collected within the same time window.",
                "items": _of(f"{_PREFIX}.ContainerMetrics"),
            }
        },
        {
            f"{_PREFIX}.ContainerMetrics": {
                "type": "object",
                "description": "ContainerMetrics sets resource usage metrics of a container.",
                "required": ["name", "usage"],
                "properties": {
                    "name": {
                        "type": "string",
                        "description": "Container name corresponding to the one from pod.spec.containers.",
                        "default": "",
                    },
                    "usage": _USAGE,
                },
            }
        },
    ),
)
