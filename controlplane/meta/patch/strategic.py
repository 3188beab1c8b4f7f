"""Strategic merge patch, `application/strategic-merge-patch+json`: a merge patch that knows lists with keys.

Called by the registry for built-in kinds, with the kind's merge rules from `controlplane.schema`. Directives
and faults follow apimachinery's `strategicpatch` (v0.32):

    $patch: delete | replace | merge       of a mapping, or of one item of a merged list
    $setElementOrder/FIELD: [...]          the order the client wants its own items in
    $deleteFromPrimitiveList/FIELD: [...]  values to take out of a merged list of plain values
    $retainKeys: [...]                     drop every other key of this mapping
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.errors import BadRequest, Invalid, Object, Unclassified
from controlplane.meta.go_values import go_value
from controlplane.meta.objects import clone
from controlplane.meta.patch.json_patch import REJECTED

_DIRECTIVE = "$patch"
_RETAIN_KEYS = "$retainKeys"
_SET_ORDER = "$setElementOrder"
_DELETE_FROM = "$deleteFromPrimitiveList"
_PREFIXES = (_SET_ORDER, _DELETE_FROM)


class MergeSchema(Protocol):
    """What a mapping's type tells about patching its fields."""

    def merge_rule(self, field: str) -> MergeRule: ...


@dataclass(frozen=True, slots=True)
class MergeRule:
    """How one field is patched.

    `merge` marks lists that are merged instead of replaced, by the items' `key` (empty for plain values);
    `replace` marks mappings that are replaced. `schema` describes the value, or the items of its list.
    """

    merge: bool = False
    key: str = ""
    replace: bool = False
    schema: MergeSchema | None = None


UNKNOWN = MergeRule()


def apply_strategic(obj: Object, patch: Any, schema: MergeSchema | None) -> Object:
    """A new object. Without a schema lists are replaced, as in a plain merge patch.

    Raises BadRequest for malformed patches and directives, Invalid for lists of lists, Unclassified (as
    upstream does) for items without merge key and unknown directives.
    """
    if not isinstance(patch, dict):
        raise BadRequest("invalid JSON document")
    return _merge_map(clone(obj), clone(patch), schema)


def _merge_map(original: Object, patch: Object, schema: MergeSchema | None) -> Object:
    """Merges in place and returns `original`; `patch` is used up."""
    if _DIRECTIVE in patch:
        return _replaced_map(patch)
    _retain_keys(original, patch)
    _merge_ordered_lists(original, patch, schema)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            field = _directive_field(key, _DELETE_FROM)
            if isinstance(original.get(field), list) and isinstance(value, list):
                original[field] = [item for item in original[field] if _index(value, item, "") < 0]
        elif value is None:
            original.pop(key, None)
        else:
            _merge_member(original, key, value, schema)
    return original


def _replaced_map(patch: Object) -> Object:
    directive = patch.pop(_DIRECTIVE)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    raise Unclassified(f"unknown patch type: {go_value(directive)} in map: {go_value(patch)}")


def _merge_member(original: Object, key: str, value: Any, schema: MergeSchema | None) -> None:
    present = original.get(key)
    rule = schema.merge_rule(key) if schema is not None else UNKNOWN
    if isinstance(present, dict) and isinstance(value, dict):
        original[key] = _without_nulls(value) if rule.replace else _merge_map(present, value, rule.schema)
    elif isinstance(present, list) and isinstance(value, list):
        original[key] = _merge_list(present, value, rule)
    elif isinstance(value, dict) and value.get(_DIRECTIVE) == "delete":
        original.pop(key, None)
    else:
        original[key] = _clean(value)


