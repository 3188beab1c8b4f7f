"""The kinds of `coordination.k8s.io/v1`: Lease, which says who is alive or leads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields


def _validate(lease: Object) -> Sequence[Cause]:
    field = Field.root(lease)
    spec = field["spec"]
    spec["leaseDurationSeconds"].positive()
    spec["leaseTransitions"].not_negative()
    if spec["holderIdentity"].value == "":
        spec["holderIdentity"].invalid("must not be empty")
    if spec["preferredHolder"].present and not spec["strategy"].present:
        spec["preferredHolder"].forbidden("may only be specified if `strategy` is defined")
    return field.causes


def _default(lease: Object) -> None:
    lease.setdefault("spec", {})


def _row(lease: Object, now: datetime) -> Sequence[object]:
    return name(lease), dig(lease, "spec", "holderIdentity", default=""), age(lease, now)


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    namespaced=True,
    columns=(NAME, Column("Holder", documents="io.k8s.api.coordination.v1.LeaseSpec.holderIdentity"), AGE),
    row=_row,
    default=_default,
    validate=_validate,
    create_on_update=True,
    unconditional_update=False,
    fields=selectable_fields(),
)
