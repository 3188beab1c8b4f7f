"""Pod templates: pods made from them, names for them, and what two of them have in common. Pure.

Called by the controllers of everything that has a pod template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.meta.objects import clone, dig, name, namespace
from controlplane.meta.owners import owner_reference

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_COPIED = ("labels", "annotations", "finalizers")


def template_of(obj: Object) -> Object:
    """`spec.template` of a workload. Read-only."""
    template: Object = dig(obj, "spec", "template", default={})
    return template


def pod_from(template: Object, api_version: str, kind: str, owner: Object) -> Object:
    """A new pod, the caller's own, as the template says, with a generated name, controlled by `owner`."""
    template = clone(template)
    described = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{name(owner)}-",
        "namespace": namespace(owner),
        "ownerReferences": [owner_reference(api_version, kind, owner)],
        **{field: described[field] for field in _COPIED if described.get(field)},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def safe_hash(value: Any, collisions: int = 0) -> str:
    """A stable hash of a JSON value in the letters upstream uses (no vowels, nothing that looks alike).

    `collisions` is the owner's collision count and leads to another hash.
    """
    data = orjson.dumps([value, collisions], option=orjson.OPT_SORT_KEYS)
    number = int.from_bytes(hashlib.blake2s(data, digest_size=4).digest(), "big")
    # Eight digits at least, as a 32-bit number mostly has nine or ten.
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in f"{number:08d}")


def essence(template: Object, ignored_labels: Sequence[str] = ()) -> Any:
    """What of a template makes its pods: without the ignored labels and without empty fields."""
    copy = dict(template)
    metadata = dict(copy.get("metadata") or {})
    labels = metadata.get("labels") or {}
    metadata["labels"] = {key: value for key, value in labels.items() if key not in ignored_labels}
    copy["metadata"] = metadata
    return _without_empty(copy)


def _without_empty(value: Any) -> Any:
    """Go's semantic equality knows no difference between a missing and an empty list or map."""
    if isinstance(value, dict):
        pairs = ((key, _without_empty(item)) for key, item in value.items())
        return {key: item for key, item in pairs if item is not None and item != {} and item != []}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
