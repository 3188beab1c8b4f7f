"""Small kinds for tests of the registry: all its features without the rules of the real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.errors import Cause
from controlplane.resources.kind import Kind, Scale, Subresource


def _default(obj: dict[str, Any]) -> None:
    obj.setdefault("spec", {}).setdefault("colour", "red")


def _validate(obj: dict[str, Any]) -> list[Cause]:
    if obj["spec"].get("size", 0) < 0:
        return [Cause("FieldValueInvalid", "Invalid value: -1: must not be negative", "spec.size")]
    return []


def _validate_update(new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    if new["spec"].get("fixed") != old["spec"].get("fixed"):
        return [Cause("FieldValueInvalid", "Invalid value: field is immutable", "spec.fixed")]
    return []


def _namespace_create(obj: dict[str, Any]) -> None:
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}


def _keep_spec(new: dict[str, Any], old: dict[str, Any]) -> None:
    new["spec"] = old["spec"]


WIDGET = Kind(
    group="test", version="v1", kind="Widget", plural="widgets", singular="widget", namespaced=True,
    default=_default, validate=_validate, validate_update=_validate_update, status=True, scale=Scale(),
    generation=True,
)  # fmt: skip
PLAIN = Kind(
    group="", version="v1", kind="Plain", plural="plains", singular="plain", namespaced=True,
    unconditional_update=False,
)  # fmt: skip
POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    namespaced=True,
    status=True,
    graceful=True,
)
GLOBAL = Kind(
    group="", version="v1", kind="Global", plural="globals", singular="global", namespaced=False,
    create_on_update=True,
)  # fmt: skip
NAMESPACE = Kind(
    group="", version="v1", kind="Namespace", plural="namespaces", singular="namespace", namespaced=False,
    status=True, prepare_create=_namespace_create, prepare_update=_keep_spec,
    subresources=(Subresource("finalize", "Namespace", ("update",)),),
)  # fmt: skip
KINDS = (WIDGET, PLAIN, POD, GLOBAL, NAMESPACE)


def named(name: str, **rest: Any) -> dict[str, Any]:
    """An object with that name; `metadata` in `rest` adds to its metadata."""
    return {**rest, "metadata": {"name": name, **rest.get("metadata", {})}}


class TestClock:
    """A clock that stands still until it is told to go on."""

    __test__ = False

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
