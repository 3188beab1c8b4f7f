"""Keeps a gate to the FlowSchema and PriorityLevelConfiguration objects as they are.

Set up by the server over informers of its own. Decides nothing about requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.apiserver.flowcontrol.gate import FairGate
from controlplane.apiserver.flowcontrol.queues import LevelConfig
from controlplane.apiserver.flowcontrol.rules import schema_of
from controlplane.client.informer import Informers
from controlplane.errors import Object
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


def follow(gate: FairGate, informers: Informers, schemas: Kind, levels: Kind) -> None:
    """Have every change of the objects of those kinds change `gate` at once, while the informers run."""
    sources = informers.of(schemas), informers.of(levels)

    def changed(old: Object | None, new: Object | None) -> None:
        apply_objects(gate, sources[0].items(), sources[1].items())

    for source in sources:
        source.on_change(changed)
