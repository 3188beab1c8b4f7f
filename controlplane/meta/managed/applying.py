"""What an apply does: the object it leads to, and who owns what of it then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from controlplane.errors import BadRequest, Object, Unclassified
from controlplane.meta.managed.conflicts import Clash, Clashes, conflict_of
from controlplane.meta.managed.entries import (
    APPLY,
    BEFORE_FIRST_APPLY,
    Identity,
    Owner,
    of_version,
    read,
    write,
)
from controlplane.meta.managed.extract import fields_of
from controlplane.meta.managed.last_applied import (
    KUBECTL,
    last_applied,
    owned_by_last_applied,
    with_last_applied,
)
from controlplane.meta.managed.merge import merge
from controlplane.meta.managed.prune import with_named_fields, without_fields
from controlplane.meta.managed.reconcile import reconciled
from controlplane.meta.managed.sets import SELF, FieldSet, difference, intersection, union, without
from controlplane.meta.managed.shapes import Shape
from controlplane.meta.managed.tracking import Versions, Writer, changes, stripped, taken_from, update
from controlplane.meta.managed.typed import Mistyped, stated_fields


@dataclass(frozen=True, slots=True)
class Applied:
    """The new state, without managedFields, and its entries. Parts are shared with the live object."""

    obj: Object
    entries: list[Object]


def apply(
    versions: Versions, live: Object | None, applied: Object, kind: str, writer: Writer, force: bool
) -> Applied:
    """`live` is the object in the writer's version, None when there is none yet; `kind` its kind.

    Raises BadRequest for an object of another kind and for one with managedFields, Unclassified (as upstream) for one
    that does not fit its type, Conflict for what others own unless `force` is set.
    """
    shape, stated = _checked(versions, applied, kind, writer)
    base: Object = dict(live) if live is not None else {"apiVersion": writer.api_version, "kind": kind}
    metadata = {**(base.get("metadata") or {})}
    owners = read(metadata.pop("managedFields", None))
    base["metadata"] = metadata
    if not owners and live is not None:
        before = replace(writer, manager=BEFORE_FIRST_APPLY)
        owners = dict(update(versions, None, base, {}, before))
    if shape.may_change and owners:
        owners = reconciled(shape, writer.api_version, owners)
    try:
        result = _apply(versions, shape, base, applied, stated, owners, writer, force)
    except Clashes as clashes:
        _check_last_applied(shape, base, writer, clashes)
        result = _apply(versions, shape, base, applied, stated, owners, writer, force=True)
    obj, entries = result.obj, result.entries
    if writer.manager == KUBECTL and last_applied(obj):
        obj = with_last_applied(obj, applied)
    return Applied(obj, entries)


def _checked(versions: Versions, applied: Object, kind: str, writer: Writer) -> tuple[Shape, FieldSet]:
    """The type of an applied object and the fields it states."""
    version, name = applied.get("apiVersion") or "", applied.get("kind") or ""
    spelled = f"{version if '/' in str(version) else f'/{version}'}, Kind={name}"
    if version != writer.api_version or name != kind:
        raise BadRequest(f"invalid object type: {spelled}")
    metadata = applied.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    shape = versions.shape(writer.api_version)
    if shape is None:
        raise Unclassified(f"no corresponding type for {spelled}")
    try:
        return shape, stated_fields(shape, applied)
    except Mistyped as fault:
        known: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        place = f"{known.get('namespace') or ''}/{known.get('name') or ''}"
        raise Unclassified(f"failed to create typed patch object ({place}; {spelled}): {fault}") from fault


def _check_last_applied(shape: Shape, base: Object, writer: Writer, clashes: Clashes) -> None:
    """kubectl may take what its own client-side apply has set. Raises Conflict for all else."""
    found = clashes.clashes
    if writer.manager == KUBECTL and last_applied(base):
        allowed = owned_by_last_applied(shape, base, writer.api_version)
        found = [Clash(clash.owner, rest) for clash in found if (rest := difference(clash.fields, allowed))]
    if found:
        raise conflict_of(found) from clashes


def _apply(
    versions: Versions,
    shape: Shape,
    base: Object,
    applied: Object,
    stated: FieldSet,
    owners: dict[Identity, Owner],
    writer: Writer,
    force: bool,
) -> Applied:
    """`stated` are the fields of `applied`."""
    identity = writer.identity(APPLY)
    last = owners.get(identity)
    fields = stated
    for path in writer.reset:
        fields = without(fields, path)
    own = Owner(identity[0], APPLY, writer.api_version, writer.subresource, stripped(fields))
    owners = {**owners, identity: own}
    merged = merge(shape, base, applied)
    if last is not None and (last.fields != own.fields or last.api_version != own.api_version):
        merged = _pruned(versions, shape, merged, last, owners, writer)
    changed, removed = changes(shape, base, merged, writer.reset)
    if not force:
        clashes = [
            Clash(owner, touched)
            for other, owner in owners.items()
            if other != identity and (touched := _touched(versions, base, merged, owner, writer, changed))
        ]
        if clashes:
            raise Clashes(clashes)
    left = taken_from(
        versions, base, merged, owners, {writer.api_version: (changed, removed)}, writer, identity
    )
    if not own.fields:
        del left[identity]
    elif merged != base:
        left[identity] = replace(own, time=writer.time)
    elif last is not None:
        unchanged = last.api_version == own.api_version and last.fields == own.fields
        left[identity] = last if unchanged else replace(own, time=last.time)
    return Applied(merged, write(left))


def _touched(
    versions: Versions, old: Object, new: Object, owner: Owner, writer: Writer, changed: FieldSet
) -> FieldSet:
    """What of an owner's fields changes, in terms of its own version."""
    if owner.api_version != writer.api_version:
        shape = versions.shape(owner.api_version)
        if shape is None:
            return {}
        version = owner.api_version
        changed, _ = changes(
            shape, versions.convert(old, version), versions.convert(new, version), writer.reset
        )
    return intersection(owner.fields, changed)


