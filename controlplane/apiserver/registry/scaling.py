"""The scale subresource: an object seen as autoscaling/v1 Scale, and a Scale put back into the object. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from controlplane.errors import BadRequest, InternalError, NotFound, Object, invalid
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import clone, dig
from controlplane.resources.fieldpath import invalid as invalid_field
from controlplane.resources.kind import Kind, Scale
from controlplane.store.events import Stored

_SHARED_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(kind: Kind, obj: Object) -> Object:
    """The Scale of an object. Raises NotFound for kinds that have none."""
    places = _places(kind)
    selector: Any = dig(obj, *places.selector) if places.selector else None
    text = ""
    if isinstance(selector, str):
        text = selector
    elif isinstance(selector, dict) and selector:
        is_plain = not {"matchLabels", "matchExpressions"} & selector.keys()
        text = str(LabelSelector.from_map(selector) if is_plain else LabelSelector.from_object(selector))
    replicas = dig(obj, *places.spec_replicas)
    if places.required and (not isinstance(replicas, int) or isinstance(replicas, bool)):
        path = "".join(f".{key}" for key in places.spec_replicas)
        raise InternalError(f'Internal error occurred: the spec replicas field "{path}" does not exist')
    status: Object = {"replicas": dig(obj, *places.status_replicas, default=0)}
    if text:
        status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: obj["metadata"][key] for key in _SHARED_METADATA if key in obj["metadata"]},
        "spec": {"replicas": replicas or 0},
        "status": status,
    }


def scaled(kind: Kind, obj: Object, scale: Object) -> Object:
    """A new object with the Scale's replicas and the Scale's resourceVersion, uid and name. Raises Invalid."""
    places = _places(kind)
    name = str(obj["metadata"]["name"])
    given = scale.get("metadata") or {}
    if given.get("name", name) != name:
        raise BadRequest(
            f"the name of the object ({given['name']}) does not match the name on the URL ({name})"
        )
    replicas = dig(scale, "spec", "replicas", default=0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise BadRequest("spec.replicas must be a whole number")
    if replicas < 0:
        cause = invalid_field("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", name, [cause])
    result = clone(obj)
    holder = result
    for key in places.spec_replicas[:-1]:
        holder = holder.setdefault(key, {})
    holder[places.spec_replicas[-1]] = replicas
    for key in ("resourceVersion", "uid"):
        result["metadata"].pop(key, None)
        if given.get(key):
            result["metadata"][key] = given[key]
    return result


def stored_scale(kind: Kind, stored: Stored) -> Stored:
    scale = scale_of(kind, stored.object)
    return Stored(scale, orjson.dumps(scale), stored.revision)


def _places(kind: Kind) -> Scale:
    if kind.scale is None:
        raise NotFound("the server could not find the requested resource", group=kind.group, kind=kind.plural)
    return kind.scale
