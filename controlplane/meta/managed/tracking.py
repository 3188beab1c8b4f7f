"""What a create, an update or a patch does to the owners: the writer owns what it changed, and nobody else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.errors import Object
from controlplane.meta.managed.compare import compare, created
from controlplane.meta.managed.entries import (
    UPDATE,
    Identity,
    Owner,
    Owners,
    capped,
    entry_of,
    is_reset,
    parse,
    read,
    write,
)
from controlplane.meta.managed.reconcile import reconciled
from controlplane.meta.managed.sets import SELF, FieldSet, difference, union, without
from controlplane.meta.managed.shapes import Shape

UNTRACKED = frozenset(
    {
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    }
)  # fmt: skip
"""Fields of metadata that nobody owns; nor `metadata` itself, apiVersion and kind."""


class Versions(Protocol):
    """The versions a kind is served in."""

    def shape(self, api_version: str) -> Shape | None:
        """The type in that version; None when it is not served."""

    def convert(self, obj: Object, api_version: str) -> Object:
        """`obj`, of whatever version, in that version. Called only for versions that have a shape."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: `time` is the present as on the wire. `reset` are the paths of what this write cannot change."""

    manager: str
    api_version: str
    subresource: str
    time: str
    reset: tuple[tuple[str, ...], ...] = ()

    def identity(self, operation: str) -> Identity:
        version = self.api_version if operation == UPDATE else ""
        return self.manager or "unknown", operation, version, self.subresource


def tracked(
    versions: Versions, old: Object | None, new: Object, claimed: Any, writer: Writer
) -> list[Object]:
    """The entries of `new`, an object of the writer's version that is to replace `old` (None: it is new).

    `claimed` are the entries the client sent, None for none: it may edit them, and empty them to forget ownership.
    What it sends through a subresource or what is malformed is ignored.
    """
    before: list[Object] = (old or {}).get("metadata", {}).get("managedFields") or []
    owners: dict[Identity, Owner] | None = None
    if claimed is not None and not writer.subresource and claimed != before:
        if is_reset(claimed):
            owners = {}
        else:
            try:
                owners = parse(claimed) or None
            except ValueError:
                owners = None
    stated = owners is not None
    if owners is None:
        owners = read(before)
    if old is not None and not owners:
        return []
    if old is None and not owners:
        return _first(versions, new, writer)
    after = update(versions, old, new, owners, writer)
    if after is owners and not stated:
        return before
    return write(capped(dict(after)))


def _first(versions: Versions, new: Object, writer: Writer) -> list[Object]:
    """The one entry of a new object: of most of it the set is known, with its order, from objects like it."""
    shape = versions.shape(writer.api_version)
    if shape is None:
        return []
    fields = stripped(created(shape, _comparable(new)))
    for path in writer.reset:
        fields = without(fields, path)
    return [entry_of(Owner(*writer.identity(UPDATE), fields, writer.time), fields)] if fields else []


def update(versions: Versions, old: Object | None, new: Object, owners: Owners, writer: Writer) -> Owners:
    """The owners after the write; the same mapping when nobody's fields change."""
    shape = versions.shape(writer.api_version)
    if shape is None:
        return owners
    before = owners
    if shape.may_change and owners:
        owners = reconciled(shape, writer.api_version, owners)
    base: Object = old if old is not None else {**shape.always}
    changed, removed = changes(shape, base, new, writer.reset)
    if not changed and not removed:
        return before if all(owners[identity] is before[identity] for identity in before) else owners
    known = {writer.api_version: (changed, removed)}
    left = taken_from(versions, old, new, owners, known, writer)
    if changed:
        identity = writer.identity(UPDATE)
        own = left.get(identity)
        fields = changed if own is None else union(changed, own.fields)
        left[identity] = Owner(*identity, fields, writer.time, wire=None if own is None else own.wire)
    return left


Changes = Mapping[str, tuple[FieldSet, FieldSet]]


def taken_from(
    versions: Versions,
    old: Object | None,
    new: Object,
    owners: Owners,
    known: Changes,
    writer: Writer,
    but: Identity | None = None,
) -> dict[Identity, Owner]:
    """The owners without what changed and what went away, but for the owner `but`.

    Those who are left with nothing are dropped, and those of versions that are no longer served. `known` are changes
    in terms of some versions already; those in terms of others come from converting.
    """
    by_version = dict(known)
    left: dict[Identity, Owner] = {}
    for identity, owner in owners.items():
        if identity == but:
            left[identity] = owner
            continue
        found = by_version.get(owner.api_version)
        if found is None:
            shape = versions.shape(owner.api_version)
            if shape is None:
                continue
            version = owner.api_version
            # An object that was not there has nothing to convert.
            base = {**shape.always} if old is None else versions.convert(old, version)
            found = changes(shape, base, versions.convert(new, version), writer.reset)
            by_version[version] = found
        changed, removed = found
        fields = difference(difference(owner.fields, changed), removed)
        if fields:
            left[identity] = owner.holding(fields)
    return left


def changes(
    shape: Shape, old: Object, new: Object, reset: tuple[tuple[str, ...], ...] = ()
) -> tuple[FieldSet, FieldSet]:
    """(changed or added, removed) of what can be owned."""
    changed, removed = compare(shape, _comparable(old), _comparable(new))
    for path in reset:
        changed, removed = without(changed, path), without(removed, path)
    return stripped(changed), stripped(removed)


def _comparable(obj: Object) -> Object:
    """Without what nobody owns: most of it differs with every write."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key not in UNTRACKED}}


def stripped(fields: FieldSet) -> FieldSet:
    """The set without the fields that nobody owns."""
    left = {
        element: node
        for element, node in fields.items()
        if element not in ("f:apiVersion", "f:kind", "f:metadata")
    }
    metadata = {
        element: node
        for element, node in (fields.get("f:metadata") or {}).items()
        if element != SELF and element[2:] not in UNTRACKED
    }
    if metadata:
        left["f:metadata"] = metadata
    return left
