"""The `meta.k8s.io/v1` Table: what `kubectl get` prints.

Called by the API server for lists, single objects and watch events. Pure; the time is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache

from controlplane.errors import Object
from controlplane.meta.objects import metadata, name
from controlplane.resources.cells import NAME, OBJECT_META
from controlplane.resources.kind import Column, Kind
from controlplane.schema import definitions

INCLUDE_NONE = "None"
INCLUDE_METADATA = "Metadata"
INCLUDE_OBJECT = "Object"

_DEFAULT_COLUMNS = (
    NAME,
    Column("Created At", type="date", documents=f"{OBJECT_META}.creationTimestamp"),
)


def table(
    kind: Kind,
    objs: Iterable[Object],
    now: datetime,
    include_object: str = INCLUDE_METADATA,
    resource_version: str = "",
    continue_token: str = "",
    remaining: int | None = None,
    *,
    with_columns: bool = True,
) -> Object:
    """The Table of `objs` at `now` (aware).

    `include_object` is the request's `includeObject`: `None`, `Metadata` (also for an empty text) or
    `Object`. `resource_version`, `continue_token` and `remaining` are the list's. `with_columns=False`
    leaves the column definitions out, as in all events of a watch but the first.
    """
    columns = kind.columns or _DEFAULT_COLUMNS
    list_meta: Object = {}
    if resource_version:
        list_meta["resourceVersion"] = resource_version
    if continue_token:
        list_meta["continue"] = continue_token
    if remaining is not None:
        list_meta["remainingItemCount"] = remaining
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": _definitions(columns) if with_columns else None,
        "rows": [_row(kind, obj, now, include_object or INCLUDE_METADATA) for obj in objs],
    }


def partial_metadata(obj: Object) -> Object:
    """The object reduced to its metadata, as `PartialObjectMetadata`."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata(obj)}


@cache
def _definitions(columns: tuple[Column, ...]) -> list[Object]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or _documentation(column.documents),
            "priority": column.priority,
        }
        for column in columns
    ]


def _documentation(documents: str) -> str:
    """What the API's own documentation says of a field; empty for a field it does not have."""
    type_name, _, field = documents.rpartition(".")
    properties = definitions.schemas().get(type_name, {}).get("properties") or {}
    return str((properties.get(field) or {}).get("description", ""))


def _row(kind: Kind, obj: Object, now: datetime, include_object: str) -> Object:
    row: Object = {"cells": list(_cells(kind, obj, now))}
    conditions = kind.row_conditions(obj)
    if conditions:
        row["conditions"] = list(conditions)
    if include_object == INCLUDE_OBJECT:
        row["object"] = obj
    elif include_object == INCLUDE_METADATA:
        row["object"] = partial_metadata(obj)
    else:
        row["object"] = None
    return row


def _cells(kind: Kind, obj: Object, now: datetime) -> Sequence[object]:
    if kind.row is not None:
        return kind.row(obj, now)
    return name(obj), metadata(obj).get("creationTimestamp")
