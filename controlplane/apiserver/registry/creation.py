"""create: a client's body becomes a stored object. Called by the registry, and by updates that may create."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.allocation.allocator import Reservation
from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.ownership import put_entries, settle, versions_of, writer_of
from controlplane.apiserver.registry.requests import WriteOptions
from controlplane.apiserver.registry.system_fields import (
    check_type,
    dedupe_owners,
    fill_new,
    own_metadata,
    set_namespace,
)
from controlplane.errors import (
    AlreadyExists,
    Object,
    Unclassified,
    already_exists,
    invalid,
    qualified,
)
from controlplane.meta.managed.tracking import tracked
from controlplane.meta.names import generate_name
from controlplane.resources.kind import Kind
from controlplane.resources.metadata import validate_metadata
from controlplane.store.events import Stored
from controlplane.store.protocol import RevisionMismatch

GENERATE_TRIES = 8
"""How often a name is drawn for `generateName` before the create fails (upstream since 1.32)."""


async def create(
    ctx: Context,
    kind: Kind,
    namespace: str,
    obj: Object,
    opts: WriteOptions,
    entries: Sequence[Object] | None = None,
) -> Stored:
    """Store a new object; `obj` is taken over. Raises StatusErrors.

    `entries` are its managedFields when they are decided already (by an apply).
    """
    check_type(kind, obj)
    metadata = own_metadata(obj)
    dedupe_owners(metadata, opts.remarks.warnings)
    claimed = metadata.pop("managedFields", None)
    if metadata.get("resourceVersion"):
        raise Unclassified("resourceVersion should not be set on objects to be created")
    set_namespace(kind, metadata, namespace)
    fill_new(kind, metadata, ctx.clock())
    base = "" if metadata.get("name") or not kind.generate_name else metadata.get("generateName", "")
    if base:
        metadata["name"] = generate_name(base)
    if kind.status and not kind.status_at_creation:
        obj.pop("status", None)
    kind.default(obj)
    name = str(metadata.get("name", ""))
    if entries is None:
        # Nobody owns a status by a write of the object itself.
        owned = obj
        if kind.status_at_creation:
            owned = {key: value for key, value in obj.items() if key != "status"}
        entries = tracked(
            versions_of(kind), None, owned, claimed, writer_of(opts, kind.api_version, "", ctx.clock())
        )
    put_entries(metadata, entries)
    request = ctx.admission_request(
        Operation.CREATE, kind, namespace, name, obj, None, opts.user, opts.dry_run, opts.remarks
    )
    await ctx.admit(request)
    settle(obj["metadata"], entries, opts.remarks)
    kind.prepare_create(obj)
    causes = [*validate_metadata(kind, obj), *kind.validate(obj), *kind.validate_create(obj)]
    if causes:
        raise invalid(kind.kind, kind.group, name, causes)
    await ctx.validate(request)
    if opts.dry_run:
        return _preview(ctx, kind, namespace, obj)
    return await _store(ctx, kind, namespace, obj, base)


def _preview(ctx: Context, kind: Kind, namespace: str, obj: Object) -> Stored:
    """A dry run's answer: everything but a resourceVersion."""
    name = obj["metadata"]["name"]
    for reservation in ctx.storage.reserve(kind, obj, None):
        reservation.roll_back()
    if ctx.storage.cache(kind).get(namespace, name) is not None:
        raise _exists(ctx, kind, namespace, name)
    return Stored(obj, orjson.dumps(obj), 0)


async def _store(ctx: Context, kind: Kind, namespace: str, obj: Object, base: str) -> Stored:
    metadata = obj["metadata"]
    for number in range(GENERATE_TRIES if base else 1):
        if number:
            metadata["name"] = generate_name(base)
            kind.default(obj)
        reservations: Sequence[Reservation] = ctx.storage.reserve(kind, obj, None)
        try:
            return await ctx.storage.put(kind, kind.key(namespace, metadata["name"]), obj, 0, reservations)
        except RevisionMismatch as lost:
            name = metadata["name"]
            if not base:
                await ctx.storage.newest(kind, namespace, name)
                raise _exists(ctx, kind, namespace, name) from lost
    raise AlreadyExists(
        f'{qualified(kind.plural, kind.group)} "{metadata["name"]}" already exists, the server was not able to '
        "generate a unique name for the object",
        name=metadata["name"],
        group=kind.group,
        kind=kind.plural,
        retry_after=1,
    )


def _exists(ctx: Context, kind: Kind, namespace: str, name: str) -> AlreadyExists:
    error = already_exists(kind.plural, kind.group, name)
    present = ctx.storage.cache(kind).get(namespace, name)
    if present is not None and present.object["metadata"].get("deletionTimestamp"):
        return AlreadyExists(
            f"object is being deleted: {error.message}", name=name, group=kind.group, kind=kind.plural
        )
    return error
