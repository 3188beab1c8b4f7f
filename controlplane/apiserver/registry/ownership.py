"""Field owners on the way of a write: who the writer is, the versions of a kind, what admission may do to entries.

Called by creation, updating, applying and rescaling. Which entries a write leads to is `controlplane.meta.managed`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from controlplane.apiserver.registry.requests import Remarks, WriteOptions
from controlplane.errors import Object
from controlplane.meta.managed.entries import parse, same_but_for_time
from controlplane.meta.managed.scaling import SCALE_VERSION
from controlplane.meta.managed.shapes import Shape
from controlplane.meta.managed.tracking import Versions, Writer
from controlplane.meta.timestamps import format_time
from controlplane.resources.kind import FREE_METADATA, Kind
from controlplane.schema import shapes

_INVALID = (
    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating "
    "admission controller; please fix your requests: "
)


@dataclass(frozen=True, slots=True)
class _OneVersion:
    """Implements `Versions` for what is served in one version."""

    api_version: str
    only: Shape

    def shape(self, api_version: str) -> Shape | None:
        return self.only if api_version == self.api_version else None

    def convert(self, obj: Object, api_version: str) -> Object:
        return obj


def versions_of(kind: Kind) -> Versions:
    if kind.versions is not None:
        return kind.versions
    if kind.shape is not None:
        return _OneVersion(kind.api_version, kind.shape)
    return _builtin(kind.api_version, kind.kind)


@cache
def _builtin(api_version: str, kind: str) -> Versions:
    """Kinds without a schema have a shape that is deduced from their values."""
    return _OneVersion(api_version, shapes.builtin(api_version, kind) or shapes.custom(None))


def scale_versions() -> Versions:
    return _builtin(SCALE_VERSION, "Scale")


def writer_of(
    opts: WriteOptions,
    api_version: str,
    subresource: str,
    now: datetime,
    status_metadata: Sequence[str] = (),
) -> Writer:
    """Of a subresource `status` the status and `status_metadata` count, of the object itself all but the status."""
    reset: tuple[tuple[str, ...], ...] = (("f:status",),)
    if subresource == "status":
        kept = [("f:metadata", f"f:{name}") for name in FREE_METADATA if name not in status_metadata]
        reset = (("f:spec",), *(kept if status_metadata else [("f:metadata",)]))
    return Writer(opts.field_manager, api_version, subresource, format_time(now), reset)


def put_entries(metadata: Object, entries: Sequence[Object] | None) -> None:
    if entries:
        metadata["managedFields"] = entries
    else:
        metadata.pop("managedFields", None)


def settle(metadata: Object, entries: Sequence[Object], remarks: Remarks) -> None:
    """After admission: entries it spoilt are put back, with a warning."""
    now: Any = metadata.get("managedFields") or []
    if now is entries or now == entries:
        return
    try:
        parse(now)
    except ValueError as fault:
        remarks.warnings.append(f"{_INVALID}{fault}")
        put_entries(metadata, entries)


def is_unchanged(new: Object, old: Object) -> bool:
    """Whether a write would change nothing but the times of entries."""
    if new == old:
        return True
    now, before = new["metadata"].get("managedFields") or (), old["metadata"].get("managedFields") or ()
    if now is before or not same_but_for_time(now, before):
        return False
    return {**new, "metadata": {**new["metadata"], "managedFields": before}} == old
