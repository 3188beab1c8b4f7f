"""Event in its core/v1 form: what happened to an object, told by a component.

`events.k8s.io/v1` is another form of the same stored objects (KEP-383, `resources/events.py`). Fields that only the
newer form writes (`eventTime`, `series`, `reportingController`) are read here, so both forms print alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import UNKNOWN, since
from controlplane.resources.cells import NAME
from controlplane.resources.events import legacy_causes
from controlplane.resources.kind import Column, Kind
from controlplane.resources.selectable import selectable_fields

_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _default(event: Object) -> None:
    """Go prints these even when they are unset."""
    for key, empty in (
        ("involvedObject", {}),
        ("source", {}),
        ("firstTimestamp", None),
        ("lastTimestamp", None),
        ("eventTime", None),
        ("reportingComponent", ""),
        ("reportingInstance", ""),
    ):
        event.setdefault(key, empty)


def _validate(event: Object) -> Sequence[Cause]:
    return legacy_causes(event)


def _row(event: Object, now: datetime) -> Sequence[object]:
    first = since(event.get("firstTimestamp") or event.get("eventTime"), now)
    last = since(event.get("lastTimestamp"), now) if event.get("lastTimestamp") else first
    count = event.get("count") or 1
    series = event.get("series")
    if series:
        last = since(series.get("lastObservedTime"), now)
        count = series.get("count") or 0
    return (
        last,
        event.get("type", ""),
        event.get("reason", ""),
        _target(event.get("involvedObject") or {}),
        dig(event, "involvedObject", "fieldPath", default=""),
        _source(event),
        str(event.get("message", "")).strip(),
        first or UNKNOWN,
        count,
        name(event),
    )


def _target(involved: Object) -> str:
    kind = str(involved.get("kind", "")).lower()
    return f"{kind}/{involved['name']}" if involved.get("name") else kind


def _source(event: Object) -> str:
    """`kubelet, node-1`: the component and where it runs."""
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or (event.get("reportingInstance") or "" if not source.get("component") else "")
    return f"{component}, {host}" if host else component


def _component(event: Object) -> str:
    return str(dig(event, "source", "component", default="") or event.get("reportingComponent") or "")


EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    namespaced=True,
    short_names=("ev",),
    columns=(
        Column("Last Seen", documents="io.k8s.api.core.v1.Event.lastTimestamp"),
        Column("Type", documents="io.k8s.api.core.v1.Event.type"),
        Column("Reason", documents="io.k8s.api.core.v1.Event.reason"),
        Column("Object", documents="io.k8s.api.core.v1.Event.involvedObject"),
        Column("Subobject", priority=1, documents="io.k8s.api.core.v1.ObjectReference.fieldPath"),
        Column("Source", priority=1, documents="io.k8s.api.core.v1.Event.source"),
        Column("Message", documents="io.k8s.api.core.v1.Event.message"),
        Column("First Seen", priority=1, documents="io.k8s.api.core.v1.Event.firstTimestamp"),
        Column("Count", priority=1, documents="io.k8s.api.core.v1.Event.count"),
        Column(NAME.name, format=NAME.format, priority=1, documents=NAME.documents),
    ),
    row=_row,
    default=_default,
    validate=_validate,
    create_on_update=True,
    fields=selectable_fields(
        *(f"involvedObject.{field}" for field in _INVOLVED),
        "reason",
        "reportingComponent",
        "type",
        named={"source": _component},
    ),
)
