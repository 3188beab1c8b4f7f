"""Validation of ObjectMeta, the same for every kind (apimachinery's `pkg/api/validation`, v0.32).

Called by the registry on every write. Says nothing of resourceVersion, uid or namespace rules that depend
on the request: those are the registry's.
"""

from __future__ import annotations

from collections.abc import Callable

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_subdomain, qualified_name
from controlplane.resources.fieldpath import string_list
from controlplane.resources.kind import Kind
from controlplane.resources.rules import Field

ANNOTATIONS_MAX = 256 * 1024
"""Bytes of all annotation keys and values of one object together."""
MANAGER_MAX = 128
SUBRESOURCE_MAX = 256
"""Bytes of a field manager's name, and of the subresource it wrote through."""


def validate_metadata(kind: Kind, obj: Object) -> list[Cause]:
    """What is wrong with a new object's metadata."""
    meta = Field.root(obj)["metadata"]
    _generate_name(kind, meta["generateName"])
    meta["name"].required("name or generateName is required").check(kind.validate_name or dns1123_subdomain)
    if kind.namespaced:
        meta["namespace"].required().dns_label()
    else:
        meta["namespace"].absent("not allowed on this type")
    _always(meta)
    return meta.causes


def validate_metadata_update(kind: Kind, new: Object, old: Object) -> list[Cause]:
    """What is wrong with the metadata an update leads to."""
    meta, before = Field.root(new)["metadata"], Field.root(old)["metadata"]
    if before["deletionTimestamp"].present:
        extra = sorted(set(meta["finalizers"].value or ()) - set(before["finalizers"].value or ()))
        if extra:
            meta["finalizers"].forbidden(
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers {string_list(extra)}"
            )
    meta["name"].unchanged(before["name"])
    meta["namespace"].unchanged(before["namespace"])
    for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        # Left out means as before.
        if meta[name].present:
            meta[name].unchanged(before[name])
    if isinstance(meta["generation"].value, int) and meta["generation"].value < (
        before["generation"].value or 0
    ):
        meta["generation"].invalid("must not be decremented")
    _always(meta, before)
    return meta.causes


def _generate_name(kind: Kind, prefix: Field) -> None:
    if prefix.present:
        # A trailing dash is what makes a prefix; the suffix will follow it.
        masked = prefix.text[:-2] + "a" if len(prefix.text) > 1 and prefix.text.endswith("-") else prefix.text
        for message in (kind.validate_name or dns1123_subdomain)(masked):
            prefix.invalid(message)


def _always(meta: Field, before: Field | None = None) -> None:
    """What holds at any time. What is as `before` was judged when it came: for most updates that is all of it."""
    meta["generation"].not_negative()
    for name, check in _PARTS.items():
        part = meta[name]
        if before is None or part.value != before[name].value:
            check(part)


def _entries(entries: Field) -> None:
    """Limits of what clients may put there; all else the tracking of owners has seen to. Mostly there is nothing."""
    texts = [
        len(str(entry.get(name) or ""))
        for entry in entries.value or ()
        if isinstance(entry, dict)
        for name in ("manager", "subresource")
    ]
    if max(texts, default=0) <= MANAGER_MAX // 4:
        return
    for entry in entries:
        entry["manager"].max_bytes(MANAGER_MAX)
        entry["subresource"].max_bytes(SUBRESOURCE_MAX)


def validate_annotations(annotations: Field) -> None:
    """Keys are qualified names in any case; the whole map has a limit of size."""
    size = 0
    for name, entry in annotations.entries():
        for message in qualified_name(name.lower()):
            annotations.of(name).invalid(message)
        size += len(name.encode()) + len(entry.text.encode())
    if size > ANNOTATIONS_MAX:
        annotations.of("x" * (ANNOTATIONS_MAX + 1)).max_bytes(ANNOTATIONS_MAX)


def _owners(owners: Field) -> None:
    controller = ""
    for owner in owners:
        for name, empty in (
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ):
            if not owner[name].present:
                owners[name].of("").invalid(empty)
        if (owner["apiVersion"].text, owner["kind"].text) in (("v1", "Event"), ("events.k8s.io/v1", "Event")):
            owners.of(owner.value).invalid(
                f"{owner['apiVersion'].text}, Kind=Event is disallowed from being an owner"
            )
        if owner["controller"].value is True:
            if controller:
                owners.invalid(
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {owner['name'].text}"
                )
            else:
                controller = owner["name"].text


def _finalizers(finalizers: Field) -> None:
    for finalizer in finalizers:
        finalizers.of(finalizer.value).qualified_name()
    if {"orphan", "foregroundDeletion"} <= set(finalizers.value or ()):
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set")


_PARTS: dict[str, Callable[[Field], object]] = {
    "labels": Field.labels,
    "annotations": validate_annotations,
    "ownerReferences": _owners,
    "finalizers": _finalizers,
    "managedFields": _entries,
}
