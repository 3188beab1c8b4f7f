"""PersistentVolume: a piece of storage of the cluster (pkg/apis/core, v1.32)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age, now
from controlplane.resources.cells import AGE, NAME, UNSET, joined
from controlplane.resources.fieldpath import Literal, not_supported
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.claims import VOLUME_MODES, access_modes, positive_quantity
from controlplane.resources.podspec.defaults import default_sources
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.podspec.scheduling import validate_node_selector
from controlplane.resources.podspec.update import differences
from controlplane.resources.podspec.volume_sources import PERSISTENT_SOURCES
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

BETA_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
_SHORT_MODES = (
    ("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP"),
)  # fmt: skip
_DOCUMENTS = "io.k8s.api.core.v1.PersistentVolumeSpec"
_DEPRECATED_SOURCES = {
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
}
_PHASES = ("Available", "Bound", "Failed", "Pending", "Released")


def _default(volume: Object) -> None:
    spec = volume["spec"] = volume.get("spec") or {}
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    canonical(spec, "capacity")
    default_sources(spec)
    status = volume["status"] = volume.get("status") or {}
    if not status.get("phase"):
        status["phase"] = "Pending"


def _prepare_create(volume: Object) -> None:
    volume["status"] = {"phase": "Pending", "lastPhaseTransitionTime": now()}


def _prepare_status(new: Object, old: Object) -> None:
    """The time of the last change of the phase is the server's to tell."""
    status = new["status"] = {**(new.get("status") or {})}
    before = old.get("status") or {}
    if not status.get("phase"):
        status["phase"] = "Pending"
    if status["phase"] != before.get("phase"):
        if status.get("lastPhaseTransitionTime") in (None, before.get("lastPhaseTransitionTime")):
            status["lastPhaseTransitionTime"] = now()
    elif status.get("lastPhaseTransitionTime") is None and before.get("lastPhaseTransitionTime"):
        status["lastPhaseTransitionTime"] = before["lastPhaseTransitionTime"]


def _validate(volume: Object) -> Sequence[Cause]:
    field = Field.root(volume)
    validate_volume_spec(field["spec"])
    return field.causes


def validate_volume_spec(spec: Field, *, inline: bool = False) -> None:
    """`inline`: as part of a VolumeAttachment."""
    if inline:
        _only_inline(spec)
    access_modes(spec["accessModes"])
    if not inline:
        _capacity(spec["capacity"])
        spec["persistentVolumeReclaimPolicy"].one_of(*RECLAIM_POLICIES)
    affinity = spec["nodeAffinity"]
    if affinity.value is not None and not inline:
        _node_affinity(affinity)
    _source(spec)
    path = spec["hostPath"]["path"]
    if (
        path.present
        and posixpath.normpath(path.text) == "/"
        and spec["persistentVolumeReclaimPolicy"].value == "Recycle"
    ):
        spec["persistentVolumeReclaimPolicy"].forbidden("may not be 'recycle' for a hostPath mount of '/'")
    if not inline:
        spec["storageClassName"].dns_subdomain()
        spec["volumeMode"].one_of(*VOLUME_MODES)
        spec["volumeAttributesClassName"].dns_subdomain()


def _only_inline(spec: Field) -> None:
    for name_ in ("claimRef", "capacity"):
        spec[name_].absent("may not be specified in the context of inline volumes")
    if spec["csi"].value is None:
        spec["csi"].required("has to be specified in the context of inline volumes")
    policy, mode = spec["persistentVolumeReclaimPolicy"], spec["volumeMode"]
    if policy.present and policy.value != "Retain":
        policy.forbidden("may only be Retain in the context of inline volumes")
    for name_ in ("nodeAffinity", "storageClassName"):
        spec[name_].absent("may not be specified in the context of inline volumes")
    if mode.present and mode.value != "Filesystem":
        mode.forbidden("may not specify volumeMode other than Filesystem in the context of inline volumes")


def _capacity(capacity: Field) -> None:
    capacity.required()
    value = capacity.value or {}
    if set(value) != {"storage"}:
        nothing = Literal("core.ResourceList(nil)" if capacity.value is None else "core.ResourceList{}")
        capacity.fail(not_supported(capacity.path, value or nothing, ["storage"]))
    for _, amount in capacity.entries():
        positive_quantity(amount)


def _node_affinity(affinity: Field) -> None:
    required = affinity["required"]
    if required.value is None:
        required.required("must specify required node constraints")
    else:
        validate_node_selector(required)


