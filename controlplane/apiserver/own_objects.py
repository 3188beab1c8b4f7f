"""Keeps the objects the server made for itself as it made them: what is deleted or changed comes back at once.

Started by `server.py` after the bootstrap. Knows nothing of what the objects are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.apiserver.registry import Registry, Seed
from controlplane.apiserver.registry.following import Begun, Following, Handle
from controlplane.errors import Object


def keep(registry: Registry, following: Following, seeds: Iterable[Seed]) -> None:
    """From now on. `seeds` are cluster-scoped, or in a namespace that is followed for them."""
    by_place: dict[tuple[int, str], list[Seed]] = {}
    for seed in seeds:
        by_place.setdefault((id(seed.kind), seed.namespace), []).append(seed)
    for (_, namespace), found in by_place.items():
        begun, handle = _keeping(registry, found)
        following.follow(found[0].kind, handle, namespace, begun)


def _keeping(registry: Registry, seeds: Sequence[Seed]) -> tuple[Begun, Handle]:
    named = {seed.obj["metadata"]["name"]: seed for seed in seeds}

    async def begun() -> None:
        await registry.plant(seeds)

    async def handle(obj: Object, gone: bool) -> None:
        seed = named.get(obj["metadata"]["name"])
        if seed is not None and (gone or seed.renew):
            await registry.plant([seed])

    return begun, handle