def _retain_keys(original: Object, patch: Object) -> None:
    if _RETAIN_KEYS not in patch:
        return
    retained = patch.pop(_RETAIN_KEYS)
    if not isinstance(retained, list):
        raise BadRequest("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith(_PREFIXES) and key not in retained:
            raise BadRequest("invalid patch format of retainKeys")
    for key in [key for key in original if key not in retained]:
        del original[key]


def _directive_field(key: str, prefix: str) -> str:
    head, slash, field = key.partition("/")
    if head == prefix and slash:
        return field
    what = "primitive list" if prefix == _DELETE_FROM else "setElementOrder list"
    raise BadRequest(f"invalid patch format of {what}")


def _merge_ordered_lists(original: Object, patch: Object, schema: MergeSchema | None) -> None:
    """Merges the lists whose order the patch gives; takes them and their orders out of `patch`."""
    for key in [key for key in patch if key.startswith(_SET_ORDER)]:
        order = patch.pop(key)
        field = _directive_field(key, _SET_ORDER)
        present, change = original.get(field), patch.get(field)
        for value in (order, present, change):
            if value is not None and not isinstance(value, list):
                raise Unclassified(f"expected a []interface {{}}, but received a {_go_type(value)}")
        rule = schema.merge_rule(field) if schema is not None else UNKNOWN
        order, change = order or [], change or []
        _check_order(change, order, rule.key)
        if present is None and field not in patch:
            continue
        patch.pop(field, None)
        merged = _merge_list(present, change, rule) if present and change else present or _clean(change)
        ours = [item for item in merged if _index(order, item, rule.key) >= 0]
        others = [item for item in merged if _index(order, item, rule.key) < 0]
        original[field] = _interleave(ours, others, order, present or [], rule.key)


def _check_order(change: list[Any], order: list[Any], key: str) -> None:
    """The items of the patch must stand in the given order, which must name them all."""
    items = [item for item in change if not (isinstance(item, dict) and _DIRECTIVE in item)]
    if not items or not order:
        return
    at = 0
    for wanted in order:
        if at < len(items) and _same(_key_of(items[at], key), _key_of(wanted, key)):
            at += 1
    if at < len(items):
        raise Unclassified(
            f"The order in patch list:\n{go_value(change)}\n doesn't match {_SET_ORDER} list:\n{go_value(order)}\n"
        )


def _merge_list(original: list[Any], change: list[Any], rule: MergeRule) -> list[Any]:
    if not rule.merge:
        return [_clean(item) for item in change]
    if any(isinstance(item, list) for item in (*original, *change)):
        # "lists of lists are not supported": upstream keeps that to itself.
        raise Invalid(REJECTED)
    kinds = {isinstance(item, dict) for item in (*original, *change)}
    if len(kinds) > 1:
        raise Unclassified(f"list element types are not identical: [{go_value(original)} {go_value(change)}]")
    if kinds == {True}:
        return _merge_items(original, change, rule)
    merged = _distinct((*original, *change))
    ours = [item for item in merged if _index(change, item, "") >= 0]
    others = [item for item in merged if _index(change, item, "") < 0]
    return _interleave(ours, others, change, original, "")


def _merge_items(original: list[Object], change: list[Object], rule: MergeRule) -> list[Any]:
    """Merges lists of mappings by their key, deletions first."""
    if not rule.key:
        raise Unclassified("cannot merge lists without merge key for type struct")
    kept, additions = _special_items(original, change, rule.key)
    merged = list(kept)
    for item in additions:
        at = _index(merged, item, rule.key)
        if at >= 0:
            merged[at] = _merge_map(merged[at], item, rule.schema)
        else:
            merged.append(_clean(item))
    ours = [item for item in merged if _index(additions, item, rule.key) >= 0]
    others = [item for item in merged if _index(additions, item, rule.key) < 0]
    return _interleave(ours, others, additions, kept, rule.key)


def _special_items(
    original: list[Object], change: list[Object], key: str
) -> tuple[list[Object], list[Object]]:
    """Carries out the items with a directive: what stays of `original`, and the items to merge into it."""
    additions: list[Object] = []
    replace = False
    for item in change:
        directive = item.get(_DIRECTIVE)
        if directive is None:
            _key_of(item, key)
            additions.append(item)
        elif directive == "delete":
            doomed = _key_of(item, key)
            original = [present for present in original if not _same(present.get(key), doomed)]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise Unclassified("merging lists cannot yet be specified in the patch")
        else:
            raise Unclassified(f"unknown patch type: {go_value(directive)} in map: {go_value(item)}")
    if replace:
        return [_clean(item) for item in additions], []
    return original, additions


def _interleave(
    ours: list[Any], others: list[Any], order: Sequence[Any], present: Sequence[Any], key: str
) -> list[Any]:
    """The patch's items in the patch's order, the server's own items between them as they stood before."""
    ours = sorted(ours, key=lambda item: _index(order, item, key))
    others = sorted(others, key=lambda item: _index(present, item, key))
    merged: list[Any] = []
    while ours and others:
        other, own = _index(present, others[0], key), _index(present, ours[0], key)
        merged.append((others if 0 <= other < own else ours).pop(0))
    return merged + ours + others


def _key_of(item: Any, key: str) -> Any:
    """What identifies an item: its merge key, or itself in lists of plain values."""
    if not key:
        return item
    if not isinstance(item, dict):
        raise Unclassified(f"expected a map[string]interface {{}}, but received a {_go_type(item)}")
    if key not in item:
        raise Unclassified(f"map: {go_value(item)} does not contain declared merge key: {key}")
    return item[key]


def _index(items: Sequence[Any], wanted: Any, key: str) -> int:
    """Where an item with the same identity stands, or -1."""
    identity = _key_of(wanted, key)
    for at, item in enumerate(items):
        if _same(_key_of(item, key), identity):
            return at
    return -1


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _distinct(items: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if _index(found, item, "") < 0:
            found.append(item)
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _clean(value: Any) -> Any:
    """A patch's value as it becomes a part of the object: no nulls, no directives, nothing they delete."""
    if isinstance(value, dict):
        return {
            key: _clean(member)
            for key, member in value.items()
            if member is not None
            and key not in (_DIRECTIVE, _RETAIN_KEYS)
            and not key.startswith(_PREFIXES)
            and not _deletes(member)
        }
    if isinstance(value, list):
        return [_clean(item) for item in value if not _deletes(item) and not _only_directive(item)]
    return value


def _deletes(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"


def _only_directive(value: Any) -> bool:
    """An item such as `{$patch: replace}`, which speaks of its list and is no item itself."""
    return isinstance(value, dict) and len(value) == 1 and _DIRECTIVE in value


def _go_type(value: Any) -> str:
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, list):
        return "[]interface {}"
    names = {bool: "bool", int: "int64", float: "float64", str: "string"}
    return names.get(type(value), "<nil>")
