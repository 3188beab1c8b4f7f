"""ReplicationController: the ReplicaSet of old, with a plain map as selector (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig
from controlplane.resources.apps.replica_set import (
    no_replicas_yet,
    replica_columns,
    replica_row,
    validate_replica_status,
)
from controlplane.resources.apps.rules import always_and_forever, fill, labels_do_not_match, name_warnings
from controlplane.resources.cells import format_labels
from controlplane.resources.kind import Kind, Scale
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import Field
from controlplane.resources.selectable import number as number_at
from controlplane.resources.selectable import selectable_fields


def _default(controller: Object) -> None:
    fill(controller, "spec", {})
    fill(controller, "status", {})
    spec = controller["spec"]
    if spec.get("template") is not None:
        default_template(spec["template"])
    # Labels of the template stand in for a selector, and for labels of its own.
    labels = dig(spec, "template", "metadata", "labels", default={})
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = controller.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    fill(spec, "replicas", 1)


def _validate(controller: Object) -> Sequence[Cause]:
    field = Field.root(controller)
    spec = field["spec"]
    spec["minReadySeconds"].not_negative()
    selector, template = spec["selector"].required(), spec["template"]
    spec["replicas"].not_negative()
    if template.value is None:
        template.required()
        return field.causes
    wanted = selector.value or {}
    if not wanted.items() <= (template["metadata"]["labels"].value or {}).items():
        labels_do_not_match(template)
    validate_template(template)
    always_and_forever(template, "ReplicationController")
    return field.causes


def _row(controller: Object, now: datetime) -> Sequence[object]:
    return replica_row(controller, now, format_labels(dig(controller, "spec", "selector")))


REPLICATION_CONTROLLER = Kind(
    group="",
    version="v1",
    kind="ReplicationController",
    plural="replicationcontrollers",
    singular="replicationcontroller",
    namespaced=True,
    # Upstream's folder in etcd, too, is not the plural.
    storage="controllers",
    short_names=("rc",),
    categories=("all",),
    columns=replica_columns("io.k8s.api.core.v1.ReplicationController"),
    row=_row,
    default=_default,
    prepare_create=no_replicas_yet,
    validate=_validate,
    warnings=name_warnings,
    validate_status=validate_replica_status,
    status=True,
    scale=Scale(),
    generation=True,
    orphans=True,
    fields=selectable_fields(named={"status.replicas": number_at("status", "replicas")}),
)
