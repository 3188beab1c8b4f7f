"""Owners of an object <-> owners of its Scale: who holds the number of replicas holds it in both."""

from __future__ import annotations

from dataclasses import replace

from controlplane.errors import Object
from controlplane.meta.managed.entries import Identity, Owner, read, write
from controlplane.meta.managed.sets import at, difference, has

SCALE_VERSION = "autoscaling/v1"
_REPLICAS = ("f:spec", "f:replicas")


def to_scale(entries: list[Object] | None, path: tuple[str, ...]) -> list[Object]:
    """The Scale's entries; `path` leads to the replicas in the object."""
    owners = {
        identity: replace(owner, api_version=SCALE_VERSION, fields=at(*_REPLICAS), entry=None)
        for identity, owner in read(entries).items()
        if has(owner.fields, _elements(path))
    }
    return write(owners)


def to_parent(
    entries: list[Object] | None, scale: list[Object], path: tuple[str, ...], api_version: str
) -> list[Object]:
    """The object's entries after a write of its Scale left it with the entries `scale`."""
    where = _elements(path)
    remaining = {(o.manager, o.operation, o.subresource): o for o in read(scale).values()}
    owners: dict[Identity, Owner] = {}
    for identity, owner in read(entries).items():
        known = (owner.manager, owner.operation, owner.subresource)
        if not has(owner.fields, where) or remaining.pop(known, None) is not None:
            owners[identity] = owner
            continue
        left = difference(owner.fields, at(*where))
        if left:
            owners[identity] = owner.holding(left)
    for owner in remaining.values():
        if has(owner.fields, _REPLICAS):
            # Upstream keeps no time for these.
            new = Owner(owner.manager, owner.operation, api_version, owner.subresource, at(*where))
            owners[new.identity] = new
    return write(owners)


def _elements(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"f:{name}" for name in path)
