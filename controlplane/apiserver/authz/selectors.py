"""Selectors of a request as requirements an authorizer can read. Called by the core and by the review kinds.

What cannot be read narrows nothing: it is left out here, and the verb itself refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controlplane.apiserver.authz.attributes import Attributes, Requirement
from controlplane.apiserver.options import Query
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.meta.fields import FieldSelector
from controlplane.meta.labels import LabelSelector

_SELECTING = frozenset({"list", "watch", "deletecollection"})
_FIELD_OPERATORS = {"=": "In", "!=": "NotIn"}
_LABEL_OPERATORS = {
    "=": "In",
    "==": "In",
    "in": "In",
    "!=": "NotIn",
    "notin": "NotIn",
    "exists": "Exists",
    "": "Exists",
    "!": "DoesNotExist",
}


def attributes_of(user: UserInfo, info: RequestInfo, query: Query) -> Attributes:
    """The attributes of a request. `metadata.name=X` as field selector asks for the object X alone."""
    if info.verb not in _SELECTING or not info.is_resource:
        return Attributes(user, info)
    fields, labels = query.text("fieldSelector"), query.text("labelSelector")
    if not fields and not labels:
        return Attributes(user, info)
    wanted = field_requirements(fields)
    if not info.name:
        name = next((r.values[0] for r in wanted if r.key == "metadata.name" and r.operator == "In"), "")
        if name and name not in (".", "..") and not set("/%") & set(name):
            info = replace(info, name=name)
    return Attributes(user, info, wanted, label_requirements(labels))


def field_requirements(text: str) -> tuple[Requirement, ...]:
    try:
        selector = FieldSelector.parse(text)
    except ValueError:
        return ()
    return tuple(
        Requirement(field, _FIELD_OPERATORS[operator], (value,))
        for field, operator, value in selector.requirements
    )


def label_requirements(text: str) -> tuple[Requirement, ...]:
    try:
        selector = LabelSelector.parse(text)
    except ValueError:
        return ()
    return tuple(
        Requirement(r.key, _LABEL_OPERATORS[r.operator], tuple(r.values))
        for r in selector.requirements
        if r.operator in _LABEL_OPERATORS
    )


def from_review(selector: Object | None, *, labels: bool) -> tuple[Requirement, ...]:
    """The requirements of a review's `fieldSelector` or `labelSelector`, raw or taken apart."""
    if not selector:
        return ()
    raw = selector.get("rawSelector") or ""
    if raw:
        return label_requirements(raw) if labels else field_requirements(raw)
    return tuple(_known(selector.get("requirements") or (), labels=labels))


def _known(requirements: Iterable[Object], *, labels: bool) -> Iterable[Requirement]:
    for each in requirements:
        key, operator = each.get("key", ""), each.get("operator", "")
        values = tuple(each.get("values") or ())
        usable = bool(values) == (operator in ("In", "NotIn"))
        if operator not in ("In", "NotIn", "Exists", "DoesNotExist") or not key or not usable:
            continue
        if not labels and (operator not in ("In", "NotIn") or len(values) != 1):
            continue  # field selectors compare with one value only
        yield Requirement(key, operator, values)
