"""update: the read-change-write loop behind PUT, PATCH, the status and finalize subresources and binding.

A caller proposes a new state made from the present one; this module decides what of it counts, validates, and
stores it against lost races. An update that takes the last finalizer from an object being deleted deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.allocation.allocator import Reservation
from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.ownership import (
    is_unchanged,
    put_entries,
    settle,
    versions_of,
    writer_of,
)
from controlplane.apiserver.registry.requests import WriteOptions
from controlplane.apiserver.registry.system_fields import (
    bump_generation,
    carry_over,
    check_type,
    dedupe_owners,
    own_metadata,
    set_namespace,
    spec_changed,
)
from controlplane.errors import Cause, Object, conflict, invalid, not_found
from controlplane.meta.managed.tracking import tracked
from controlplane.resources.fieldpath import Literal
from controlplane.resources.fieldpath import invalid as invalid_field
from controlplane.resources.kind import Kind
from controlplane.resources.metadata import validate_metadata_update
from controlplane.store.events import Stored
from controlplane.store.protocol import RevisionMismatch

Propose = Callable[[Object], Object]
"""Present state (read-only) -> proposed state, the caller's own. Called again after a lost race."""


class Scope(StrEnum):
    """Which part of the proposed state counts. BINDING is the server's own change and not validated; a PART is one of
    the kind's own."""

    MAIN = ""
    STATUS = "status"
    FINALIZE = "finalize"
    BINDING = "binding"
    PART = "part"


@dataclass(frozen=True, slots=True)
class Target:
    """What is updated. `subresource` is the one of the request, told to admission and to the tracking of owners.

    `owned`: the proposals come with their managedFields decided (by an apply, or by way of a Scale).
    """

    kind: Kind
    namespace: str
    name: str
    scope: Scope = Scope.MAIN
    subresource: str = ""
    owned: bool = False

    @property
    def key(self) -> str:
        return self.kind.key(self.namespace, self.name)


async def modify(ctx: Context, target: Target, propose: Propose, opts: WriteOptions) -> Stored:
    """Store what `propose` makes of the present state. Raises NotFound, Conflict, Invalid, what admission says.

    A proposal that names another resourceVersion than the present one loses at once; one without, or with the
    present one (a patch), is made again from the new state when another writer was faster.
    """
    kind = target.kind
    current, sure = ctx.storage.cache(kind).get(target.namespace, target.name), False
    while True:
        if current is None and not sure:
            current, sure = await ctx.storage.newest(kind, target.namespace, target.name), True
        if current is None:
            raise not_found(kind.plural, kind.group, target.name)
        proposed = propose(current.object)
        metadata = own_metadata(proposed)
        if not _is_current(kind, target.name, metadata, current):
            if sure:
                raise conflict(kind.plural, kind.group, target.name)
            current, sure = await ctx.storage.newest(kind, target.namespace, target.name), True
            continue
        _check_uid(target, metadata, current)
        new = await _combined(ctx, target, proposed, current.object, opts)
        if is_unchanged(new, current.object):
            return current
        try:
            return await _store(ctx, target, new, current, opts)
        except RevisionMismatch:
            current, sure = await ctx.storage.newest(kind, target.namespace, target.name), True


def replacement(obj: Object) -> Propose:
    """The proposal of a PUT: the body, whatever the present state is."""
    if obj.get("metadata") and obj["metadata"].get("resourceVersion"):
        return lambda _: {**obj, "metadata": {**obj["metadata"]}}
    # A proposal is changed on its way. Few lose a race and need another, so only those pay for parsing it again.
    encoded, untouched = orjson.dumps(obj), [obj]
    return lambda _: untouched.pop() if untouched else _parsed(encoded)


def _parsed(encoded: bytes) -> Object:
    obj: Object = orjson.loads(encoded)
    return obj


def _is_current(kind: Kind, name: str, metadata: Object, current: Stored) -> bool:
    """Whether the proposal is one for the present state. Raises Invalid where it had to say and does not."""
    version = metadata.get("resourceVersion")
    if version and version != "0":
        return bool(version == str(current.revision))
    if not kind.unconditional_update:
        cause = invalid_field("metadata.resourceVersion", Literal("0x0"), "must be specified for an update")
        raise invalid(kind.kind, kind.group, name, [cause])
    return True


def _check_uid(target: Target, metadata: Object, current: Stored) -> None:
    uid, present = metadata.get("uid"), current.object["metadata"].get("uid")
    if uid and uid != present:
        kind = target.kind
        raise conflict(
            kind.plural,
            kind.group,
            target.name,
            f"StorageError: invalid object, Code: 4, Key: {target.key}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {present}",
        )


