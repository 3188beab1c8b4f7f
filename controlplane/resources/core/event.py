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
from controlplane.resources.cells import NAME, wide
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
        Column("Last Seen", description="The time since the most recent occurrence."),
        Column("Type", description="Normal or Warning."),
        Column("Reason", description="Why it happened, as one word for machines."),
        Column("Object", description="The object this event is about."),
        wide("Subobject", "The part of the object, as a field path."),
        wide("Source", "The component that reported it."),
        Column("Message", description="What happened, for people."),
        wide("First Seen", "The time since it was first recorded."),
        wide("Count", "How often it has occurred.", "integer"),
        Column(NAME.name, format=NAME.format, priority=1, description=NAME.description),
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