def _pruned(
    versions: Versions,
    shape: Shape,
    merged: Object,
    last: Owner,
    owners: dict[Identity, Owner],
    writer: Writer,
) -> Object:
    """`merged` without what this applier stated last time and does not state now, unless others own it too."""
    version = last.api_version
    if version == writer.api_version and not difference(last.fields, owners[last.identity].fields):
        return merged
    then = shape if version == writer.api_version else versions.shape(version)
    if then is None:
        return merged
    whole = merged if version == writer.api_version else versions.convert(merged, version)
    past = _but_metadata(with_named_fields(then, last.fields))
    left = without_fields(then, whole, past)
    others = {owner.api_version for owner in owners.values()} - {version}
    for served in (version, *sorted(others)):
        left = _with_owned(versions, served, whole, left, version, owners)
    present = with_named_fields(then, fields_of(then, whole))
    kept = with_named_fields(then, fields_of(then, left))
    result = without_fields(then, whole, intersection(difference(present, kept), past))
    return result if version == writer.api_version else versions.convert(result, writer.api_version)


def _but_metadata(fields: FieldSet) -> FieldSet:
    """The set without `metadata` itself, which holds what nobody owns and so never goes."""
    node = fields.get("f:metadata")
    if not node:
        return fields
    return {**fields, "f:metadata": {element: child for element, child in node.items() if element != SELF}}


def _with_owned(
    versions: Versions,
    served: str,
    whole: Object,
    left: Object,
    version: str,
    owners: dict[Identity, Owner],
) -> Object:
    """`left` with what of `whole` is owned in terms of the version `served`; both are objects of `version`."""
    shape = versions.shape(served)
    if shape is None:
        return left
    if served != version:
        whole, left = versions.convert(whole, served), versions.convert(left, served)
    owned = with_named_fields(shape, of_version(owners.values(), served))
    present = with_named_fields(shape, fields_of(shape, whole))
    kept = with_named_fields(shape, fields_of(shape, left))
    result = without_fields(shape, whole, difference(present, union(kept, owned)))
    return result if served == version else versions.convert(result, version)
