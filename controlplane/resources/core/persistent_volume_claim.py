"""PersistentVolumeClaim: a user's request for storage (pkg/apis/core, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.quantity import Quantity
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, UNSET
from controlplane.resources.core.persistent_volume import (
    BETA_CLASS_ANNOTATION,
    class_annotation_warnings,
    phase,
    short_modes,
    storage_class,
)
from controlplane.resources.fieldpath import not_supported
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.claims import default_claim_spec, validate_claim_spec
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.podspec.update import differences
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

_SPEC = "io.k8s.api.core.v1.PersistentVolumeClaimSpec"
_STATUS = "io.k8s.api.core.v1.PersistentVolumeClaimStatus"
_RESIZE_STATES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending", "NodeResizeInProgress",
    "NodeResizeInfeasible",
)  # fmt: skip


def _default(claim: Object) -> None:
    claim["spec"] = claim.get("spec") or {}
    default_claim_spec(claim["spec"])
    status = claim["status"] = claim.get("status") or {}
    if not status.get("phase"):
        status["phase"] = "Pending"
    for amounts in ("capacity", "allocatedResources"):
        canonical(status, amounts)


def _prepare_create(claim: Object) -> None:
    claim["status"] = {"phase": "Pending"}
    _one_data_source(claim["spec"])


def _prepare_update(new: Object, old: Object) -> None:
    _one_data_source(new.get("spec") or {})


def _one_data_source(spec: Object) -> None:
    """The old and the new field for the data to begin with are one value."""
    if spec.get("dataSource") is not None and spec.get("dataSourceRef") is None:
        spec["dataSourceRef"] = dict(spec["dataSource"])
    elif (
        spec.get("dataSourceRef") is not None
        and spec.get("dataSource") is None
        and not spec["dataSourceRef"].get("namespace")
    ):
        reference = spec["dataSourceRef"]
        group, kind = reference.get("apiGroup") or "", reference.get("kind")
        if (group, kind) in (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")):
            spec["dataSource"] = dict(reference)


def _validate(claim: Object) -> Sequence[Cause]:
    field = Field.root(claim)
    validate_claim_spec(field["spec"])
    return field.causes


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    new_size, old_size = _size(after), _size(before)
    if not before.get("volumeName"):
        before["volumeName"] = after.get("volumeName")
    old_class, new_class = (
        dig(obj, "metadata", "annotations", default={}).get(BETA_CLASS_ANNOTATION) for obj in (old, new)
    )
    moved = old_class is not None and before.get("storageClassName") is None
    if moved and after.get("storageClassName") == old_class and new_class in (None, old_class):
        after["storageClassName"] = None
    else:
        if new_class != old_class:
            place = f"metadata.annotations[{BETA_CLASS_ANNOTATION}]"
            Field(new_class, place, field.causes).invalid("field is immutable")
        if _may_get_class(old, before):
            before["storageClassName"] = after.get("storageClassName")
    bound = dig(new, "status", "phase") == "Bound"
    if bound:
        after["resources"] = _with_size(after, dig(before, "resources", "requests", "storage"))
        # Whether the change of class is possible is for the driver to say.
        after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if not same(after, before):
        listed = "\n".join(differences(before, after, "spec"))
        field["spec"].forbidden(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
            f"bound claims\n{listed}"
        )
    if new_size is not None and old_size is not None and new_size < old_size:
        _shrink(field, new_size, old)
    Field(after.get("volumeMode"), "volumeMode", field.causes).unchanged(Field.root(before)["volumeMode"])
    return field.causes


def _may_get_class(old: Object, before: Object) -> bool:
    """A claim without a class may get one as long as it waits (retroactive default class)."""
    return before.get("storageClassName") is None and dig(old, "status", "phase") != "Bound"


def _with_size(spec: Object, size: object) -> Object:
    resources = spec.get("resources") or {}
    return {**resources, "requests": {**(resources.get("requests") or {}), "storage": size}}


def _shrink(field: Field, new_size: Quantity, old: Object) -> None:
    """Smaller again is fine after a growth that failed, down to what there is."""
    capacity = dig(old, "status", "capacity", "storage")
    if capacity is None or new_size <= Quantity.parse(str(capacity)):
        field["spec"]["resources"]["requests"]["storage"].forbidden(
            "field can not be less than status.capacity"
        )


def _warnings(new: Object, old: Object | None) -> Sequence[str]:
    found = class_annotation_warnings(new)
    size = _size(new.get("spec") or {})
    if size is not None and size.value % 1:
        place = "spec.resources.requests[storage]"
        found.append(f'{place}: fractional byte value "{size}" is invalid, must be an integer')
    return found


def _size(spec: Object) -> Quantity | None:
    amount = dig(spec, "resources", "requests", "storage")
    try:
        return None if amount is None else Quantity.parse(str(amount))
    except ValueError:
        return None


def _prepare_status(new: Object, old: Object) -> None:
    status = new["status"] = {**(new.get("status") or {})}
    if not status.get("phase"):
        status["phase"] = "Pending"
    for amounts in ("capacity", "allocatedResources"):
        canonical(status, amounts)


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    for _, amount in status["capacity"].entries():
        amount.quantity()
    for _, amount in status["allocatedResources"].entries():
        amount.quantity()
    states = status["allocatedResourceStatuses"]
    for _, state in states.entries():
        if state.value not in _RESIZE_STATES:
            states.fail(not_supported(states.path, state.text, sorted(_RESIZE_STATES)))
    return field.causes


def _row(claim: Object, moment: datetime) -> Sequence[object]:
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    bound = bool(spec.get("volumeName"))
    return (
        name(claim),
        phase(claim),
        spec.get("volumeName") or "",
        str(dig(status, "capacity", "storage", default="0")) if bound else "",
        short_modes(status.get("accessModes")) if bound else "",
        storage_class(claim),
        UNSET if spec.get("volumeAttributesClassName") is None else spec["volumeAttributesClassName"],
        age(claim, moment),
        UNSET if spec.get("volumeMode") is None else spec["volumeMode"],
    )


PERSISTENT_VOLUME_CLAIM = Kind(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    singular="persistentvolumeclaim",
    namespaced=True,
    short_names=("pvc",),
    columns=(
        NAME,
        Column("Status", documents=f"{_STATUS}.phase"),
        Column("Volume", documents=f"{_SPEC}.volumeName"),
        Column("Capacity", documents=f"{_STATUS}.capacity"),
        Column("Access Modes", documents=f"{_STATUS}.accessModes"),
        Column("StorageClass", description="StorageClass of the pvc"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pvc"),
        AGE,
        Column("VolumeMode", priority=1, documents=f"{_SPEC}.volumeMode"),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    prepare_status=_prepare_status,
    validate=_validate,
    warnings=_warnings,
    validate_update=_validate_update,
    validate_status=_validate_status,
    status=True,
    fields=selectable_fields(),
)
