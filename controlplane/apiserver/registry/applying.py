"""apply: server-side apply as proposal for an update, or as a new object where there is none.

Called by the registry. What an apply makes of object and owners is `controlplane.meta.managed.applying`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.creation import create
from controlplane.apiserver.registry.ownership import versions_of, writer_of
from controlplane.apiserver.registry.patching import Check
from controlplane.apiserver.registry.requests import WriteOptions
from controlplane.apiserver.registry.system_fields import set_namespace
from controlplane.apiserver.registry.updating import Scope, Target, modify
from controlplane.errors import AlreadyExists, BadRequest, NotFound, Object, conflict, invalid, not_found
from controlplane.meta.managed import applying
from controlplane.meta.managed.applying import Applied
from controlplane.meta.objects import clone
from controlplane.resources.fieldpath import required
from controlplane.store.events import Stored

Permission = Callable[[], Awaitable[None]]
"""Raises Forbidden."""
_TRIES = 5


async def apply(
    ctx: Context,
    target: Target,
    applied: Object,
    opts: WriteOptions,
    force: bool,
    check: Check | None,
    may_create: Permission | None,
) -> tuple[Stored, bool]:
    """Store what the apply leads to. Returns it and whether it is new.

    Raises NotFound for subresources of what is not there, Conflict, BadRequest, what creating and updating raise.
    """
    kind = target.kind

    def result(live: Object | None) -> Object:
        writer = writer_of(opts, kind.api_version, target.subresource, ctx.clock(), kind.status_metadata)
        made = applying.apply(versions_of(kind), live, applied, kind.kind, writer, force)
        return _accepted(target, made, check)

    owned = Target(kind, target.namespace, target.name, target.scope, target.subresource, owned=True)
    for attempt in range(_TRIES):
        if await ctx.storage.newest(kind, target.namespace, target.name) is not None:
            try:
                return await modify(ctx, owned, result, opts), False
            except NotFound as gone:
                if attempt == _TRIES - 1 or (gone.kind, gone.name) != (kind.plural, target.name):
                    raise
                continue
        if target.scope is not Scope.MAIN:
            break
        obj = result(None)
        _check_new(target, obj)
        if may_create is not None:
            await may_create()
        entries = obj["metadata"].pop("managedFields", None) or []
        try:
            return await create(ctx, kind, target.namespace, obj, opts, entries), True
        except AlreadyExists:
            # Another was faster, unless it is a dry run's own answer about an object that stays.
            if attempt == _TRIES - 1:
                raise
    raise not_found(kind.plural, kind.group, target.name)


def _accepted(target: Target, made: Applied, check: Check | None) -> Object:
    """The new state as an object of the caller's own, with its entries. Raises BadRequest for another's name."""
    obj = clone(made.obj)
    if check is not None:
        obj = check(obj)
    metadata = obj["metadata"] = obj.get("metadata") or {}
    set_namespace(target.kind, metadata, target.namespace)
    name = metadata.get("name") or target.name
    if name != target.name:
        raise BadRequest(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        )
    if made.entries:
        metadata["managedFields"] = made.entries
    return obj


def _check_new(target: Target, obj: Object) -> None:
    """Raises Conflict for an object that says which one it is, and is not there."""
    metadata = obj["metadata"]
    if metadata.get("uid"):
        kind = target.kind
        raise conflict(
            kind.plural,
            kind.group,
            target.name,
            f"uid mismatch: the provided object specified uid {metadata['uid']}, and no existing object was found",
        )
    if not metadata.get("name"):
        cause = required("metadata.name", "name or generateName is required")
        raise invalid(target.kind.kind, target.kind.group, "", [cause])
    metadata.pop("resourceVersion", None)
