"""ResourceQuota: how much of everything the objects of a namespace may use together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import name
from controlplane.meta.quantity import Quantity
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.core.resource_names import (
    POD_COMPUTE,
    is_integer,
    is_quota_standard,
    validate_quota_name,
)
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.rules import IMMUTABLE, Field, same
from controlplane.resources.selectable import selectable_fields

CROSS_NAMESPACE = "CrossNamespacePodAffinity"
PRIORITY_CLASS = "PriorityClass"
_SCOPES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", PRIORITY_CLASS, CROSS_NAMESPACE)
_CONFLICTS = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
_MUST_EXIST = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def _default(quota: Object) -> None:
    if quota.get("spec") is None:
        quota["spec"] = {}
    canonical(quota["spec"], "hard")
    if quota.get("status") is None:
        quota["status"] = {}
    for field in ("hard", "used"):
        canonical(quota["status"], field)


def _prepare_create(quota: Object) -> None:
    quota["status"] = {}


def _validate(quota: Object) -> Sequence[Cause]:
    spec = Field.root(quota)["spec"]
    _amounts(spec["hard"])
    _scopes(spec)
    _selector(spec)
    return spec.causes


def _amounts(amounts: Field) -> None:
    for resource, amount in amounts.entries():
        validate_quota_name(amount.of(resource))
        quantity = amount.quantity()
        if quantity is not None and quantity.milli() % 1000 and is_integer(resource):
            amount.of(str(quantity)).invalid("must be an integer")


def _scopes(spec: Field) -> None:
    scopes, resources = spec["scopes"], spec["hard"].value or {}
    for scope in scopes:
        if scope.value not in _SCOPES:
            scopes.invalid("unsupported scope")
        _scope_fits(scopes, scope.text, resources)
    for first, second in _CONFLICTS:
        if {first, second} <= set(scopes.value or ()):
            scopes.invalid("conflicting scopes")


def _scope_fits(field: Field, scope: str, resources: Object) -> None:
    for resource in sorted(resources):
        if is_quota_standard(resource) and scope in _SCOPES and not _counts(scope, resource):
            field.invalid("unsupported scope applied to resource")


def _counts(scope: str, resource: str) -> bool:
    return resource == "pods" or (scope != "BestEffort" and resource in POD_COMPUTE)


def _selector(spec: Field) -> None:
    expressions, resources = spec["scopeSelector"]["matchExpressions"], spec["hard"].value or {}
    names: set[str] = set()
    for number, requirement in enumerate(expressions):
        # Upstream blames the list for a scope and the item for its operator.
        scope = requirement["scopeName"].text
        item = Field(requirement.value, f"{expressions.path}[{number}]", expressions.causes)
        if scope not in _SCOPES:
            item["scopeName"].invalid("unsupported scope")
        _scope_fits(expressions.of(spec["scopeSelector"].value), scope, resources)
        operator, values = item["operator"], item["values"]
        if scope in _SCOPES and scope != PRIORITY_CLASS and operator.value != "Exists":
            operator.invalid(_MUST_EXIST)
        match operator.value:
            case "In" | "NotIn":
                values.required(
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                )
            case "Exists" | "DoesNotExist":
                if len(values):
                    values.invalid(
                        "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                    )
            case _:
                operator.invalid("not a valid selector operator")
        names.add(scope)
    for first, second in _CONFLICTS:
        if {first, second} <= names:
            expressions.invalid("conflicting scopes")


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    scopes, before = Field.root(new)["spec"]["scopes"], Field.root(old)["spec"]["scopes"]
    if sorted(scopes.value or ()) != sorted(before.value or ()) and not same(scopes.value, before.value):
        scopes.of(scopes.value or []).invalid(IMMUTABLE)
    return scopes.causes


def _prepare_status(new: Object, old: Object) -> None:
    for field in ("hard", "used"):
        canonical(new.setdefault("status", {}), field)


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    if not new["metadata"].get("resourceVersion"):
        field["metadata"]["resourceVersion"].required()
    for amounts in ("hard", "used"):
        _amounts(field["status"][amounts])
    return field.causes


def _row(quota: Object, now: datetime) -> Sequence[object]:
    status = quota.get("status") or {}
    used = status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for resource, hard in sorted((status.get("hard") or {}).items()):
        text = f"{resource}: {used.get(resource, Quantity(0))}/{hard}"
        (limits if resource.startswith("limits.") else requests).append(text)
    return name(quota), age(quota, now), ", ".join(requests), ", ".join(limits)


RESOURCE_QUOTA = Kind(
    group="",
    version="v1",
    kind="ResourceQuota",
    plural="resourcequotas",
    singular="resourcequota",
    namespaced=True,
    short_names=("quota",),
    columns=(
        NAME,
        AGE,
        Column("Request", description="What is used and allowed of requests and counts."),
        Column("Limit", description="What is used and allowed of limits."),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_status=_prepare_status,
    validate=_validate,
    validate_update=_validate_update,
    validate_status=_validate_status,
    status=True,
    fields=selectable_fields(),
)
