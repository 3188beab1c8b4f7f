"""Objects that are valid once their defaults are in, and short forms of what validation says of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.meta.objects import clone
from controlplane.resources.kind import Kind


def said(causes: Iterable[Cause]) -> list[str]:
    """`field: message` of each cause, as a user reads them."""
    return [f"{cause.field}: {cause.message}" for cause in causes]


def defaulted(kind: Kind, obj: Object) -> Object:
    """A copy with the kind's defaults."""
    copy = clone(obj)
    kind.default(copy)
    return copy


def faults(kind: Kind, obj: Object) -> list[str]:
    """What validation says of the object after defaulting."""
    return said(kind.validate(defaulted(kind, obj)))


def update_faults(kind: Kind, new: Object, old: Object) -> list[str]:
    """What the rules for changes say, both objects defaulted and carried over as on a PUT."""
    before, after = defaulted(kind, old), defaulted(kind, new)
    kind.prepare_update(after, before)
    return said(kind.validate_update(after, before))


def container(name: str = "web", **fields: Any) -> Object:
    return {"name": name, "image": "nginx:1.27", **fields}


def pod(name: str = "web", *containers: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def service(*ports: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"ports": list(ports) or [{"port": 80}], "selector": {"app": "web"}, **spec},
    }


def workload(kind: str = "Deployment", **spec: Any) -> Object:
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container()]}},
            **spec,
        },
    }
