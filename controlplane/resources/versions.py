"""A version of a built-in kind that is stored as another one: its rules are the hub's, seen through the conversion.

Called by the API server when it gathers the served kinds. What a version says for itself (its own defaults, its
stricter validation, its columns) stays; everything else is derived here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from controlplane.errors import Cause, Object
from controlplane.meta.managed.shapes import Shape as ManagedShape
from controlplane.resources.kind import Kind
from controlplane.schema import shapes

Shape = Callable[[Object], Object]

_DEFAULTS: Mapping[str, object] = {
    field.name: field.default for field in fields(Kind) if field.default is not MISSING
}


class HubConversion:
    """See `kind.Conversion`: the pure functions of a built-in version."""

    def __init__(self, to_hub: Shape, from_hub: Shape) -> None:
        self._to_hub = to_hub
        self._from_hub = from_hub

    async def read(self, objs: Sequence[Object]) -> Sequence[Object]:
        return [self._from_hub(obj) for obj in objs]

    async def write(self, obj: Object) -> Object:
        return self._to_hub(obj)


def through_hub(kind: Kind, hub: Kind) -> Kind:
    """`kind` with the hub's rules wherever it has none of its own. Raises ValueError when it cannot be converted."""
    if kind.to_hub is None or kind.from_hub is None:
        raise ValueError(f"{kind.api_version} {kind.kind}: names a hub and has no conversion")
    to_hub, from_hub = kind.to_hub, kind.from_hub
    derived: dict[str, Any] = {
        "default": _both(kind.default, _in_place(hub.default, to_hub, from_hub)),
        "prepare_create": _in_place(hub.prepare_create, to_hub, from_hub),
        "prepare_update": _against_old(hub.prepare_update, to_hub, from_hub),
        "prepare_status": _against_old(hub.prepare_status, to_hub, from_hub),
        "validate": _causes(hub.validate, to_hub),
        "validate_update": _update_causes(hub.validate_update, to_hub),
        "validate_status": _update_causes(hub.validate_status, to_hub),
        "row": None if hub.row is None else _row(hub, to_hub),
        "columns": hub.columns,
        "validate_name": hub.validate_name,
        "generation": hub.generation,
        "status": hub.status,
        "scale": hub.scale,
        "create_on_update": hub.create_on_update,
        "unconditional_update": hub.unconditional_update,
    }
    changes = {
        name: value
        for name, value in derived.items()
        if name == "default" or getattr(kind, name) == _DEFAULTS[name]
    }
    if kind.row is not None:
        changes.pop("columns", None)
    return replace(
        kind,
        **changes,
        storage=hub.storage or hub.plural,
        convert=HubConversion(to_hub, from_hub),
    )


def gather(kinds: Sequence[Kind]) -> list[Kind]:
    """`kinds` with those that name a hub completed by it. Raises ValueError for a hub that is not there."""
    found = []
    for kind in kinds:
        if kind.hub is None or kind.convert is not None:
            found.append(kind)
            continue
        group, version = kind.hub
        hub = next(
            (
                each
                for each in kinds
                if (each.group, each.version, each.plural) == (group, version, kind.plural)
            ),
            None,
        )
        if hub is None:
            raise ValueError(f"{kind.api_version} {kind.kind}: its hub {group}/{version} is not served")
        found.append(through_hub(kind, hub))
    return [_with_versions(kind, kinds) for kind in found]


def _with_versions(kind: Kind, kinds: Sequence[Kind]) -> Kind:
    """Field owners of a kind with several versions may have written in any of them."""
    place = kind.hub or (kind.group, kind.version)
    others = [each for each in kinds if each.hub == place and each.plural == kind.plural]
    if not others:
        return kind
    hub = next(each for each in kinds if (each.group, each.version, each.plural) == (*place, kind.plural))
    return replace(kind, versions=_HubVersions(hub, others))


class _HubVersions:
    """See `managed.tracking.Versions`, for the versions of one built-in kind."""

    def __init__(self, hub: Kind, others: Sequence[Kind]) -> None:
        self._hub = hub
        self._others = {kind.api_version: kind for kind in others}

    def shape(self, api_version: str) -> ManagedShape | None:
        if api_version != self._hub.api_version and api_version not in self._others:
            return None
        return shapes.builtin(api_version, self._hub.kind)

    def convert(self, obj: Object, api_version: str) -> Object:
        known = self._others.get(obj["apiVersion"])
        if known is not None and known.to_hub is not None:
            obj = known.to_hub(obj)
        wanted = self._others.get(api_version)
        if wanted is not None and wanted.from_hub is not None:
            return wanted.from_hub(obj)
        return obj


def _both(first: Callable[[Object], None], second: Callable[[Object], None]) -> Callable[[Object], None]:
    def run(obj: Object) -> None:
        first(obj)
        second(obj)

    return run


def _in_place(rule: Callable[[Object], None], to_hub: Shape, from_hub: Shape) -> Callable[[Object], None]:
    def run(obj: Object) -> None:
        converted = to_hub(obj)
        rule(converted)
        _put_back(obj, from_hub(converted))

    return run


def _against_old(
    rule: Callable[[Object, Object], None], to_hub: Shape, from_hub: Shape
) -> Callable[[Object, Object], None]:
    def run(new: Object, old: Object) -> None:
        converted = to_hub(new)
        rule(converted, to_hub(old))
        _put_back(new, from_hub(converted))

    return run


def _put_back(obj: Object, result: Object) -> None:
    obj.clear()
    obj.update(result)


def _causes(rule: Callable[[Object], Sequence[Cause]], to_hub: Shape) -> Callable[[Object], Sequence[Cause]]:
    return lambda obj: rule(to_hub(obj))


def _update_causes(
    rule: Callable[[Object, Object], Sequence[Cause]], to_hub: Shape
) -> Callable[[Object, Object], Sequence[Cause]]:
    return lambda new, old: rule(to_hub(new), to_hub(old))


def _row(hub: Kind, to_hub: Shape) -> Callable[[Object, Any], Sequence[object]]:
    row = hub.row
    assert row is not None
    return lambda obj, now: row(to_hub(obj), now)
