"""Objects the server itself begins with, stored in one commit. Called at the start, before anybody is served.

Neither admission nor validation sees them: they are the server's own, checked by its tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.apiserver.registry.context import Context
from controlplane.apiserver.registry.storage import store_faults
from controlplane.apiserver.registry.system_fields import fill_new, own_metadata
from controlplane.errors import Object
from controlplane.resources.kind import Kind
from controlplane.store.events import encoded
from controlplane.store.protocol import Put, RevisionMismatch


async def seed(ctx: Context, objects: Sequence[tuple[Kind, Object]]) -> bool:
    """Store all of them, none of which may be there; takes ownership. False when one was there already."""
    now = ctx.clock()
    writes: list[Put] = []
    for kind, obj in objects:
        metadata = own_metadata(obj)
        fill_new(kind, metadata, now)
        kind.default(obj)
        kind.prepare_create(obj)
        key = kind.key(metadata.get("namespace", ""), metadata["name"])
        writes.append(Put(key, encoded(obj), 0))
    if not writes:
        return True
    try:
        changes = await ctx.storage.commit_all(writes)
    except RevisionMismatch:
        return False
    with store_faults():
        for kind in {kind.prefix: kind for kind, _ in objects}.values():
            await ctx.storage.cache(kind).wait_for(changes[-1].revision)
    return True
