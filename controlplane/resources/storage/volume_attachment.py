"""VolumeAttachment: the wish that a volume be attached to a node (pkg/apis/storage, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_subdomain
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.core.persistent_volume import validate_volume_spec
from controlplane.resources.fieldpath import too_long
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.volume_sources import csi_driver_name
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

_SPEC = "io.k8s.api.storage.v1.VolumeAttachmentSpec"
_METADATA_BYTES = 256 * 1024
_MESSAGE_BYTES = 1024
_ONE_SOURCE = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


def _default(attachment: Object) -> None:
    attachment["spec"] = attachment.get("spec") or {}
    status = attachment["status"] = attachment.get("status") or {}
    status.setdefault("attached", False)


def _prepare_create(attachment: Object) -> None:
    attachment["status"] = {"attached": False}


def _validate(attachment: Object) -> Sequence[Cause]:
    field = Field.root(attachment)
    spec = field["spec"]
    spec["attacher"].required()
    _source(spec["source"])
    for message in dns1123_subdomain(spec["nodeName"].text):
        spec["nodeName"].invalid(message)
    return field.causes


def _source(source: Field) -> None:
    inline, volume = source["inlineVolumeSpec"], source["persistentVolumeName"]
    if inline.value is None and volume.value is None:
        source.of(None).required(_ONE_SOURCE)
    elif inline.value is not None and volume.value is not None:
        source.forbidden(_ONE_SOURCE)
    elif volume.value is not None:
        volume.required("must specify non empty persistentVolumeName")
    else:
        validate_volume_spec(inline, inline=True)


def _validate_create(attachment: Object) -> Sequence[Cause]:
    field = Field.root(attachment)
    csi_driver_name(field["spec"]["attacher"])
    field["spec"]["source"]["persistentVolumeName"].dns_subdomain()
    return field.causes


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["spec"].unchanged(Field.root(old)["spec"])
    return field.causes


def _prepare_status(new: Object, old: Object) -> None:
    new["status"] = {"attached": False, **(new.get("status") or {})}


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    metadata = status["attachmentMetadata"]
    size = sum(len(key.encode()) + len(value.text.encode()) for key, value in metadata.entries())
    if size > _METADATA_BYTES:
        metadata.fail(too_long(metadata.path, _METADATA_BYTES))
    for error in ("attachError", "detachError"):
        message = status[error]["message"]
        if len(message.text.encode()) > _MESSAGE_BYTES:
            message.fail(too_long(message.path, _METADATA_BYTES))
    return field.causes


def _row(attachment: Object, now: datetime) -> Sequence[object]:
    spec = attachment.get("spec") or {}
    return (
        name(attachment),
        spec.get("attacher", ""),
        dig(spec, "source", "persistentVolumeName", default=""),
        spec.get("nodeName", ""),
        bool(dig(attachment, "status", "attached", default=False)),
        age(attachment, now),
    )


VOLUME_ATTACHMENT = Kind(
    group="storage.k8s.io",
    version="v1",
    kind="VolumeAttachment",
    plural="volumeattachments",
    singular="volumeattachment",
    namespaced=False,
    columns=(
        NAME,
        Column("Attacher", format="name", documents=f"{_SPEC}.attacher"),
        Column("PV", documents="io.k8s.api.storage.v1.VolumeAttachmentSource.persistentVolumeName"),
        Column("Node", documents=f"{_SPEC}.nodeName"),
        Column("Attached", type="boolean", documents="io.k8s.api.storage.v1.VolumeAttachmentStatus.attached"),
        AGE,
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_status=_prepare_status,
    validate=_validate,
    validate_create=_validate_create,
    validate_update=_validate_update,
    validate_status=_validate_status,
    status=True,
    status_metadata=(),
    fields=selectable_fields(),
)
