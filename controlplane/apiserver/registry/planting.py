"""plant: the objects a server makes for itself at its start, all that are missing in one commit.

Called by the bootstrap. They get defaults like any new object, but no admission and no validation: they are the
server's own. Kinds whose values are allocated must not be planted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.ownership import put_entries, versions_of, writer_of
from controlplane.apiserver.registry.requests import WriteOptions
from controlplane.apiserver.registry.system_fields import (
    bump_generation,
    check_type,
    fill_new,
    own_metadata,
    set_namespace,
    spec_changed,
)
from controlplane.apiserver.user import LOOPBACK_USER
from controlplane.errors import Object
from controlplane.meta.managed.tracking import tracked
from controlplane.resources.kind import Kind
from controlplane.store.protocol import RevisionMismatch

_STATUS = "status"
_OPTIONS = WriteOptions(field_manager="kube-apiserver", user=LOOPBACK_USER)


@dataclass(frozen=True, slots=True)
class Seed:
    """One object. `renew`: when it is there already, everything but its metadata and status is put back.

    `spares` says of what is there that it is left as it is nevertheless.
    """

    kind: Kind
    obj: Object
    namespace: str = ""
    renew: bool = False
    spares: Callable[[Object], bool] | None = None


async def plant(ctx: Context, seeds: Iterable[Seed]) -> int:
    """Create or renew; a status that a seed has counts. Returns how many objects were written."""
    wanted = list(seeds)
    while True:
        writes = [write for seed in wanted if (write := await _write(ctx, seed)) is not None]
        if not writes:
            return 0
        try:
            await ctx.storage.put_all(writes)
        except RevisionMismatch:
            for seed in wanted:
                await ctx.storage.cache(seed.kind).catch_up()
        else:
            return len(writes)


async def _write(ctx: Context, seed: Seed) -> tuple[Kind, str, Object, int] | None:
    kind = seed.kind
    await ctx.storage.ready(kind)
    name = seed.obj["metadata"]["name"]
    present = ctx.storage.cache(kind).get(seed.namespace, name)
    key = kind.key(seed.namespace, name)
    if present is None:
        return kind, key, _new(ctx, seed), 0
    if not seed.renew or (seed.spares is not None and seed.spares(present.object)):
        return None
    renewed = _renewed(seed, present.object)
    return None if renewed == present.object else (kind, key, renewed, present.revision)


def _new(ctx: Context, seed: Seed) -> Object:
    kind, obj = seed.kind, {**seed.obj, "metadata": {**seed.obj["metadata"]}}
    check_type(kind, obj)
    metadata = own_metadata(obj)
    set_namespace(kind, metadata, seed.namespace)
    fill_new(kind, metadata, ctx.clock())
    status = obj.pop(_STATUS, None)
    kind.default(obj)
    writer = writer_of(_OPTIONS, kind.api_version, "", ctx.clock())
    put_entries(metadata, tracked(versions_of(kind), None, obj, None, writer))
    kind.prepare_create(obj)
    if status is not None:
        obj[_STATUS] = status
    return obj


def _renewed(seed: Seed, present: Object) -> Object:
    wanted = {key: value for key, value in seed.obj.items() if key not in ("metadata", _STATUS)}
    kept = {key: present[key] for key in ("apiVersion", "kind", "metadata", _STATUS) if key in present}
    renewed: Object = {**kept, **wanted}
    seed.kind.default(renewed)
    if spec_changed(renewed, present):
        renewed["metadata"] = {**present["metadata"]}
        bump_generation(renewed["metadata"])
    return renewed
