"""LimitRange: bounds and defaults for the resources of single containers, pods and claims of a namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import qualified_name
from controlplane.meta.objects import metadata, name
from controlplane.meta.quantity import Quantity
from controlplane.resources.cells import NAME
from controlplane.resources.core.resource_names import may_overcommit, validate_container_name, validate_name
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_AMOUNTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def _default(limit_range: Object) -> None:
    if limit_range.get("spec") is None:
        limit_range["spec"] = {}
    for limit in limit_range["spec"].get("limits") or ():
        if limit.get("type") == "Container":
            _default_container(limit)
        for amounts in _AMOUNTS:
            canonical(limit, amounts)


def _default_container(limit: Object) -> None:
    """What is not said follows: the limit from the maximum, the request from the limit or the minimum."""
    limits = {**(limit.get("max") or {}), **(limit.get("default") or {})}
    requests = {**(limit.get("min") or {}), **limits, **(limit.get("defaultRequest") or {})}
    if limits:
        limit["default"] = limits
    if requests:
        limit["defaultRequest"] = requests


def _validate(limit_range: Object) -> Sequence[Cause]:
    limits = Field.root(limit_range)["spec"]["limits"]
    seen: set[str] = set()
    for limit in limits:
        kind = limit["type"]
        _type_name(kind)
        if kind.text in seen:
            kind.duplicate()
        seen.add(kind.text)
        _names(limit)
        if kind.value == "PersistentVolumeClaim" and not any(
            "storage" in (limit[bound].value or {}) for bound in ("min", "max")
        ):
            limit["limits"].required(
                "either minimum or maximum storage value is required, but neither was provided"
            )
        _relations(limit)
    return limits.causes


def _type_name(kind: Field) -> None:
    if not kind.present:
        kind.of("").invalid("must be a standard limit type or fully qualified")
        return
    messages = qualified_name(kind.text)
    for message in messages:
        kind.invalid(message)
    if not messages and "/" not in kind.text and kind.value not in _TYPES:
        kind.invalid("must be a standard limit type or fully qualified")


def _names(limit: Field) -> None:
    check: Callable[[Field], None] = validate_name
    if limit["type"].value in ("Pod", "Container"):
        check = validate_container_name
    for amounts in ("max", "min"):
        _check_names(limit[amounts], check)
    for amounts in ("default", "defaultRequest"):
        if limit["type"].value == "Pod":
            if limit[amounts].value:
                limit[amounts].forbidden("may not be specified when `type` is 'Pod'")
        else:
            _check_names(limit[amounts], check)
    _check_names(limit["maxLimitRequestRatio"], check)


def _check_names(amounts: Field, check: Callable[[Field], None]) -> None:
    for resource, amount in amounts.entries():
        check(amount.of(resource))
        try:
            Quantity.parse(str(amount.value))
        except ValueError as error:
            amount.invalid(str(error))


def _relations(limit: Field) -> None:
    amounts = {field: _parsed(limit[field].value) for field in _AMOUNTS}
    for resource in sorted({resource for listed in amounts.values() for resource in listed}):
        _relations_of(limit, resource, {field: listed.get(resource) for field, listed in amounts.items()})


def _relations_of(limit: Field, resource: str, amount: dict[str, Quantity | None]) -> None:
    least, most = amount["min"], amount["max"]
    request, default, ratio = amount["defaultRequest"], amount["default"], amount["maxLimitRequestRatio"]

    def blame(field: str, value: Quantity, text: str) -> None:
        place = limit[field]
        Field(str(value), f"{place.path}[{resource}]", place.causes).invalid(text)

    def ordered(low: Quantity | None, high: Quantity | None, blamed: str, text: str) -> None:
        if low is not None and high is not None and low > high:
            value = amount[blamed]
            assert value is not None
            blame(blamed, value, text.format(low, high))

    ordered(least, most, "min", "min value {} is greater than max value {}")
    ordered(least, request, "defaultRequest", "min value {} is greater than default request value {}")
    ordered(request, most, "defaultRequest", "default request value {} is greater than max value {}")
    ordered(
        request, default, "defaultRequest", "default request value {} is greater than default limit value {}"
    )
    ordered(least, default, "default", "min value {} is greater than default value {}")
    ordered(default, most, "default", "default value {} is greater than max value {}")
    if ratio is not None and ratio < Quantity.of(1):
        blame("maxLimitRequestRatio", ratio, f"ratio {ratio} is less than 1")
    if ratio is not None and least and most is not None:
        widest = most.nanos / least.nanos
        if ratio.nanos / 10**9 > widest:
            blame("maxLimitRequestRatio", ratio, f"ratio {ratio} is greater than max/min = {widest:.6f}")
    if default is not None and request is not None and default != request and not may_overcommit(resource):
        blame("defaultRequest", request, "default value and defaultRequest value must be equal")


def _parsed(amounts: Object | None) -> dict[str, Quantity]:
    found = {}
    for resource, text in (amounts or {}).items():
        try:
            found[resource] = Quantity.parse(str(text))
        except ValueError:
            continue
    return found


def _row(limit_range: Object, now: datetime) -> Sequence[object]:
    return name(limit_range), metadata(limit_range).get("creationTimestamp")


LIMIT_RANGE = Kind(
    group="",
    version="v1",
    kind="LimitRange",
    plural="limitranges",
    singular="limitrange",
    namespaced=True,
    short_names=("limits",),
    columns=(NAME, Column("Created At", description="When the server created this object.")),
    row=_row,
    default=_default,
    validate=_validate,
    fields=selectable_fields(),
)
