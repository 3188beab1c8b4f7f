"""Deployment: defaults, rules, columns (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.apps.replica_set import validate_replicas_selector_template
from controlplane.resources.apps.rules import (
    REVISION_HISTORY,
    amount,
    at_most_all,
    collisions_only_grow,
    count_or_percent,
    default_workload,
    fill,
    go_pointer,
    name_warnings,
    selector_column,
    selector_unchanged,
    shown_plainly,
    validate_counts,
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
from controlplane.resources.fieldpath import Literal, not_supported, quoted
from controlplane.resources.kind import Column, Kind, Scale
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

PROGRESS_SECONDS = 600
MAX_SURGE = MAX_UNAVAILABLE = "25%"

_API = "io.k8s.api.apps.v1"


def _default(deployment: Object) -> None:
    spec = default_workload(deployment)
    fill(spec, "replicas", 1)
    fill(spec, "strategy", {})
    strategy = spec["strategy"]
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        fill(strategy, "rollingUpdate", {})
        fill(strategy["rollingUpdate"], "maxUnavailable", MAX_UNAVAILABLE)
        fill(strategy["rollingUpdate"], "maxSurge", MAX_SURGE)
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY)
    fill(spec, "progressDeadlineSeconds", PROGRESS_SECONDS)


def _clear_status(deployment: Object) -> None:
    deployment["status"] = {}


def _validate(deployment: Object) -> Sequence[Cause]:
    field = Field.root(deployment)
    spec = field["spec"]
    validate_replicas_selector_template(spec)
    _strategy(spec["strategy"])
    spec["revisionHistoryLimit"].not_negative()
    deadline = spec["progressDeadlineSeconds"].not_negative()
    if isinstance(deadline.value, int) and deadline.value <= (spec["minReadySeconds"].value or 0):
        deadline.invalid("must be greater than minReadySeconds")
    return field.causes


def _strategy(strategy: Field) -> None:
    rolling = strategy["rollingUpdate"]
    match strategy["type"].value:
        case "Recreate":
            if rolling.value is not None:
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'")
        case "RollingUpdate":
            unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]
            count_or_percent(unavailable)
            count_or_percent(surge)
            if amount(unavailable.value) == 0 and amount(surge.value) == 0:
                shown_plainly(unavailable).invalid("may not be 0 when `maxSurge` is 0")
            at_most_all(unavailable)
        case _:
            pointer = go_pointer("apps.RollingUpdateDeployment", rolling.value)
            shown = Literal(
                f"apps.DeploymentStrategy{{Type:{quoted(strategy['type'].text)}, RollingUpdate:{pointer}}}"
            )
            strategy.fail(not_supported(strategy.path, shown, ["Recreate", "RollingUpdate"]))


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    status = validate_counts(new, "updatedReplicas", "readyReplicas", "availableReplicas")
    status["unavailableReplicas"].not_negative()
    collisions_only_grow(status, old)
    return status.causes


def _row(deployment: Object, now: datetime) -> Sequence[object]:
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    return (
        name(deployment),
        f"{number(status.get('readyReplicas'))}/{number(spec.get('replicas'))}",
        number(status.get("updatedReplicas")),
        number(status.get("availableReplicas")),
        age(deployment, now),
        *containers_and_images(spec.get("template")),
        format_selector(spec.get("selector")),
    )


DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    namespaced=True,
    short_names=("deploy",),
    categories=("all",),
    columns=(
        NAME,
        Column("Ready", description="Number of the pod with ready state"),
        Column("Up-to-date", type="integer", documents=f"{_API}.DeploymentStatus.updatedReplicas"),
        Column("Available", type="integer", documents=f"{_API}.DeploymentStatus.availableReplicas"),
        AGE,
        CONTAINERS,
        IMAGES,
        selector_column(f"{_API}.DeploymentSpec"),
    ),
    row=_row,
    default=_default,
    prepare_create=_clear_status,
    validate=_validate,
    warnings=name_warnings,
    validate_update=selector_unchanged,
    validate_status=_validate_status,
    status=True,
    status_metadata=("annotations", "finalizers", "ownerReferences"),
    scale=Scale(),
    generation=True,
    fields=selectable_fields(),
)
