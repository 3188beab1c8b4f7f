"""Makes patches the way clients do, so that properties can be stated as "patching to X gives X"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from `old` to `new` (neither may hold nulls)."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if change := merge_diff(before, value):
                patch[key] = change
        elif key not in old or before != value:
            patch[key] = value
    return patch


def strategic_diff(old: Mapping[str, Any], new: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """The strategic merge patch from `old` to `new`, with orders and deletions as kubectl writes them.

    `keys` gives the merge key of each merged list's field; an empty key marks merged lists of plain values.
    """
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for field, value in new.items():
        before = old.get(field)
        if field not in old:
            patch[field] = value
        elif value == before:
            continue
        elif isinstance(value, dict) and isinstance(before, dict):
            patch[field] = strategic_diff(before, value, keys)
        elif isinstance(value, list) and isinstance(before, list) and keys.get(field):
            patch |= _items(field, before, value, keys)
        elif isinstance(value, list) and isinstance(before, list) and field in keys:
            patch |= _plain_values(field, before, value)
        else:
            patch[field] = value
    return patch


def _items(
    field: str, before: list[dict[str, Any]], after: list[dict[str, Any]], keys: Mapping[str, str]
) -> dict[str, Any]:
    key = keys[field]
    known = {item[key]: item for item in before}
    wanted = {item[key] for item in after}
    changes = []
    for item in after:
        if item[key] not in known:
            changes.append(item)
        elif change := strategic_diff(known[item[key]], item, keys):
            changes.append({key: item[key], **change})
    changes += [{key: name, "$patch": "delete"} for name in known if name not in wanted]
    patch: dict[str, Any] = {f"$setElementOrder/{field}": [{key: item[key]} for item in after]}
    return {**patch, field: changes} if changes else patch


def _plain_values(field: str, before: list[Any], after: list[Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {f"$setElementOrder/{field}": after}
    if added := [value for value in after if value not in before]:
        patch[field] = added
    if removed := [value for value in before if value not in after]:
        patch[f"$deleteFromPrimitiveList/{field}"] = removed
    return patch
