"""`events.k8s.io/v1` Event: the stored core/v1 Events in their newer form, with stricter rules for what is written.

Both forms have the same fields, some under other names. Validation follows upstream's `ValidateEventCreate` for this
API, whose faults are told under the names of the core form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_subdomain, qualified_name
from controlplane.meta.objects import dig, namespace
from controlplane.resources import fieldpath
from controlplane.resources.fieldpath import invalid, required
from controlplane.resources.kind import Kind
from controlplane.resources.rules import same
from controlplane.resources.selectable import selectable_fields

CORE, NEWER = "v1", "events.k8s.io/v1"
_NAMES: Mapping[str, str] = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_BACK: Mapping[str, str] = {newer: core for core, newer in _NAMES.items()}
_REGARDING = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_IMMUTABLE = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime",
    "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip
_SHOWN = {"reportingComponent": "reportingController"}


def to_core(event: Object) -> Object:
    """The stored form."""
    renamed = {_BACK.get(key, key): value for key, value in event.items()}
    return {**renamed, "apiVersion": CORE, "kind": "Event"}


def from_core(event: Object) -> Object:
    """The newer form."""
    renamed = {_NAMES.get(key, key): value for key, value in event.items()}
    return {**renamed, "apiVersion": NEWER, "kind": "Event"}


def legacy_causes(event: Object) -> list[Cause]:
    """What every Event must be (core form), whichever API it comes by."""
    causes: list[Cause] = []
    home, involved = namespace(event), dig(event, "involvedObject", "namespace", default="")
    path, text = "involvedObject.namespace", "does not match event.namespace"
    if not event.get("eventTime"):
        if involved != home and (involved or home not in ("", "default")):
            causes.append(invalid(path, involved, text))
    else:
        if not involved and home not in ("default", "kube-system"):
            causes.append(invalid(path, involved, text))
        causes += _new_style(event)
    causes += [invalid("namespace", home, message) for message in dns1123_subdomain(home)]
    return causes


def _new_style(event: Object) -> list[Cause]:
    causes: list[Cause] = []
    controller = event.get("reportingComponent") or ""
    if not controller:
        causes.append(required("reportingController"))
    causes += [invalid("reportingController", controller, message) for message in qualified_name(controller)]
    for name in ("reportingInstance", "action", "reason"):
        value = event.get(name) or ""
        if not value:
            causes.append(required(name))
        if len(value.encode()) > 128:
            causes.append(invalid(name, "", "can have at most 128 characters"))
    if len((event.get("message") or "").encode()) > 1024:
        causes.append(invalid("message", "", "can have at most 1024 characters"))
    return causes


def _validate(event: Object) -> Sequence[Cause]:
    core = to_core(event)
    causes = legacy_causes(core)
    causes += _series(core)
    if not core.get("eventTime"):
        causes.append(required("eventTime"))
    kind = core.get("type") or ""
    if kind not in ("Normal", "Warning"):
        causes.append(invalid("type", "", f"has invalid value: {kind}"))
    for name in ("firstTimestamp", "lastTimestamp", "count"):
        if core.get(name):
            causes.append(invalid(name, "", "needs to be unset"))
    source = core.get("source") or {}
    if source.get("component") or source.get("host"):
        causes.append(invalid("source", "", "needs to be unset"))
    return causes


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    core, before = to_core(new), to_core(old)
    causes = legacy_causes(core)
    if not same(core.get("series"), before.get("series")):
        causes += _series(core)
    for name in _IMMUTABLE:
        if not same(core.get(name), before.get(name)):
            shown = _SHOWN.get(name, name)
            causes.append(
                invalid(shown, fieldpath.Literal(fieldpath.shown(core.get(name))), "field is immutable")
            )
    return causes


def _series(event: Object) -> list[Cause]:
    series = event.get("series")
    if not series:
        return []
    causes = []
    if (series.get("count") or 0) < 2:
        causes.append(invalid("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        causes.append(required("series.lastObservedTime"))
    return causes


EVENTS_EVENT = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    namespaced=True,
    short_names=("ev",),
    hub=("", "v1"),
    to_hub=to_core,
    from_hub=from_core,
    validate=_validate,
    validate_ratcheting=_validate_update,
    fields=selectable_fields(
        *(f"regarding.{name}" for name in _REGARDING), "reason", "reportingController", "type"
    ),
)
