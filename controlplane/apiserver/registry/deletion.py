"""delete and deletecollection: carries out what `deletion_rules` decide, again after a lost race."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.deletion_rules import Verdict, check_preconditions, decide
from controlplane.apiserver.registry.listing import list_objects
from controlplane.apiserver.registry.requests import DeleteOptions, ListOptions
from controlplane.errors import NotFound, not_found
from controlplane.resources.kind import Kind
from controlplane.store.events import Stored, stamped
from controlplane.store.protocol import RevisionMismatch

_AT_ONCE = 64
"""Objects a deletecollection deletes at the same time; their commits share flushes."""


async def delete(
    ctx: Context, kind: Kind, namespace: str, name: str, opts: DeleteOptions
) -> tuple[Stored, bool]:
    """Delete or begin to. Returns the last state and whether the object is gone. Raises NotFound, Conflict."""
    current, sure = ctx.storage.cache(kind).get(namespace, name), False
    admitted = False
    while True:
        if current is None and not sure:
            current, sure = await ctx.storage.newest(kind, namespace, name), True
        if current is None:
            raise not_found(kind.plural, kind.group, name)
        check_preconditions(kind, name, current.object, opts)
        if not admitted:
            request = ctx.admission_request(
                Operation.DELETE,
                kind,
                namespace,
                name,
                None,
                current.object,
                opts.user,
                opts.dry_run,
                opts.remarks,
            )
            await ctx.admit(request)
            await ctx.validate(request)
            admitted = True
        verdict, new = decide(kind, current.object, opts, ctx.clock())
        if verdict is Verdict.PENDING:
            return current, False
        if opts.dry_run:
            return stamped(new, current.revision), verdict is Verdict.REMOVE
        key = kind.key(namespace, name)
        try:
            if verdict is Verdict.REMOVE:
                return await ctx.storage.remove(kind, key, current.object, current.revision), True
            return await ctx.storage.put(kind, key, new, current.revision), False
        except RevisionMismatch:
            current, sure = await ctx.storage.newest(kind, namespace, name), True


async def delete_collection(
    ctx: Context, kind: Kind, namespace: str, opts: ListOptions, delete_options: DeleteOptions
) -> list[Stored]:
    """Delete what `opts` selects; returns the last states. Objects that are gone meanwhile are skipped."""
    selected = (await list_objects(ctx, kind, namespace, opts)).items
    deleted: list[Stored] = []
    for first in range(0, len(selected), _AT_ONCE):
        deleted += await _delete_all(ctx, kind, selected[first : first + _AT_ONCE], delete_options)
    return deleted


async def _delete_all(
    ctx: Context, kind: Kind, selected: Sequence[Stored], opts: DeleteOptions
) -> list[Stored]:
    async def one(stored: Stored) -> Stored | None:
        metadata = stored.object["metadata"]
        try:
            return (await delete(ctx, kind, metadata.get("namespace", ""), metadata["name"], opts))[0]
        except NotFound:
            return None

    results = await asyncio.gather(*(one(stored) for stored in selected))
    return [result for result in results if result is not None]