def _source(spec: Field) -> None:
    given = [source for source in PERSISTENT_SOURCES if spec[source].value is not None]
    for position, source in enumerate(given):
        if position:
            spec[source].forbidden("may not specify more than 1 volume type")
            continue
        place = spec[source]
        if source == "gcePersistentDisk":
            place = Field(place.value, f"{spec.path}.persistentDisk", spec.causes)
        PERSISTENT_SOURCES[source](place)
        if source == "local" and not spec["nodeAffinity"].value:
            spec["nodeAffinity"].required("Local volume requires node affinity")
    if not given:
        spec.of(None).required("must specify a volume type")


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    sources_after, sources_before = _sources(after), _sources(before)
    csi_after, csi_before = sources_after.get("csi"), sources_before.get("csi")
    if csi_after and csi_before and not csi_before.get("controllerExpandSecretRef"):
        kept = {key: value for key, value in csi_after.items() if key != "controllerExpandSecretRef"}
        sources_after = {**sources_after, "csi": kept}
    if not same(sources_after, sources_before):
        listed = "\n".join(differences(sources_before, sources_after, "spec"))
        Field(None, "spec.persistentvolumesource", field.causes).forbidden(
            f"spec.persistentvolumesource is immutable after creation\n{listed}"
        )
    Field(after.get("volumeMode"), "volumeMode", field.causes).unchanged(Field.root(before)["volumeMode"])
    if before.get("nodeAffinity"):
        place = Field(after.get("nodeAffinity"), "nodeAffinity", field.causes)
        place.unchanged(Field.root(before)["nodeAffinity"])
    return field.causes


def _sources(spec: Object) -> Object:
    return {source: spec[source] for source in PERSISTENT_SOURCES if spec.get(source) is not None}


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["status"]["phase"].one_of(*_PHASES)
    return field.causes


def class_annotation_warnings(obj: Object) -> list[str]:
    """Of volumes and claims."""
    if BETA_CLASS_ANNOTATION not in dig(obj, "metadata", "annotations", default={}):
        return []
    place = f"metadata.annotations[{BETA_CLASS_ANNOTATION}]"
    return [f'{place}: deprecated since v1.8; use "storageClassName" attribute instead']


def _warnings(new: Object, old: Object | None) -> Sequence[str]:
    spec = new.get("spec") or {}
    found = class_annotation_warnings(new)
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        found.append(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
            "approach is to use dynamic provisioning."
        )
    found += [f"spec.{source}: {text}" for source, text in _DEPRECATED_SOURCES.items() if spec.get(source)]
    return found


def short_modes(modes: Iterable[str] | None) -> str:
    """`RWO,ROX`."""
    found = set(modes or ())
    return joined(short for mode, short in _SHORT_MODES if mode in found)


def storage_class(obj: Object) -> str:
    """The class of a volume or claim, by the old annotation or the field."""
    return (
        dig(obj, "metadata", "annotations", default={}).get(BETA_CLASS_ANNOTATION)
        or dig(obj, "spec", "storageClassName")
        or ""
    )


def phase(obj: Object) -> str:
    if dig(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    return str(dig(obj, "status", "phase", default=""))


def _row(volume: Object, moment: datetime) -> Sequence[object]:
    spec = volume.get("spec") or {}
    claim = spec.get("claimRef")
    return (
        name(volume),
        str(dig(spec, "capacity", "storage", default="0")),
        short_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase(volume),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        storage_class(volume),
        UNSET if spec.get("volumeAttributesClassName") is None else spec["volumeAttributesClassName"],
        dig(volume, "status", "reason", default=""),
        age(volume, moment),
        UNSET if spec.get("volumeMode") is None else spec["volumeMode"],
    )


PERSISTENT_VOLUME = Kind(
    group="",
    version="v1",
    kind="PersistentVolume",
    plural="persistentvolumes",
    singular="persistentvolume",
    namespaced=False,
    short_names=("pv",),
    columns=(
        NAME,
        Column("Capacity", documents=f"{_DOCUMENTS}.capacity"),
        Column("Access Modes", documents=f"{_DOCUMENTS}.accessModes"),
        Column("Reclaim Policy", documents=f"{_DOCUMENTS}.persistentVolumeReclaimPolicy"),
        Column("Status", documents="io.k8s.api.core.v1.PersistentVolumeStatus.phase"),
        Column("Claim", documents=f"{_DOCUMENTS}.claimRef"),
        Column("StorageClass", description="StorageClass of the pv"),
        Column("VolumeAttributesClass", description="VolumeAttributesClass of the pv"),
        Column("Reason", documents="io.k8s.api.core.v1.PersistentVolumeStatus.reason"),
        AGE,
        Column("VolumeMode", priority=1, documents=f"{_DOCUMENTS}.volumeMode"),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_status=_prepare_status,
    validate=_validate,
    warnings=_warnings,
    validate_update=_validate_update,
    validate_status=_validate_status,
    status=True,
    fields=selectable_fields(),
)
