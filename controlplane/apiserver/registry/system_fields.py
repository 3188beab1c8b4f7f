"""The fields of metadata that belong to the server: set on create, carried over on update. Pure.

Called by creation and updating before validation, which then judges what is left of the client's wishes.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from controlplane.errors import BadRequest, Object
from controlplane.meta.timestamps import format_time
from controlplane.resources.kind import Kind

_OPTIONAL = ("labels", "annotations", "finalizers", "ownerReferences", "generateName", "selfLink")
_NOT_SPEC = frozenset({"apiVersion", "kind", "metadata", "status"})


def own_metadata(obj: Object) -> Object:
    """The object's metadata as a mapping of its own, without what Go would leave out; put back into `obj`."""
    given = obj.get("metadata")
    if given is not None and not isinstance(given, dict):
        raise BadRequest("metadata must be an object")
    metadata = {key: value for key, value in (given or {}).items() if value is not None}
    for key in _OPTIONAL:
        if key in metadata and not metadata[key]:
            del metadata[key]
    metadata.pop("selfLink", None)
    obj["metadata"] = metadata
    return metadata


def dedupe_owners(metadata: Object, warnings: list[str]) -> None:
    """Owner references that are there twice count once, with a warning."""
    owners = metadata.get("ownerReferences")
    if not isinstance(owners, list) or len(owners) < 2:
        return
    kept: list[Object] = []
    doubled: list[str] = []
    for owner in owners:
        if owner in kept:
            doubled.append(str(owner.get("uid", "")))
        else:
            kept.append(owner)
    if doubled:
        metadata["ownerReferences"] = kept
        warnings.append(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and "
            "may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
            + ", ".join(doubled)
        )


def check_type(kind: Kind, obj: Object) -> None:
    """`apiVersion` and `kind` of the body are the kind's, or left out and filled in. Raises BadRequest."""
    version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name != kind.kind:
        raise BadRequest(f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}')
    obj["apiVersion"], obj["kind"] = version, name


def set_namespace(kind: Kind, metadata: Object, namespace: str) -> None:
    """The URL's namespace; another one in the body is refused. Cluster-scoped objects have none."""
    given = metadata.pop("namespace", None) or ""
    if not kind.namespaced:
        return
    if given and given != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = namespace


def fill_new(kind: Kind, metadata: Object, now: datetime) -> None:
    """What a new object gets, whatever the client sent."""
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"):
        metadata.pop(key, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = format_time(now)
    if kind.generation:
        metadata["generation"] = 1


def carry_over(metadata: Object, old: Object) -> None:
    """What an update cannot lose: left out means as before, generation and a begun deletion always stay."""
    before = old["metadata"]
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if not metadata.get(key) and key in before:
            metadata[key] = before[key]
    metadata.pop("generation", None)
    if "generation" in before:
        metadata["generation"] = before["generation"]
    if "deletionTimestamp" in before:
        metadata["deletionTimestamp"] = before["deletionTimestamp"]
    if "deletionGracePeriodSeconds" in before:
        metadata.setdefault("deletionGracePeriodSeconds", before["deletionGracePeriodSeconds"])


def spec_changed(new: Object, old: Object, *, has_status: bool = True) -> bool:
    """Whether anything but metadata and status differs. Without a status subresource the status counts as well."""
    return any(
        new.get(key) != old.get(key)
        for key in new.keys() | old.keys()
        if key not in _NOT_SPEC or (key == "status" and not has_status)
    )


def bump_generation(metadata: Object) -> None:
    """One more, for objects that count."""
    if metadata.get("generation"):
        metadata["generation"] += 1
