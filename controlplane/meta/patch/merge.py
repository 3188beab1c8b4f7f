"""JSON merge patch (RFC 7386), `application/merge-patch+json`.

Called by the registry for every kind.
"""

from __future__ import annotations

from typing import Any

from controlplane.errors import BadRequest, Object


def apply_merge_patch(obj: Object, patch: Any) -> Object:
    """A new object: null removes a key, mappings merge, everything else (lists too) replaces.

    Unchanged parts are shared with `obj`. Raises BadRequest when the patch is no JSON object.
    """
    if not isinstance(patch, dict):
        raise BadRequest("Invalid JSON Patch")
    return _merge(obj, patch)


def _merge(target: Any, patch: Object) -> Object:
    merged: Object = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged
