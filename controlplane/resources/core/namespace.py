"""Namespace: emptied before it goes, its name a DNS label."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label, qualified_name
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind, Subresource
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

FINALIZER = "kubernetes"
"""In `spec.finalizers` until the contents are gone."""
NAME_LABEL = "kubernetes.io/metadata.name"

_STANDARD_FINALIZERS = (FINALIZER, "orphan", "foregroundDeletion")


def _default(namespace: Object) -> None:
    if name(namespace):
        meta = namespace["metadata"]
        meta["labels"] = {**(meta.get("labels") or {}), NAME_LABEL: name(namespace)}
    status = namespace.get("status") or {}
    status.setdefault("phase", "Active")
    namespace["status"] = status


def _prepare_create(namespace: Object) -> None:
    namespace["status"] = {"phase": "Active"}
    spec = namespace.get("spec") or {}
    finalizers = spec.get("finalizers") or []
    namespace["spec"] = {**spec, "finalizers": [*finalizers, *([FINALIZER] * (FINALIZER not in finalizers))]}


def _prepare_update(new: Object, old: Object) -> None:
    """Only the finalize subresource changes the finalizers."""
    if "spec" in old:
        new["spec"] = old["spec"]


def _validate(namespace: Object) -> Sequence[Cause]:
    field = Field.root(namespace)
    for finalizer in field["spec"]["finalizers"]:
        place = field["spec"]["finalizers"].of(finalizer.value)
        messages = qualified_name(finalizer.text)
        for message in messages:
            place.invalid(message)
        if not messages and "/" not in finalizer.text and finalizer.value not in _STANDARD_FINALIZERS:
            place.invalid("name is neither a standard finalizer name nor is it fully qualified")
    return field.causes


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    phase = field["status"]["phase"]
    if dig(new, "metadata", "deletionTimestamp"):
        if phase.value != "Terminating":
            phase.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty")
    elif phase.value != "Active":
        phase.invalid("may only be 'Active' if `deletionTimestamp` is empty")
    return field.causes


def _row(namespace: Object, now: datetime) -> Sequence[object]:
    return name(namespace), dig(namespace, "status", "phase", default=""), age(namespace, now)


NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    namespaced=False,
    short_names=("ns",),
    columns=(NAME, Column("Status", description="The status of the namespace"), AGE),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    validate_status=_validate_status,
    validate_name=dns1123_label,
    status=True,
    subresources=(Subresource("finalize", "Namespace", ("update",)),),
    fields=selectable_fields("status.phase"),
)
