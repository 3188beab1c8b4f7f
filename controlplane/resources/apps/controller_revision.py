"""ControllerRevision: one past or present template of a DaemonSet or StatefulSet. Its data never changes (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import name
from controlplane.meta.owners import controller_of
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, number
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields


def _default(revision: Object) -> None:
    if revision.get("revision") is None:
        revision["revision"] = 0


def _validate(revision: Object) -> Sequence[Cause]:
    field = Field.root(revision)
    if field["data"].value is None:
        field["data"].required("data is mandatory")
    field["revision"].not_negative()
    return field.causes


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["data"].unchanged(Field.root(old)["data"])
    return field.causes


def _row(revision: Object, now: datetime) -> Sequence[object]:
    owner = controller_of(revision)
    shown = NONE
    if owner is not None:
        group, _, _ = owner["apiVersion"].rpartition("/")
        kind = f"{owner['kind']}.{group}" if group else owner["kind"]
        shown = f"{kind.lower()}/{owner['name']}"
    return name(revision), shown, number(revision.get("revision")), age(revision, now)


CONTROLLER_REVISION = Kind(
    group="apps",
    version="v1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    singular="controllerrevision",
    namespaced=True,
    columns=(
        NAME,
        Column("Controller", description="Controller of the object"),
        Column("Revision", documents="io.k8s.api.apps.v1.ControllerRevision.revision"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    fields=selectable_fields(),
)
