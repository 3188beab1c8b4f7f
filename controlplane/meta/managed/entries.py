"""`metadata.managedFields` <-> the owners of an object's fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.meta.managed.sets import FieldSet, canonical, ordered, union

APPLY = "Apply"
UPDATE = "Update"
MAX_UPDATERS = 10
ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"

Identity = tuple[str, str, str, str]
"""(manager, operation, apiVersion - empty for Apply -, subresource)."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry. `entry` is its form on the wire as long as nothing changed, so that it need not be written anew;
    `wire` are the fields it came with, in the order of the wire.
    """

    manager: str
    operation: str
    api_version: str
    subresource: str
    fields: FieldSet
    time: str | None = None
    entry: Object | None = None
    wire: FieldSet | None = None

    @property
    def applied(self) -> bool:
        return self.operation == APPLY

    @property
    def identity(self) -> Identity:
        version = "" if self.operation == APPLY else self.api_version
        return self.manager, self.operation, version, self.subresource

    def holding(self, fields: FieldSet) -> Owner:
        """The same owner of other fields; itself when they are the same."""
        return self if fields is self.fields else replace(self, fields=fields, entry=None)


Owners = Mapping[Identity, Owner]


def read(entries: Sequence[Object] | None) -> dict[Identity, Owner]:
    """The owners of a stored object. Trusts its own writing."""
    owners: dict[Identity, Owner] = {}
    for entry in entries or ():
        fields = entry.get("fieldsV1") or {}
        owner = Owner(
            entry.get("manager", ""), entry["operation"], entry["apiVersion"], entry.get("subresource", ""),
            fields, entry.get("time"), entry, fields,
        )  # fmt: skip
        owners[owner.identity] = owner
    return owners


def parse(entries: Any) -> dict[Identity, Owner]:
    """The owners a client states. Raises ValueError."""
    owners: dict[Identity, Owner] = {}
    if not isinstance(entries, list):
        raise ValueError("managedFields must be a list")
    for at, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"managed fields entry {at} is not an object")
        if entry.get("operation") not in (APPLY, UPDATE):
            raise ValueError("operation must be `Apply` or `Update`")
        if not entry.get("apiVersion"):
            raise ValueError("apiVersion must not be empty")
        if not entry.get("fieldsType"):
            raise ValueError(f"missing fieldsType in managed fields entry {at}")
        if entry["fieldsType"] != "FieldsV1":
            raise ValueError(f'invalid fieldsType "{entry["fieldsType"]}" in managed fields entry {at}')
        texts = [entry.get(name) or "" for name in ("manager", "apiVersion", "subresource", "time")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"managed fields entry {at} has a field of the wrong type")
        manager, api_version, subresource, time = texts
        fields = canonical(entry.get("fieldsV1"))
        owner = Owner(
            manager, entry["operation"], api_version, subresource, fields, time or None, None, fields
        )
        owners[owner.identity] = owner
    return owners


def is_reset(entries: Any) -> bool:
    """Whether a client wants all ownership forgotten: an empty list, or one empty entry."""
    return isinstance(entries, list) and (not entries or entries == [{}])


def write(owners: Owners) -> list[Object]:
    """The entries in the order of the wire."""
    return [_entry(owner) for owner in sorted(owners.values(), key=_order)]


def _order(owner: Owner) -> tuple[str, str, str, str, str]:
    return owner.operation, owner.time or "", owner.manager, owner.api_version, owner.subresource


def _entry(owner: Owner) -> Object:
    return owner.entry if owner.entry is not None else entry_of(owner, ordered(owner.fields, owner.wire))


def entry_of(owner: Owner, fields: FieldSet) -> Object:
    """The entry on the wire; `fields` are the owner's in the order of the wire."""
    entry: Object = {}
    if owner.manager:
        entry["manager"] = owner.manager
    entry["operation"] = owner.operation
    entry["apiVersion"] = owner.api_version
    if owner.time:
        entry["time"] = owner.time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = fields
    if owner.subresource:
        entry["subresource"] = owner.subresource
    return entry


def capped(owners: dict[Identity, Owner]) -> dict[Identity, Owner]:
    """At most ten updaters: the oldest of them become one for each version, `ancient-changes`."""
    updaters = [identity for identity, owner in owners.items() if not owner.applied]
    if len(updaters) <= MAX_UPDATERS:
        return owners
    updaters.sort(key=lambda identity: (owners[identity].time or "", _text(identity)))
    left = dict(owners)
    first: dict[str, Identity] = {}
    count = len(updaters)
    for identity in updaters:
        if count <= MAX_UPDATERS:
            break
        owner = left[identity]
        version = owner.api_version
        if version not in first:
            first[version] = identity
            continue
        bucket: Identity = (ANCIENT, UPDATE, version, "")
        before = left.get(bucket) or left.pop(first[version])
        del left[identity]
        fields = union(owner.fields, before.fields)
        left[bucket] = Owner(ANCIENT, UPDATE, version, "", fields, owner.time)
        count -= 1
    return left


def _text(identity: Identity) -> bytes:
    names = ("manager", "operation", "apiVersion", "subresource")
    return orjson.dumps({name: text for name, text in zip(names, identity, strict=True) if text})


def same_but_for_time(one: Sequence[Object], other: Sequence[Object]) -> bool:
    """Whether two lists of entries differ in nothing but times."""
    return len(one) == len(other) and all(map(_same_entry, one, other))


def _same_entry(one: Object, other: Object) -> bool:
    if one is other:
        return True
    return {**one, "time": None} == {**other, "time": None}


def of_version(owners: Iterable[Owner], version: str) -> FieldSet:
    """All that is owned in the terms of one version."""
    owned: FieldSet = {}
    for owner in owners:
        if owner.api_version == version:
            owned = union(owned, owner.fields)
    return owned
