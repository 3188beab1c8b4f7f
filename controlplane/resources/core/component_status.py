"""ComponentStatus: whether the control plane's parts answer. Never stored: made when somebody asks (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.resources.cells import NAME
from controlplane.resources.kind import Column, Kind
from controlplane.resources.selectable import selectable_fields

DEPRECATED = "v1 ComponentStatus is deprecated in v1.19+"


def component(component_name: str, fault: str) -> Object:
    """What is said of one part; an empty `fault` means it is well."""
    healthy = {"type": "Healthy", "status": "True", "message": "ok"}
    unhealthy = {"type": "Healthy", "status": "False", "message": fault}
    return {
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": {"name": component_name, "creationTimestamp": None},
        "conditions": [unhealthy if fault else healthy],
    }


def _row(status: Object, now: datetime) -> Sequence[object]:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Healthy":
            word = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            return name(status), word, condition.get("message", ""), condition.get("error", "")
    return name(status), "Unknown", "", ""


COMPONENT_STATUS = Kind(
    group="",
    version="v1",
    kind="ComponentStatus",
    plural="componentstatuses",
    singular="componentstatus",
    namespaced=False,
    short_names=("cs",),
    verbs=("get", "list"),
    columns=(
        NAME,
        Column("Status", description="Status of the component conditions"),
        Column("Message", description="Message of the component conditions"),
        Column("Error", description="Error of the component conditions"),
    ),
    row=_row,
    fields=selectable_fields(),
)
