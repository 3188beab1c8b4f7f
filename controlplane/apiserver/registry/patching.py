"""patch: a parsed patch as proposal for an update. Pure; the registry hands the proposal to `updating.modify`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.apiserver.registry.requests import PatchType
from controlplane.errors import BadRequest, Object, UnsupportedMediaType
from controlplane.meta.objects import clone
from controlplane.meta.patch.json_patch import apply_json_patch
from controlplane.meta.patch.merge import apply_merge_patch
from controlplane.meta.patch.strategic import apply_strategic
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
    """A new object that shares nothing with `obj` but entries of managedFields.

    Raises what the patch formats and `check` raise.
    """
    entries = obj["metadata"].get("managedFields")
    if entries is None or _mentions_entries(patch_type, patch):
        return _checked(_patched(obj, patch_type, patch, api_version, kind_name), check)
    # They are large, and few patches speak of them.
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    result = _patched({**obj, "metadata": metadata}, patch_type, patch, api_version, kind_name)
    result = _checked(result, check)
    result["metadata"]["managedFields"] = entries
    return result


def _patched(obj: Object, patch_type: PatchType, patch: Any, api_version: str, kind_name: str) -> Object:
    match patch_type:
        case PatchType.JSON:
            return apply_json_patch(obj, patch)
        case PatchType.MERGE:
            return clone(apply_merge_patch(obj, patch))
        case PatchType.STRATEGIC:
            return apply_strategic(obj, patch, type_for(api_version, kind_name))
        case _:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(f"{known}" for known in PatchType if known is not PatchType.APPLY)
            )


def _checked(result: Object, check: Check | None) -> Object:
    if not isinstance(result.get("metadata"), dict):
        raise BadRequest("the patched object has no metadata")
    return result if check is None else check(result)


def _mentions_entries(patch_type: PatchType, patch: Any) -> bool:
    if patch_type is not PatchType.JSON:
        if not isinstance(patch, dict) or "$patch" in patch:
            return True
        metadata = patch.get("metadata", {})
        return not isinstance(metadata, dict) or any(
            key == "managedFields" or key.startswith("$") for key in metadata
        )
    if not isinstance(patch, list):
        return True
    places = [
        operation.get(name) for operation in patch if isinstance(operation, dict) for name in ("path", "from")
    ]
    return any(place in ("", "/metadata") or "managedFields" in str(place) for place in places)
