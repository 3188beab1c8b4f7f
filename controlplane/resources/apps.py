"""The kinds of `apps/v1`: Deployment and ReplicaSet. Their rules are in `apps_rules`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources import apps_rules
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
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.selectable import number as number_at
from controlplane.resources.selectable import selectable_fields

REVISION_HISTORY = 10
PROGRESS_SECONDS = 600
MAX_SURGE = MAX_UNAVAILABLE = "25%"

_SELECTOR = Column("Selector", priority=1, documents="io.k8s.api.apps.v1.DeploymentSpec.selector")


def _default_replicas_and_template(workload: Object) -> Object:
    spec = workload.get("spec")
    if spec is None:
        spec = workload["spec"] = {}
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    if spec.get("template") is None:
        spec["template"] = {}
    default_template(spec["template"])
    if workload.get("status") is None:
        workload["status"] = {}
    found: Object = spec
    return found


def _default_deployment(deployment: Object) -> None:
    spec = _default_replicas_and_template(deployment)
    if spec.get("strategy") is None:
        spec["strategy"] = {}
    strategy = spec["strategy"]
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        if strategy.get("rollingUpdate") is None:
            strategy["rollingUpdate"] = {}
        for field, value in (("maxUnavailable", MAX_UNAVAILABLE), ("maxSurge", MAX_SURGE)):
            if strategy["rollingUpdate"].get(field) is None:
                strategy["rollingUpdate"][field] = value
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = REVISION_HISTORY
    if spec.get("progressDeadlineSeconds") is None:
        spec["progressDeadlineSeconds"] = PROGRESS_SECONDS


def _default_replica_set(replica_set: Object) -> None:
    _default_replicas_and_template(replica_set)


def _clear_status(workload: Object) -> None:
    workload["status"] = {}


def _deployment_row(deployment: Object, now: datetime) -> Sequence[object]:
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


def _replica_set_row(replica_set: Object, now: datetime) -> Sequence[object]:
    status = replica_set.get("status") or {}
    spec = replica_set.get("spec") or {}
    return (
        name(replica_set),
        number(dig(replica_set, "spec", "replicas")),
        number(status.get("replicas")),
        number(status.get("readyReplicas")),
        age(replica_set, now),
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
        Column("Up-to-date", documents="io.k8s.api.apps.v1.DeploymentStatus.updatedReplicas"),
        Column("Available", documents="io.k8s.api.apps.v1.DeploymentStatus.availableReplicas"),
        AGE,
        CONTAINERS,
        IMAGES,
        _SELECTOR,
    ),
    row=_deployment_row,
    default=_default_deployment,
    prepare_create=_clear_status,
    validate=apps_rules.validate_deployment,
    validate_update=apps_rules.validate_update,
    validate_status=apps_rules.validate_deployment_status,
    status=True,
    scale=Scale(),
    generation=True,
    fields=selectable_fields(),
)

REPLICA_SET = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    namespaced=True,
    short_names=("rs",),
    categories=("all",),
    columns=(
        NAME,
        Column("Desired", type="integer", documents="io.k8s.api.apps.v1.ReplicaSetSpec.replicas"),
        Column("Current", type="integer", documents="io.k8s.api.apps.v1.ReplicaSetStatus.replicas"),
        Column("Ready", type="integer", documents="io.k8s.api.apps.v1.ReplicaSetStatus.readyReplicas"),
        AGE,
        CONTAINERS,
        IMAGES,
        _SELECTOR,
    ),
    row=_replica_set_row,
    default=_default_replica_set,
    prepare_create=_clear_status,
    validate=apps_rules.validate_replica_set,
    validate_update=apps_rules.validate_update,
    validate_status=apps_rules.validate_replica_set_status,
    status=True,
    scale=Scale(),
    generation=True,
    fields=selectable_fields(named={"status.replicas": number_at("status", "replicas")}),
)
