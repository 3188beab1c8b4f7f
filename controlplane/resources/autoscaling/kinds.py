"""The kinds of `autoscaling`: HorizontalPodAutoscaler, v2 before v1, which is the order of preference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Object
from controlplane.resources.autoscaling.columns import COLUMNS, row
from controlplane.resources.autoscaling.conversion import to_v1, to_v2
from controlplane.resources.autoscaling.defaults import default, default_least
from controlplane.resources.autoscaling.rules import validate, validate_status
from controlplane.resources.kind import Kind
from controlplane.resources.selectable import selectable_fields


def _prepare_create(autoscaler: Object) -> None:
    """Go's zero values: the two counts are no pointers."""
    autoscaler["status"] = {"currentReplicas": 0, "desiredReplicas": 0}


def _default_v1(autoscaler: Object) -> None:
    default_least(autoscaler)


def _row_v1(autoscaler: Object, now: datetime) -> Sequence[object]:
    return row(to_v2(autoscaler), now)


HORIZONTAL_POD_AUTOSCALER = Kind(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    singular="horizontalpodautoscaler",
    namespaced=True,
    short_names=("hpa",),
    categories=("all",),
    columns=COLUMNS,
    row=row,
    default=default,
    prepare_create=_prepare_create,
    validate=validate,
    validate_status=validate_status,
    status=True,
    fields=selectable_fields(),
)

HORIZONTAL_POD_AUTOSCALER_V1 = Kind(
    group="autoscaling",
    version="v1",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    singular="horizontalpodautoscaler",
    namespaced=True,
    short_names=("hpa",),
    categories=("all",),
    columns=COLUMNS,
    row=_row_v1,
    default=_default_v1,
    status=True,
    fields=selectable_fields(),
    hub=("autoscaling", "v2"),
    to_hub=to_v2,
    from_hub=to_v1,
)
