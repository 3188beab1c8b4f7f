"""Comparing and naming the pod templates of ReplicaSets. Pure."""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.meta.objects import clone
from controlplane.meta.pod_templates import essence, safe_hash

HASH_LABEL = "pod-template-hash"

_NAME_LIMIT = 253


def same_template(a: Object, b: Object) -> bool:
    """Whether two templates make the same pods; the hash label and empty fields do not count."""
    return bool(essence(a, (HASH_LABEL,)) == essence(b, (HASH_LABEL,)))


def template_hash(template: Object, collisions: int = 0) -> str:
    """The hash label's value; `collisions` is the Deployment's collision count and leads to another hash."""
    return safe_hash(essence(template, (HASH_LABEL,)), collisions)


def with_hash(template: Object, hash_: str) -> Object:
    """A copy of the template whose labels carry the hash."""
    result = clone(template)
    metadata = result.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), HASH_LABEL: hash_}
    return result


def replica_set_name(deployment_name: str, hash_: str) -> str:
    """`<deployment>-<hash>`, cut to what a name may have."""
    return f"{deployment_name[: _NAME_LIMIT - len(hash_) - 1]}-{hash_}"
