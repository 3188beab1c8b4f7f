"""What a delete request does to an object, as in upstream's `rest.BeforeDelete`. Pure: decides, touches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from controlplane.apiserver.registry.requests import DeleteOptions, Propagation
from controlplane.apiserver.registry.system_fields import bump_generation
from controlplane.errors import Object, conflict
from controlplane.meta.objects import dig
from controlplane.meta.timestamps import format_time, parse
from controlplane.resources.kind import Kind

_BY_POLICY = {Propagation.ORPHAN: "orphan", Propagation.FOREGROUND: "foregroundDeletion"}


class Verdict(Enum):
    """REMOVE it now, UPDATE it to the state that came along, or leave it: deletion is PENDING already."""

    REMOVE = auto()
    UPDATE = auto()
    PENDING = auto()


def check_preconditions(kind: Kind, name: str, obj: Object, opts: DeleteOptions) -> None:
    """Raises Conflict."""
    uid, version = obj["metadata"].get("uid", ""), obj["metadata"].get("resourceVersion", "")
    why = ""
    if opts.uid and opts.uid != uid:
        why = (
            f"the UID in the precondition ({opts.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
    elif opts.resource_version and opts.resource_version != version:
        why = (
            f"the ResourceVersion in the precondition ({opts.resource_version}) does not match the "
            f"ResourceVersion in record ({version}). The object might have been modified"
        )
    if why:
        raise conflict(kind.plural, kind.group, name, why)


def decide(kind: Kind, obj: Object, opts: DeleteOptions, now: datetime) -> tuple[Verdict, Object]:
    """The verdict and the state an UPDATE leads to (else `obj`). Raises Conflict for namespaces in deletion."""
    new = {**obj, "metadata": {**obj["metadata"]}}
    if is_finalized_by_content(kind) and dig(obj, "spec", "finalizers"):
        return _begin_namespace(kind, new, obj, opts, now)
    if kind.graceful:
        grace = _grace(new, opts)
        if grace is None:
            return Verdict.PENDING, obj
        if grace > 0:
            _mark(new, now, grace)
            _set_finalizers(kind, new, opts)
            return Verdict.UPDATE, new
    if kind.prepare_delete is not None and not new["metadata"].get("deletionTimestamp"):
        kind.prepare_delete(new)
    finalizers = _set_finalizers(kind, new, opts)
    if not finalizers:
        return Verdict.REMOVE, obj
    _mark(new, now, 0)
    return (Verdict.PENDING, obj) if new == obj else (Verdict.UPDATE, new)


def is_finalized_by_content(kind: Kind) -> bool:
    """Whether the kind has spec.finalizers of its own, which its `finalize` subresource empties (namespaces)."""
    return any(subresource.name == "finalize" for subresource in kind.subresources)


def _begin_namespace(
    kind: Kind, new: Object, obj: Object, opts: DeleteOptions, now: datetime
) -> tuple[Verdict, Object]:
    metadata = new["metadata"]
    if metadata.get("deletionTimestamp"):
        raise conflict(
            kind.plural,
            kind.group,
            metadata["name"],
            "The system is ensuring all content is removed from this namespace.  Upon completion, this "
            "namespace will automatically be purged by the system.",
        )
    metadata["deletionTimestamp"] = format_time(now)
    new["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    _set_finalizers(kind, new, opts)
    return Verdict.UPDATE, new


def _grace(obj: Object, opts: DeleteOptions) -> int | None:
    """Seconds the object still has; 0 = none, None = deletion is pending and this request shortens nothing."""
    metadata = obj["metadata"]
    asked = opts.grace_seconds
    if asked is not None and asked < 0:
        asked = 1
    if metadata.get("deletionTimestamp"):
        granted = metadata.get("deletionGracePeriodSeconds") or 0
        if granted == 0:
            return 0
        return None if asked is None or asked >= granted else asked
    grace = asked if asked is not None else dig(obj, "spec", "terminationGracePeriodSeconds", default=0)
    if not dig(obj, "spec", "nodeName") or dig(obj, "status", "phase") in ("Failed", "Succeeded"):
        return 0
    return 1 if grace < 0 else int(grace)


def _mark(obj: Object, now: datetime, grace: int) -> None:
    """Deletion has begun and ends `grace` seconds after its begin."""
    metadata = obj["metadata"]
    begun = now
    if metadata.get("deletionTimestamp"):
        granted = metadata.get("deletionGracePeriodSeconds") or 0
        begun = parse(metadata["deletionTimestamp"]) - timedelta(seconds=granted)
    else:
        bump_generation(metadata)
    metadata["deletionTimestamp"] = format_time(begun + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace


def _set_finalizers(kind: Kind, obj: Object, opts: DeleteOptions) -> Sequence[str]:
    """The finalizers with those the propagation policy asks for; without a policy they stay, or orphan if the kind
    does so by itself.
    """
    metadata = obj["metadata"]
    finalizers: list[str] = list(metadata.get("finalizers") or ())
    if opts.propagation is None and kind.orphans and not set(finalizers) & set(_BY_POLICY.values()):
        finalizers.append(_BY_POLICY[Propagation.ORPHAN])
    if opts.propagation is not None:
        finalizers = [name for name in finalizers if name not in _BY_POLICY.values()]
        if opts.propagation in _BY_POLICY:
            finalizers.append(_BY_POLICY[opts.propagation])
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
    return finalizers
