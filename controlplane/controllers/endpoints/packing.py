"""Distributes endpoints over slices of at most 100 while changing as few slices as can be. Pure.

Upstream's order: keep every endpoint in the slice it is in; put new ones into slices that change anyway; then
into the unchanged slice they fill best; then into new slices, which take over slices that would be deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane.controllers.endpoints.slices import (
    MANAGED_BY_LABEL,
    PortKey,
    SliceTemplate,
    port_key,
)
from controlplane.errors import Object
from controlplane.meta.objects import clone, labels, name

CAPACITY = 100

Groups = dict[PortKey, tuple[list[Object], list[Object]]]


@dataclass(slots=True)
class Packing:
    """What to write. Slices to create have no name yet; the others are complete new states."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        return bool(self.create or self.update or self.delete)


def pack(
    template: SliceTemplate,
    family: str,
    existing: Sequence[Object],
    groups: Groups,
    capacity: int = CAPACITY,
) -> Packing:
    """What to do with the `existing` slices of one address family so that they hold `groups`."""
    if not groups:
        # Readers tell a Service without endpoints from one not looked at yet by an empty slice.
        groups = {(): ([], [])}
    result = Packing()
    by_ports: dict[PortKey, list[Object]] = {}
    for each in sorted(existing, key=name):
        by_ports.setdefault(port_key(each.get("ports")), []).append(each)
    for key, slices in by_ports.items():
        if key not in groups:
            result.delete += slices
    for key, (ports, endpoints) in groups.items():
        _pack_group(template, family, by_ports.get(key, []), ports, endpoints, capacity, result)
    _recycle(result)
    return result


def _pack_group(
    template: SliceTemplate,
    family: str,
    existing: Sequence[Object],
    ports: list[Object],
    endpoints: Sequence[Object],
    capacity: int,
    result: Packing,
) -> None:
    missing = {_identity(endpoint): endpoint for endpoint in endpoints}
    wanted_labels = template.labels
    changed: list[Object] = []
    unchanged: list[Object] = []
    emptied: list[Object] = []
    for each in existing:
        kept = [
            found for endpoint in each["endpoints"] or () if (found := missing.pop(_identity(endpoint), None))
        ]
        if not kept and (each["endpoints"] or endpoints):
            emptied.append(each)
        elif kept != (each["endpoints"] or []) or labels(each) != wanted_labels:
            changed.append(_with(each, kept, wanted_labels))
        else:
            unchanged.append(each)
    waiting = list(missing.values())
    for each in changed:
        room = max(0, capacity - len(each["endpoints"]))
        each["endpoints"] += waiting[:room]
        waiting = waiting[room:]
    best = _best_to_fill(unchanged, len(waiting), capacity)
    if best is not None:
        changed.append(_with(best, [*best["endpoints"], *waiting], wanted_labels))
        waiting = []
    result.update += changed
    result.delete += emptied
    while waiting or not (changed or unchanged or result.create):
        fresh = template.empty(family, ports)
        fresh["endpoints"] = waiting[:capacity]
        waiting = waiting[capacity:]
        result.create.append(fresh)


def _best_to_fill(slices: Sequence[Object], count: int, capacity: int) -> Object | None:
    """The fullest slice that can still take all of them."""
    if not count:
        return None
    fitting = [each for each in slices if len(each["endpoints"]) + count <= capacity]
    return max(fitting, key=lambda each: len(each["endpoints"]), default=None)


def _with(each: Object, endpoints: list[Object], wanted_labels: dict[str, str]) -> Object:
    changed = clone({key: value for key, value in each.items() if key != "endpoints"})
    changed["metadata"]["labels"] = wanted_labels
    changed["endpoints"] = list(endpoints)
    return changed


def _recycle(result: Packing) -> None:
    """A slice to delete is turned into one to create: one write less, and readers see no gap."""
    while result.create and result.delete:
        old, new = result.delete.pop(), result.create.pop()
        changed = _with(old, new["endpoints"], new["metadata"]["labels"])
        changed["ports"] = new["ports"]
        result.update.append(changed)


def _identity(endpoint: Object) -> tuple[object, ...]:
    """An endpoint is the same one while address and pod are."""
    return (*endpoint["addresses"], (endpoint.get("targetRef") or {}).get("uid"))


def is_ours(each: Object, manager: str) -> bool:
    """Whether the slice is managed by that controller; others keep slices for the same Service too."""
    return labels(each).get(MANAGED_BY_LABEL) == manager
