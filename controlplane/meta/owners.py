"""Owner references: which object made which, and which of them controls it.

Called by controllers, the garbage collector and listings. Reads and builds values only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import metadata, name, uid


def references(obj: Mapping[str, Any]) -> Sequence[Object]:
    """All owner references of the object. Read-only."""
    return metadata(obj).get("ownerReferences") or ()


def controller_of(obj: Mapping[str, Any]) -> Object | None:
    """The one reference with `controller: true`, or None."""
    for reference in references(obj):
        if reference.get("controller"):
            return reference
    return None


def owner_reference(
    api_version: str, kind: str, obj: Mapping[str, Any], *, controller: bool = True, block: bool = True
) -> Object:
    """A reference to the owner `obj`, to be put into the dependent's `metadata.ownerReferences`.

    `block` sets `blockOwnerDeletion`: a foreground deletion of the owner then waits for the dependent.
    """
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name(obj),
        "uid": uid(obj),
        "controller": controller,
        "blockOwnerDeletion": block,
    }


def is_controlled_by(obj: Mapping[str, Any], owner_uid: str) -> bool:
    """Whether the object's controller is the one with this uid. Names are not compared: they get reused."""
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == owner_uid


OWNER_INDEX = "controller"
"""Name of the informer index that `by_controller` fills."""


def by_controller(obj: Mapping[str, Any]) -> tuple[str]:
    """Index values: the controller's uid, or for objects without one what `orphans_of` says."""
    controller = controller_of(obj)
    return (controller["uid"] if controller else orphans_of(metadata(obj).get("namespace", "")),)


def orphans_of(namespace: str) -> str:
    """The index value of a namespace's objects that nothing controls."""
    return f"orphans of {namespace}"
