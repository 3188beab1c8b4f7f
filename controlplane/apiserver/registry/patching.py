"""patch: a parsed patch as proposal for an update. Pure; the registry hands the proposal to `updating.modify`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.apiserver.registry.requests import PatchType
from controlplane.errors import BadRequest, Object, UnsupportedMediaType, invalid
from controlplane.meta.objects import clone
from controlplane.meta.patch.json_patch import apply_json_patch
from controlplane.meta.patch.merge import apply_merge_patch
from controlplane.meta.patch.strategic import apply_strategic
from controlplane.resources.fieldpath import invalid as invalid_field
from controlplane.resources.kind import Kind
from controlplane.schema.definitions import type_for

Check = Callable[[Object], Object]
"""Sees each patched object; returns it, pruned perhaps, or raises."""


def patched(
    obj: Object,
    patch_type: PatchType,
    patch: Any,
    check: Check | None,
    api_version: str,
    kind_name: str,
) -> Object:
    """A new object that shares nothing with `obj`. Raises what the patch formats and `check` raise."""
    match patch_type:
        case PatchType.JSON:
            result = apply_json_patch(obj, patch)
        case PatchType.MERGE:
            result = clone(apply_merge_patch(obj, patch))
        case PatchType.STRATEGIC:
            result = apply_strategic(obj, patch, type_for(api_version, kind_name))
        case _:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(f"{known}" for known in PatchType if known is not PatchType.APPLY)
            )
    if not isinstance(result.get("metadata"), dict):
        raise BadRequest("the patched object has no metadata")
    if check is not None:
        result = check(result)
    return result


def check_identity(kind: Kind, name: str, result: Object) -> None:
    """A patch may not rename its object. Raises Invalid."""
    given = result["metadata"].get("name")
    if given != name:
        cause = invalid_field("metadata.name", given or "", "field is immutable")
        raise invalid(kind.kind, kind.group, name, [cause])
