"""Owners after a change of schema: what was owned part by part and is atomic now is owned as a whole.

Called before each write of a custom resource. The other direction needs nothing: who owns a whole keeps it.
"""

from __future__ import annotations

from controlplane.meta.managed.entries import Identity, Owner, Owners
from controlplane.meta.managed.sets import LEAF, SELF, FieldSet
from controlplane.meta.managed.shapes import Form, Shape


def reconciled(shape: Shape, api_version: str, owners: Owners) -> dict[Identity, Owner]:
    """The owners in terms of the type as it is now; those of other versions are left as they are."""
    return {
        identity: owner.holding(_reconciled(shape, owner.fields))
        if owner.api_version == api_version
        else owner
        for identity, owner in owners.items()
    }


def _reconciled(shape: Shape, fields: FieldSet) -> FieldSet:
    """The same set when nothing in it changed its kind."""
    changed: FieldSet = {}
    for element, node in fields.items():
        if not node or element == SELF:
            continue
        child = shape.child(element[2:] if element[0] == "f" else "")
        new = LEAF if child.atomic and child.form is not Form.ANY else _reconciled(child, node)
        if new is not node:
            changed[element] = new
    return {**fields, **changed} if changed else fields
