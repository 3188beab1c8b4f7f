"""ServiceAccount: the identity pods run with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.kind import Column, Kind, Subresource
from controlplane.resources.selectable import selectable_fields


def _row(account: Object, now: datetime) -> Sequence[object]:
    return name(account), len(account.get("secrets") or ()), age(account, now)


SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    namespaced=True,
    short_names=("sa",),
    columns=(NAME, Column("Secrets", documents="io.k8s.api.core.v1.ServiceAccount.secrets"), AGE),
    row=_row,
    subresources=(
        Subresource("token", "TokenRequest", ("create",), group="authentication.k8s.io", version="v1"),
    ),
    fields=selectable_fields(),
)
