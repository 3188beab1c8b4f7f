"""The kinds of `policy/v1`: PodDisruptionBudget, how many pods of a set may be taken away at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import regex_error
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, number
from controlplane.resources.fieldpath import Literal
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

_PERCENT = "[0-9]+%"
_PERCENT_MESSAGE = regex_error(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, ("1%", "93%")
)
_NO_AMOUNT = "N/A"


def _default(budget: Object) -> None:
    if budget.get("spec") is None:
        budget["spec"] = {}
    if budget.get("status") is None:
        budget["status"] = {}


def _prepare_create(budget: Object) -> None:
    """Go's zero values: the counts are part of the status from the beginning."""
    budget["status"] = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}


def _validate(budget: Object) -> Sequence[Cause]:
    field = Field.root(budget)
    spec = field["spec"]
    least, most = spec["minAvailable"], spec["maxUnavailable"]
    if least.value is not None and most.value is not None:
        spec.invalid("minAvailable and maxUnavailable cannot be both set")
    for amount in (least, most):
        _count_or_percent(amount)
    if spec["selector"].value is not None:
        validate_label_selector(spec["selector"])
    spec["unhealthyPodEvictionPolicy"].one_of("AlwaysAllow", "IfHealthyBudget")
    return field.causes


def _count_or_percent(amount: Field) -> None:
    if isinstance(amount.value, str):
        # Go prints a number-or-text without quotes.
        shown = amount.of(Literal(amount.value))
        if not re.fullmatch(_PERCENT, amount.value):
            shown.invalid(_PERCENT_MESSAGE)
        elif int(amount.value[:-1]) > 100:
            shown.invalid("must not be greater than 100%")
    else:
        amount.not_negative()


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    status = Field.root(new)["status"]
    for condition in status["conditions"]:
        condition["type"].required().qualified_name()
        condition["status"].required().one_of("True", "False", "Unknown")
        condition["reason"].required()
        condition["lastTransitionTime"].required("must be set")
    for count in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status[count].not_negative()
    return status.causes


def _row(budget: Object, now: datetime) -> Sequence[object]:
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    amounts = (spec.get(field) for field in ("minAvailable", "maxUnavailable"))
    return (
        name(budget),
        *(_NO_AMOUNT if amount is None else str(amount) for amount in amounts),
        number(status.get("disruptionsAllowed")),
        age(budget, now),
    )


POD_DISRUPTION_BUDGET = Kind(
    group="policy",
    version="v1",
    kind="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    singular="poddisruptionbudget",
    namespaced=True,
    short_names=("pdb",),
    columns=(
        NAME,
        Column("Min Available", description="The pods that must stay available."),
        Column("Max Unavailable", description="The pods that may be unavailable."),
        Column("Allowed Disruptions", type="integer", description="The pods that may be evicted now."),
        AGE,
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    validate=_validate,
    validate_status=_validate_status,
    status=True,
    generation=True,
    unconditional_update=False,
    fields=selectable_fields(),
)
