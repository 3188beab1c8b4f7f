"""StatefulSet: defaults, rules, columns (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.apps.rules import (
    REVISION_HISTORY,
    always_and_forever,
    amount,
    at_most_all,
    collisions_only_grow,
    count_or_percent,
    default_workload,
    fill,
    go_pointer,
    selector_matches,
    shown_plainly,
    validate_counts,
    validate_selector,
)
from controlplane.resources.cells import AGE, CONTAINERS, IMAGES, NAME, containers_and_images, number
from controlplane.resources.fieldpath import Literal, not_supported, quoted
from controlplane.resources.kind import Column, Kind, Scale
from controlplane.resources.metadata import validate_annotations
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

_CHANGEABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _default(stateful_set: Object) -> None:
    spec = default_workload(stateful_set)
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    fill(spec, "updateStrategy", {})
    strategy = spec["updateStrategy"]
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        fill(strategy, "rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        fill(strategy["rollingUpdate"], "partition", 0)
    fill(spec, "persistentVolumeClaimRetentionPolicy", {})
    for when in ("whenDeleted", "whenScaled"):
        if not spec["persistentVolumeClaimRetentionPolicy"].get(when):
            spec["persistentVolumeClaimRetentionPolicy"][when] = "Retain"
    fill(spec, "replicas", 1)
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY)
    # Go shows it even when it is empty.
    fill(spec, "serviceName", "")
    for claim in spec.get("volumeClaimTemplates") or ():
        _default_claim(claim)


def _default_claim(claim: Object) -> None:
    """A claim inside a StatefulSet names its type, and shows the status it would be created with."""
    claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
    fill(claim, "metadata", {})
    claim["metadata"].setdefault("creationTimestamp", None)
    fill(claim, "spec", {})
    fill(claim["spec"], "resources", {})
    for amounts in ("limits", "requests"):
        canonical(claim["spec"]["resources"], amounts)
    fill(claim["spec"], "volumeMode", "Filesystem")
    fill(claim, "status", {})
    if not claim["status"].get("phase"):
        claim["status"]["phase"] = "Pending"


def _prepare_create(stateful_set: Object) -> None:
    stateful_set["status"] = {"replicas": 0, "availableReplicas": 0}


def _validate(stateful_set: Object) -> Sequence[Cause]:
    field = Field.root(stateful_set)
    spec = field["spec"]
    policy = spec["podManagementPolicy"]
    if policy.required().present and policy.value not in ("OrderedReady", "Parallel"):
        policy.invalid("must be 'OrderedReady' or 'Parallel'")
    _strategy(spec["updateStrategy"])
    for when in ("whenDeleted", "whenScaled"):
        kept = spec["persistentVolumeClaimRetentionPolicy"][when]
        if kept.value not in ("Retain", "Delete"):
            kept.fail(not_supported(kept.path, kept.value, ["Retain", "Delete"]))
    spec["replicas"].not_negative()
    spec["minReadySeconds"].not_negative()
    spec["ordinals"]["start"].not_negative()
    selector, template = spec["selector"], spec["template"]
    validate_selector(selector, "statefulset")
    selector_matches(selector, template, "")
    _template(template)
    always_and_forever(template, "StatefulSet")
    return field.causes


def _template(template: Field) -> None:
    """Labels and annotations alone, as upstream has it: the volumes of the claim templates are not in the spec."""
    # Upstream leaves `metadata` out of these paths.
    meta = Field(template["metadata"].value, template.path, template.causes)
    meta["labels"].labels()
    validate_annotations(meta["annotations"])


def _strategy(strategy: Field) -> None:
    rolling = strategy["rollingUpdate"]
    match strategy["type"].value:
        case "OnDelete":
            if rolling.value is not None:
                partition = rolling["partition"].value or 0
                most = go_pointer("intstr.IntOrString", rolling["maxUnavailable"].value)
                shown = (
                    f"apps.RollingUpdateStatefulSetStrategy{{Partition:{partition}, MaxUnavailable:{most}}}"
                )
                rolling.of(Literal(shown)).invalid("only allowed for updateStrategy 'RollingUpdate'")
        case "RollingUpdate":
            rolling["partition"].not_negative()
            unavailable = rolling["maxUnavailable"]
            if unavailable.value is not None:
                count_or_percent(unavailable)
                if amount(unavailable.value) == 0:
                    shown_plainly(unavailable).invalid("cannot be 0")
                at_most_all(unavailable)
        case _:
            pointer = go_pointer("apps.RollingUpdateStatefulSetStrategy", rolling.value)
            shown = f"apps.StatefulSetUpdateStrategy{{Type:{quoted(strategy['type'].text)}, RollingUpdate:{pointer}}}"
            strategy.of(Literal(shown)).invalid("must be 'RollingUpdate' or 'OnDelete'")


def _warnings(new: Object, old: Object | None) -> Sequence[str]:
    if ((new.get("spec") or {}).get("revisionHistoryLimit") or 0) >= 0:
        return ()
    return (
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
    )


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    spec = Field.root(new)["spec"]
    before, after = old.get("spec") or {}, spec.value or {}
    fixed = (before.keys() | after.keys()) - set(_CHANGEABLE)
    if not all(same(before.get(field), after.get(field)) for field in fixed):
        spec.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
    return spec.causes


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    status = validate_counts(
        new,
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        ready_text="cannot be greater than status.readyReplicas",
    )
    collisions_only_grow(status, old)
    return status.causes


def _row(stateful_set: Object, now: datetime) -> Sequence[object]:
    spec, status = stateful_set.get("spec") or {}, stateful_set.get("status") or {}
    return (
        name(stateful_set),
        f"{number(status.get('readyReplicas'))}/{number(spec.get('replicas'))}",
        age(stateful_set, now),
        *containers_and_images(spec.get("template")),
    )


STATEFUL_SET = Kind(
    group="apps",
    version="v1",
    kind="StatefulSet",
    plural="statefulsets",
    singular="statefulset",
    namespaced=True,
    short_names=("sts",),
    categories=("all",),
    columns=(
        NAME,
        Column("Ready", description="Number of the pod with ready state"),
        AGE,
        CONTAINERS,
        IMAGES,
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    validate=_validate,
    warnings=_warnings,
    validate_update=_validate_update,
    validate_status=_validate_status,
    validate_name=dns1123_label,
    status=True,
    scale=Scale(),
    generation=True,
    fields=selectable_fields(),
)
