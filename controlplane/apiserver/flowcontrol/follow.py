"""Keeps a gate to the FlowSchema and PriorityLevelConfiguration objects as they are.

Pulled by the gate before each request, so that what was answered to a writer counts at once. Decides nothing about
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from controlplane.apiserver.authz.follower import Follower
from controlplane.apiserver.flowcontrol.gate import FairGate
from controlplane.apiserver.flowcontrol.queues import LevelConfig
from controlplane.apiserver.flowcontrol.rules import schema_of
from controlplane.apiserver.registry import Registry
from controlplane.errors import Object
from controlplane.resources.catalog import FLOW_SCHEMA, PRIORITY_LEVEL
from controlplane.resources.kind import Kind

_SHARES, _QUEUES, _HAND, _LENGTH = 30, 64, 8, 50
"""Upstream's defaults of a limited level."""


def levels_of(objects: Sequence[Object], total_seats: int) -> list[LevelConfig]:
    """The levels with their parts of `total_seats`: by nominal shares, rounded up, at least one seat each."""
    total_shares = sum(_shares(obj) for obj in objects) or 1
    return [_level(obj, total_seats, total_shares) for obj in objects]


def _shares(obj: Object) -> int:
    spec = obj.get("spec") or {}
    if spec.get("type") == "Exempt":
        return int((spec.get("exempt") or {}).get("nominalConcurrencyShares") or 0)
    shares = (spec.get("limited") or {}).get("nominalConcurrencyShares")
    return _SHARES if shares is None else int(shares)


def _level(obj: Object, total_seats: int, total_shares: int) -> LevelConfig:
    spec = obj.get("spec") or {}
    name, uid = str(obj["metadata"]["name"]), str(obj["metadata"].get("uid", ""))
    seats = max(-(-total_seats * _shares(obj) // total_shares), 1)
    if spec.get("type") == "Exempt":
        return LevelConfig(name, uid, seats, exempt=True)
    response = (spec.get("limited") or {}).get("limitResponse") or {}
    if response.get("type") != "Queue":
        return LevelConfig(name, uid, seats)
    queuing = response.get("queuing") or {}
    return LevelConfig(
        name,
        uid,
        seats,
        queues=int(queuing.get("queues") or _QUEUES),
        hand_size=int(queuing.get("handSize") or _HAND),
        queue_length=int(queuing.get("queueLengthLimit") or _LENGTH),
    )


def apply_objects(gate: FairGate, schemas: Sequence[Object], levels: Sequence[Object]) -> None:
    """Make `gate` what the objects say."""
    gate.configure([schema_of(obj) for obj in schemas], levels_of(levels, gate.total_seats))


async def follow(gate: FairGate, registry: Registry) -> None:
    """Have the objects of a registry that has been started decide from now on. Raises StoreError."""
    schemas, levels = [await _Objects.of(registry, kind) for kind in (FLOW_SCHEMA, PRIORITY_LEVEL)]

    def refresh() -> None:
        if schemas.refresh() | levels.refresh():
            apply_objects(gate, list(schemas.found.values()), list(levels.found.values()))

    gate.before_each = refresh
    refresh()


class _Objects:
    """All objects of one kind, by name. `refresh` says whether there was a change."""

    def __init__(self, registry: Registry, kind: Kind) -> None:
        self.found: dict[str, Object] = {}
        self._changed = True
        source = partial(registry.present_cache, kind)
        self._follower = Follower(source, self._add, self._remove, self._clear)

    @classmethod
    async def of(cls, registry: Registry, kind: Kind) -> _Objects:
        await registry.cache(kind)
        return cls(registry, kind)

    def refresh(self) -> bool:
        self._follower.refresh()
        changed, self._changed = self._changed, False
        return changed

    def _add(self, obj: Object) -> None:
        self.found[obj["metadata"]["name"]] = obj
        self._changed = True

    def _remove(self, obj: Object) -> None:
        self.found.pop(obj["metadata"]["name"], None)
        self._changed = True

    def _clear(self) -> None:
        self.found.clear()
        self._changed = True
