"""StorageClass: a way volumes are provisioned (pkg/apis/storage, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import qualified_name
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.fieldpath import duplicate, too_long
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

DEFAULT_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT_ANNOTATION = "storageclass.beta.kubernetes.io/is-default-class"
_DOCUMENTS = "io.k8s.api.storage.v1.StorageClass"
_PARAMETERS_MAX = 512
_PARAMETERS_BYTES = 256 * 1024


def is_default(storage_class: Object) -> bool:
    found = dig(storage_class, "metadata", "annotations", default={})
    return "true" in (found.get(DEFAULT_ANNOTATION), found.get(BETA_DEFAULT_ANNOTATION))


def _default(storage_class: Object) -> None:
    if storage_class.get("reclaimPolicy") is None:
        storage_class["reclaimPolicy"] = "Delete"
    if storage_class.get("volumeBindingMode") is None:
        storage_class["volumeBindingMode"] = "Immediate"


def _validate(storage_class: Object) -> Sequence[Cause]:
    field = Field.root(storage_class)
    provisioner = field["provisioner"].required()
    if provisioner.present:
        for message in qualified_name(provisioner.text.lower()):
            provisioner.invalid(message)
    _parameters(field["parameters"])
    field["reclaimPolicy"].one_of("Delete", "Retain")
    field["volumeBindingMode"].required().one_of("Immediate", "WaitForFirstConsumer")
    _topologies(field["allowedTopologies"])
    return field.causes


def _parameters(parameters: Field) -> None:
    if len(parameters) > _PARAMETERS_MAX:
        parameters.fail(too_long(parameters.path, _PARAMETERS_MAX))
        return
    size = 0
    for key, entry in parameters.entries():
        if not key:
            parameters.of("").invalid("field can not be empty.")
        size += len(key.encode()) + len(entry.text.encode())
    if size > _PARAMETERS_BYTES:
        parameters.fail(too_long(parameters.path, _PARAMETERS_BYTES))


def _topologies(terms: Field) -> None:
    seen: list[dict[str, set[str]]] = []
    for term in terms:
        keys: dict[str, set[str]] = {}
        expressions = term["matchLabelExpressions"]
        for expression in expressions:
            key, values = expression["key"], expression["values"]
            values.required()
            found: set[str] = set()
            for value in values:
                if value.text in found:
                    value.duplicate()
                found.add(value.text)
            for message in qualified_name(key.text):
                key.invalid(message)
            if key.text in keys:
                key.duplicate()
            keys[key.text] = found
        if keys in seen:
            term.fail(duplicate(expressions.path, ""))
        seen.append(keys)


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    for part in ("parameters", "provisioner", "reclaimPolicy"):
        if not same(new.get(part), old.get(part)):
            field[part].forbidden(f"updates to {part} are forbidden.")
    field["volumeBindingMode"].unchanged(Field.root(old)["volumeBindingMode"])
    return field.causes


def _row(storage_class: Object, now: datetime) -> Sequence[object]:
    return (
        f"{name(storage_class)} (default)" if is_default(storage_class) else name(storage_class),
        storage_class.get("provisioner", ""),
        storage_class.get("reclaimPolicy") or "Delete",
        storage_class.get("volumeBindingMode") or "Immediate",
        bool(storage_class.get("allowVolumeExpansion")),
        age(storage_class, now),
    )


STORAGE_CLASS = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="StorageClass",
    plural="storageclasses",
    singular="storageclass",
    namespaced=False,
    short_names=("sc",),
    columns=(
        NAME,
        Column("Provisioner", documents=f"{_DOCUMENTS}.provisioner"),
        Column("ReclaimPolicy", documents=f"{_DOCUMENTS}.reclaimPolicy"),
        Column("VolumeBindingMode", documents=f"{_DOCUMENTS}.volumeBindingMode"),
        Column("AllowVolumeExpansion", documents=f"{_DOCUMENTS}.allowVolumeExpansion"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    fields=selectable_fields(),
)