async def _combined(
    ctx: Context, target: Target, proposed: Object, old: Object, opts: WriteOptions
) -> Object:
    """The new state: of `proposed` only what the scope lets through, everything else as before; validated."""
    kind = target.kind
    check_type(kind, proposed)
    set_namespace(kind, proposed["metadata"], target.namespace)
    dedupe_owners(proposed["metadata"], opts.remarks.warnings)
    claimed = proposed["metadata"].pop("managedFields", None)
    if target.scope is Scope.PART:
        new = kind.parts[target.subresource].take(proposed, old)
    else:
        new = _SCOPES[target.scope](kind, proposed, old)
    metadata = new["metadata"]
    carry_over(metadata, old)
    metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    entries = _entries(ctx, target, new, old, claimed, opts)
    put_entries(metadata, entries)
    request = ctx.admission_request(
        Operation.UPDATE, kind, target.namespace, target.name, new, old, opts.user, opts.dry_run, opts.remarks,
        target.subresource,
    )  # fmt: skip
    if target.scope is not Scope.BINDING:
        await ctx.admit(request)
        settle(new["metadata"], entries, opts.remarks)
    if target.scope is Scope.MAIN:
        kind.prepare_update(new, old)
    causes = _causes(target, new, old)
    if causes:
        raise invalid(kind.kind, kind.group, target.name, causes)
    if target.scope is Scope.MAIN and spec_changed(new, old, has_status=kind.status):
        bump_generation(metadata)
    if target.scope is not Scope.BINDING:
        await ctx.validate(request)
    return new


def _entries(
    ctx: Context, target: Target, new: Object, old: Object, claimed: Any, opts: WriteOptions
) -> Sequence[Object]:
    """The managedFields of the new state. A binding is the server's own change, which has no owner."""
    if target.owned:
        return claimed or ()
    if target.scope is Scope.BINDING:
        return old["metadata"].get("managedFields") or ()
    kind = target.kind
    writer = writer_of(opts, kind.api_version, target.subresource, ctx.clock(), kind.status_metadata)
    return tracked(versions_of(kind), old, new, claimed, writer)


def _main(kind: Kind, proposed: Object, old: Object) -> Object:
    kind.default(proposed)
    if kind.status:
        proposed.pop("status", None)
        if "status" in old:
            proposed["status"] = old["status"]
    return proposed


def _status(kind: Kind, proposed: Object, old: Object) -> Object:
    """The old object with the proposed status. The kind says what else gets through."""
    new = {**old, "metadata": {**old["metadata"]}}
    for name in kind.status_metadata:
        new["metadata"].pop(name, None)
        if proposed["metadata"].get(name):
            new["metadata"][name] = proposed["metadata"][name]
    new.pop("status", None)
    if proposed.get("status") is not None:
        new["status"] = proposed["status"]
    kind.prepare_status(new, old)
    return new


def _finalize(kind: Kind, proposed: Object, old: Object) -> Object:
    finalizers = (proposed.get("spec") or {}).get("finalizers") or []
    spec = {**(old.get("spec") or {}), "finalizers": finalizers}
    if not finalizers:
        del spec["finalizers"]
    return {**old, "metadata": {**old["metadata"]}, "spec": spec}


def _binding(kind: Kind, proposed: Object, old: Object) -> Object:
    return proposed


_SCOPES: dict[Scope, Callable[[Kind, Object, Object], Object]] = {
    Scope.MAIN: _main,
    Scope.STATUS: _status,
    Scope.FINALIZE: _finalize,
    Scope.BINDING: _binding,
}


def _causes(target: Target, new: Object, old: Object) -> Sequence[Cause]:
    kind = target.kind
    match target.scope:
        case Scope.MAIN:
            return [*validate_metadata_update(kind, new, old), *kind.update_causes(new, old)]
        case Scope.STATUS:
            return [*validate_metadata_update(kind, new, old), *kind.validate_status(new, old)]
        case Scope.PART:
            part = kind.parts[target.subresource]
            return [*validate_metadata_update(kind, new, old), *part.validate(new, old)]
        case Scope.FINALIZE:
            return kind.validate(new)
        case _:
            return ()


def is_finished(obj: Object) -> bool:
    """Whether nothing holds back the deletion of an object any more."""
    metadata = obj["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("deletionGracePeriodSeconds")
        and not metadata.get("finalizers")
        and not (obj.get("spec") or {}).get("finalizers")
    )


async def _store(ctx: Context, target: Target, new: Object, current: Stored, opts: WriteOptions) -> Stored:
    reservations: Sequence[Reservation] = ()
    if target.scope is Scope.MAIN:
        reservations = ctx.storage.reserve(target.kind, new, current.object)
    if opts.dry_run:
        for reservation in reservations:
            reservation.roll_back()
        return Stored(new, orjson.dumps(new), current.revision)
    if is_finished(new):
        for reservation in reservations:
            reservation.roll_back()
        return await ctx.storage.remove(target.kind, target.key, current.object, current.revision)
    return await ctx.storage.put(target.kind, target.key, new, current.revision, reservations)
