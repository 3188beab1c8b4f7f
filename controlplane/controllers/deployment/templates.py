"""Comparing and naming pod templates. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.meta.objects import clone, dig

HASH_LABEL = "pod-template-hash"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NAME_LIMIT = 253


def template_of(obj: Object) -> Object:
    """`spec.template` of a Deployment or ReplicaSet. Read-only."""
    template: Object = dig(obj, "spec", "template", default={})
    return template


def same_template(a: Object, b: Object) -> bool:
    """Whether two templates make the same pods; the hash label and empty fields do not count."""
    return bool(_essence(a) == _essence(b))


def template_hash(template: Object, collisions: int = 0) -> str:
    """A stable hash of the template in the letters upstream uses (no vowels, nothing that looks alike).

    `collisions` is the Deployment's collision count and leads to another hash.
    """
    data = orjson.dumps([_essence(template), collisions], option=orjson.OPT_SORT_KEYS)
    number = int.from_bytes(hashlib.blake2s(data, digest_size=4).digest(), "big")
    # Eight digits at least, as a 32-bit number mostly has nine or ten.
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in f"{number:08d}")


def with_hash(template: Object, hash_: str) -> Object:
    """A copy of the template whose labels carry the hash."""
    result = clone(template)
    metadata = result.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), HASH_LABEL: hash_}
    return result


def replica_set_name(deployment_name: str, hash_: str) -> str:
    """`<deployment>-<hash>`, cut to what a name may have."""
    return f"{deployment_name[: _NAME_LIMIT - len(hash_) - 1]}-{hash_}"


def _essence(template: Object) -> Any:
    copy = dict(template)
    metadata = dict(copy.get("metadata") or {})
    labels = dict(metadata.get("labels") or {})
    labels.pop(HASH_LABEL, None)
    metadata["labels"] = labels
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
