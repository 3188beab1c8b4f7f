"""Writes of the scale subresource: changes of a Scale become changes of its object, owners of the replicas included."""

from __future__ import annotations

from collections.abc import Callable

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.ownership import scale_versions, writer_of
from controlplane.apiserver.registry.patching import Check
from controlplane.apiserver.registry.requests import WriteOptions
from controlplane.apiserver.registry.scaling import scale_of, scaled, stored_scale
from controlplane.apiserver.registry.updating import Propose, Scope, Target, modify
from controlplane.errors import BadRequest, NotFound, Object
from controlplane.meta.managed.applying import apply
from controlplane.meta.managed.scaling import SCALE_VERSION, to_parent, to_scale
from controlplane.meta.managed.tracking import tracked
from controlplane.meta.objects import clone
from controlplane.resources.kind import Kind
from controlplane.store.events import Stored

_Change = Callable[[Object], tuple[Object, list[Object]]]
"""A Scale with its entries -> the Scale it becomes, and its entries then."""


async def rescale(
    ctx: Context, kind: Kind, namespace: str, name: str, propose: Propose, opts: WriteOptions
) -> Stored:
    """PUT or PATCH. Returns the Scale."""

    def change(scale: Object) -> tuple[Object, list[Object]]:
        writer = writer_of(opts, SCALE_VERSION, "scale", ctx.clock())
        new = propose(scale)
        return new, tracked(scale_versions(), scale, new, None, writer)

    return await _rescale(ctx, kind, namespace, name, change, opts)


async def apply_scale(
    ctx: Context,
    kind: Kind,
    namespace: str,
    name: str,
    applied: Object,
    opts: WriteOptions,
    force: bool,
    check: Check | None,
) -> Stored:
    """Server-side apply of a Scale. Returns the Scale."""

    def change(scale: Object) -> tuple[Object, list[Object]]:
        writer = writer_of(opts, SCALE_VERSION, "scale", ctx.clock())
        made = apply(scale_versions(), scale, applied, "Scale", writer, force)
        new = clone(made.obj)
        return new if check is None else check(new), made.entries

    return await _rescale(ctx, kind, namespace, name, change, opts)


async def _rescale(
    ctx: Context, kind: Kind, namespace: str, name: str, change: _Change, opts: WriteOptions
) -> Stored:
    if kind.scale is None:
        raise NotFound("the server could not find the requested resource", group=kind.group, kind=kind.plural)
    path = kind.scale.spec_replicas

    def propose(current: Object) -> Object:
        entries = current["metadata"].get("managedFields")
        scale = scale_of(kind, current)
        scale["metadata"]["managedFields"] = to_scale(entries, path)
        new, scale_entries = change(scale)
        if not isinstance(new.get("metadata"), dict):
            raise BadRequest("the scale has no metadata")
        result = scaled(kind, current, new)
        result["metadata"]["managedFields"] = to_parent(entries, scale_entries, path, kind.api_version)
        return result

    target = Target(kind, namespace, name, Scope.MAIN, "scale", owned=True)
    return stored_scale(kind, await modify(ctx, target, propose, opts))
