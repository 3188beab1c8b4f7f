"""The kinds of `scheduling.k8s.io/v1`: PriorityClass, a name for how important pods are (v1.32)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PREFIX = "system-"
PREEMPT = "PreemptLowerPriority"

SYSTEM_CLASSES: Mapping[str, Object] = {
    "system-node-critical": {
        "metadata": {"name": "system-node-critical"},
        "value": 2 * HIGHEST_USER_PRIORITY + 1000,
        "description": "Used for system critical pods that must not be moved from their current node.",
    },
    "system-cluster-critical": {
        "metadata": {"name": "system-cluster-critical"},
        "value": 2 * HIGHEST_USER_PRIORITY,
        "description": "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary.",
    },
}
"""The classes every cluster has; nobody may make others like them."""

_DOCUMENTS = "io.k8s.api.scheduling.v1.PriorityClass"


def _default(priority_class: Object) -> None:
    priority_class.setdefault("value", 0)
    if priority_class.get("preemptionPolicy") is None:
        priority_class["preemptionPolicy"] = PREEMPT
    # Go leaves both out when they say nothing.
    for field in ("globalDefault", "description"):
        if field in priority_class and not priority_class[field]:
            del priority_class[field]


def _validate(priority_class: Object) -> Sequence[Cause]:
    field = Field.root(priority_class)
    own_name = name(priority_class)
    if own_name.startswith(SYSTEM_PREFIX):
        wrong = _differs_from_system_class(priority_class)
        if wrong:
            Field(None, "metadata.name", field.causes).forbidden(
                f"priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {wrong}"
            )
    elif isinstance(priority_class.get("value"), int) and priority_class["value"] > HIGHEST_USER_PRIORITY:
        field["value"].forbidden(
            f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        )
    field["preemptionPolicy"].one_of(PREEMPT, "Never")
    return field.causes


def _differs_from_system_class(priority_class: Object) -> str:
    known = SYSTEM_CLASSES.get(name(priority_class))
    if known is None:
        return f"{name(priority_class)} is not a known system priority class"
    if priority_class.get("value") != known["value"]:
        return f"value of {name(priority_class)} PriorityClass must be {known['value']}"
    if priority_class.get("globalDefault"):
        return f"globalDefault of {name(priority_class)} PriorityClass must be false"
    return ""


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    if new.get("value", 0) != old.get("value", 0):
        field["value"].forbidden("may not be changed in an update.")
    field["preemptionPolicy"].unchanged(Field.root(old)["preemptionPolicy"])
    return field.causes


def _row(priority_class: Object, now: datetime) -> Sequence[object]:
    return (
        name(priority_class),
        priority_class.get("value", 0),
        bool(priority_class.get("globalDefault")),
        age(priority_class, now),
        priority_class.get("preemptionPolicy") or "",
    )


PRIORITY_CLASS = Kind(
    group="scheduling.k8s.io",
    version="v1",
    kind="PriorityClass",
    plural="priorityclasses",
    singular="priorityclass",
    namespaced=False,
    short_names=("pc",),
    columns=(
        NAME,
        Column("Value", type="integer", documents=f"{_DOCUMENTS}.value"),
        Column("Global-Default", type="boolean", documents=f"{_DOCUMENTS}.globalDefault"),
        AGE,
        Column("PreemptionPolicy", documents=f"{_DOCUMENTS}.preemptionPolicy"),
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    generation=True,
    fields=selectable_fields(),
)
