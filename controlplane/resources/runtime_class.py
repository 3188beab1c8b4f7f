"""The kinds of `node.k8s.io/v1`: RuntimeClass, a way nodes run containers (pkg/apis/node, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.podspec.scheduling import validate_tolerations
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields


def _default(runtime_class: Object) -> None:
    for toleration in (runtime_class.get("scheduling") or {}).get("tolerations") or ():
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"
    canonical(runtime_class.get("overhead") or {}, "podFixed")


def _validate(runtime_class: Object) -> Sequence[Cause]:
    field = Field.root(runtime_class)
    handler = field["handler"]
    for message in dns1123_label(handler.text):
        handler.invalid(message)
    for resource, amount in field["overhead"]["podFixed"].entries():
        amount.of(resource).qualified_name()
        amount.quantity()
    scheduling = field["scheduling"]
    scheduling["nodeSelector"].labels()
    tolerations = scheduling["tolerations"]
    validate_tolerations(tolerations)
    seen: list[Object] = []
    for toleration in tolerations:
        if toleration.value in seen:
            toleration.duplicate()
        seen.append(toleration.value)
    return field.causes


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["handler"].unchanged(Field.root(old)["handler"])
    return field.causes


def _row(runtime_class: Object, now: datetime) -> Sequence[object]:
    return name(runtime_class), runtime_class.get("handler", ""), age(runtime_class, now)


RUNTIME_CLASS = Kind(
    group="node.k8s.io",
    version="v1",
    kind="RuntimeClass",
    plural="runtimeclasses",
    singular="runtimeclass",
    namespaced=False,
    columns=(NAME, Column("Handler", documents="io.k8s.api.node.v1.RuntimeClass.handler"), AGE),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    fields=selectable_fields(),
)
