"""ReplicaSet: defaults, rules, columns (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.apps.rules import (
    always_and_forever,
    default_workload,
    fill,
    name_warnings,
    selector_column,
    selector_matches,
    selector_unchanged,
    validate_counts,
    validate_selector,
)
from controlplane.resources.cells import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    containers_and_images,
    format_selector,
    number,
)
from controlplane.resources.kind import Column, Kind, Scale
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import Field
from controlplane.resources.selectable import number as number_at
from controlplane.resources.selectable import selectable_fields


def replica_columns(api: str) -> tuple[Column, ...]:
    """The columns of the kind whose types are `<api>Spec` and `<api>Status`."""
    return (
        NAME,
        Column("Desired", type="integer", documents=f"{api}Spec.replicas"),
        Column("Current", type="integer", documents=f"{api}Status.replicas"),
        Column("Ready", type="integer", documents=f"{api}Status.readyReplicas"),
        AGE,
        CONTAINERS,
        IMAGES,
        selector_column(f"{api}Spec"),
    )


def _default(replica_set: Object) -> None:
    fill(default_workload(replica_set), "replicas", 1)


def no_replicas_yet(workload: Object) -> None:
    """The status a new object has."""
    workload["status"] = {"replicas": 0}


def validate_replicas_selector_template(spec: Field) -> None:
    """What ReplicaSets and Deployments have in common; upstream's texts name the one or the other for both."""
    spec["replicas"].not_negative()
    spec["minReadySeconds"].not_negative()
    selector, template = spec["selector"], spec["template"]
    validate_selector(selector, "deployment")
    selector_matches(selector, template)
    validate_template(template)
    always_and_forever(template, "ReplicaSet")


def _validate(replica_set: Object) -> Sequence[Cause]:
    field = Field.root(replica_set)
    validate_replicas_selector_template(field["spec"])
    return field.causes


def validate_replica_status(new: Object, old: Object) -> Sequence[Cause]:
    """Also that of ReplicationControllers."""
    return validate_counts(new, "fullyLabeledReplicas", "readyReplicas", "availableReplicas").causes


def replica_row(obj: Object, now: datetime, selector: str) -> Sequence[object]:
    """The cells under `replica_columns`; `selector` as it is shown. Also those of ReplicationControllers."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return (
        name(obj),
        number(spec.get("replicas")),
        number(status.get("replicas")),
        number(status.get("readyReplicas")),
        age(obj, now),
        *containers_and_images(spec.get("template")),
        selector,
    )


def _row(replica_set: Object, now: datetime) -> Sequence[object]:
    return replica_row(replica_set, now, format_selector(dig(replica_set, "spec", "selector")))


REPLICA_SET = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    namespaced=True,
    short_names=("rs",),
    categories=("all",),
    columns=replica_columns("io.k8s.api.apps.v1.ReplicaSet"),
    row=_row,
    default=_default,
    prepare_create=no_replicas_yet,
    validate=_validate,
    warnings=name_warnings,
    validate_update=selector_unchanged,
    validate_status=validate_replica_status,
    status=True,
    scale=Scale(),
    generation=True,
    fields=selectable_fields(named={"status.replicas": number_at("status", "replicas")}),
)
