"""PriorityLevelConfiguration: how many requests of a level run at once, and how the others wait
(pkg/apis/flowcontrol, v1.32).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE
from controlplane.resources.flowcontrol.defaults import LEVEL_SPECS, MANDATORY
from controlplane.resources.flowcontrol.flow_schema import validate_conditions
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

_SHARES_DEFAULT = 30
_QUEUING_DEFAULT = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_QUEUES_MAX = 10_000_000
_HASH_BITS_MAX = 60
_DOCUMENTS = "io.k8s.api.flowcontrol.v1"


def _default(level: Object) -> None:
    spec = level["spec"] = level.get("spec") or {}
    level["status"] = level.get("status") or {}
    if spec.get("type") == "Exempt":
        exempt = spec["exempt"] = spec.get("exempt") or {}
        for field in ("nominalConcurrencyShares", "lendablePercent"):
            if exempt.get(field) is None:
                exempt[field] = 0
    limited = spec.get("limited")
    if limited is None:
        return
    if limited.get("nominalConcurrencyShares") is None:
        limited["nominalConcurrencyShares"] = _SHARES_DEFAULT
    if limited.get("lendablePercent") is None:
        limited["lendablePercent"] = 0
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        for field, value in _QUEUING_DEFAULT.items():
            if not queuing.get(field):
                queuing[field] = value


def _validate(level: Object) -> Sequence[Cause]:
    field = Field.root(level)
    own = name(level)
    spec = field["spec"]
    type_, limited, exempt = spec["type"], spec["limited"], spec["exempt"]
    if (own == "exempt") != (type_.value == "Exempt"):
        type_.of(type_.text).invalid("type must be 'Exempt' if and only if name is 'exempt'")
    # What the exempt level lends is the one thing of a mandatory level that may be set.
    may_lend = own == "exempt" and type_.value == "Exempt"
    if own in MANDATORY and not may_lend and not same(spec.value, LEVEL_SPECS[own]):
        spec.invalid(f"spec of '{own}' must equal the fixed value")
    if type_.value == "Exempt":
        if limited.value is not None:
            limited.forbidden("must be nil if the type is not Limited")
        if exempt.value is not None:
            _exempt(exempt)
    elif type_.value == "Limited":
        if exempt.value is not None:
            exempt.forbidden("must be nil if the type is Limited")
        if limited.value is None:
            limited.required("must not be empty when type is Limited")
        else:
            _limited(limited)
    else:
        type_.of(type_.value or " ").one_of("Exempt", "Limited")
    return field.causes


def _exempt(exempt: Field) -> None:
    shares = exempt["nominalConcurrencyShares"]
    if isinstance(shares.value, int) and shares.value < 0:
        shares.invalid("must be a non-negative integer")
    exempt["lendablePercent"].between(0, 100)


def _limited(limited: Field) -> None:
    shares = limited["nominalConcurrencyShares"]
    if (shares.value or 0) < 0:
        shares.invalid("must be a non-negative integer")
    response = limited["limitResponse"]
    queuing = response["queuing"]
    if response["type"].value == "Reject":
        if queuing.value is not None:
            queuing.forbidden("must be nil if limited.limitResponse.type is not Limited")
    elif response["type"].value == "Queue":
        if queuing.value is None:
            queuing.required("must not be empty if limited.limitResponse.type is Limited")
        else:
            _queuing(queuing)
    else:
        response["type"].of(response["type"].value or " ").one_of("Queue", "Reject")
    limited["lendablePercent"].between(0, 100)
    borrowing = limited["borrowingLimitPercent"]
    if isinstance(borrowing.value, int) and borrowing.value < 0:
        borrowing.invalid("if specified, must be a non-negative integer")


def _queuing(queuing: Field) -> None:
    for part in ("queueLengthLimit", "queues"):
        if (queuing[part].value or 0) <= 0:
            queuing[part].of(queuing[part].value or 0).invalid("must be positive")
    queues, hand = queuing["queues"].value or 0, queuing["handSize"].value or 0
    if queues > _QUEUES_MAX:
        queuing["queues"].invalid(f"must not be greater than {_QUEUES_MAX}")
    place = queuing["handSize"].of(hand)
    if hand <= 0:
        place.invalid("must be positive")
    elif hand > queues:
        place.invalid(f"should not be greater than queues ({queues})")
    elif _entropy_bits(queues, hand) > _HASH_BITS_MAX:
        place.invalid(
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than "
            f"{_HASH_BITS_MAX}"
        )


def _entropy_bits(queues: int, hand: int) -> int:
    """Bits of a hash needed to deal a hand. A big hand needs more than there are at once, so it need not be exact."""
    hand = min(hand, _HASH_BITS_MAX + 1)
    return math.ceil(sum(math.log2(queues - dealt) for dealt in range(hand)))


def _row(level: Object, now: datetime) -> Sequence[object]:
    spec = level.get("spec") or {}
    limited = spec.get("limited") or {}
    queuing = dig(limited, "limitResponse", "queuing") or {}
    shares = limited.get("nominalConcurrencyShares", NONE)
    return (
        name(level),
        spec.get("type", ""),
        shares,
        queuing.get("queues", NONE),
        queuing.get("handSize", NONE),
        queuing.get("queueLengthLimit", NONE),
        age(level, now),
    )


PRIORITY_LEVEL = Kind(
    group="flowcontrol.apiserver.k8s.io",
    version="v1",
    kind="PriorityLevelConfiguration",
    plural="prioritylevelconfigurations",
    singular="prioritylevelconfiguration",
    namespaced=False,
    columns=(
        NAME,
        Column("Type", documents=f"{_DOCUMENTS}.PriorityLevelConfigurationSpec.type"),
        Column(
            "NominalConcurrencyShares",
            documents=f"{_DOCUMENTS}.LimitedPriorityLevelConfiguration.nominalConcurrencyShares",
        ),
        Column("Queues", documents=f"{_DOCUMENTS}.QueuingConfiguration.queues"),
        Column("HandSize", documents=f"{_DOCUMENTS}.QueuingConfiguration.handSize"),
        Column("QueueLengthLimit", documents=f"{_DOCUMENTS}.QueuingConfiguration.queueLengthLimit"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_status=validate_conditions,
    status=True,
    status_metadata=(),
    generation=True,
    fields=selectable_fields(),
)
