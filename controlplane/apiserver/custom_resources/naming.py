"""Which names a CustomResourceDefinition gets, and its conditions NamesAccepted and Established. Pure.

Names are given to whoever asks first within a group; a name in use is a conflict until its owner lets go of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.resources.custom.definition import (
    APPROVAL,
    ESTABLISHED,
    NAMES_ACCEPTED,
    condition,
)

_APPROVED = "KubernetesAPIApprovalPolicyConformant"


def settled_status(definition: Object, others: Iterable[Object]) -> Object:
    """The status the definition should have beside `others`, the definitions of the same group as they are."""
    status = dict(definition.get("status") or {})
    accepted, names_condition = _accept(definition, others)
    listed = conditions.with_condition(status.get("conditions"), names_condition)
    established = conditions.find(listed, ESTABLISHED)
    if established is None or established.get("status") != "True":
        if names_condition["status"] == "True":
            new = condition(
                ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted"
            )
        else:
            new = condition(ESTABLISHED, "False", "NotAccepted", "not all names are accepted")
        listed = conditions.with_condition(listed, new)
    approval = _approval(definition)
    if approval is not None:
        listed = conditions.with_condition(listed, approval)
    before = {each.get("type"): each for each in status.get("conditions") or ()}
    status["conditions"] = [_unless_same(each, before.get(each.get("type"))) for each in listed]
    status["acceptedNames"] = accepted
    return status


def _unless_same(new: Object, old: Object | None) -> Object:
    """The old condition when only times differ."""
    if old is not None and all(new.get(key) == old.get(key) for key in ("status", "reason", "message")):
        return old
    return new


def _accept(definition: Object, others: Iterable[Object]) -> tuple[Object, Object]:
    wanted = definition["spec"]["names"]
    present = (definition.get("status") or {}).get("acceptedNames") or {}
    resources, kinds = _taken(others)
    accepted: Object = {"plural": present.get("plural", ""), "kind": present.get("kind", "")}
    accepted |= {key: value for key, value in present.items() if value}
    conflict: tuple[str, str] | None = None
    for key, reason, taken in (
        ("plural", "PluralConflict", resources),
        ("singular", "SingularConflict", resources),
        ("shortNames", "ShortNamesConflict", resources),
        ("kind", "KindConflict", kinds),
        ("listKind", "ListKindConflict", kinds),
    ):
        fault = _fault(wanted.get(key), present.get(key), taken)
        if fault:
            conflict = reason, fault
        elif wanted.get(key):
            accepted[key] = wanted[key]
        else:
            accepted.pop(key, None)
    accepted.pop("categories", None)
    if wanted.get("categories"):
        accepted["categories"] = wanted["categories"]
    if conflict is not None:
        return accepted, condition(NAMES_ACCEPTED, "False", *conflict)
    return accepted, condition(NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found")


def _fault(wanted: object, present: object, taken: frozenset[str]) -> str:
    """What stands against a name, or against some of a list of names."""
    if wanted == present or not wanted:
        return ""
    if isinstance(wanted, list):
        own = present if isinstance(present, list) else []
        used = [f'"{name}" is already in use' for name in wanted if name not in own and name in taken]
        return used[0] if len(used) == 1 else f"[{', '.join(used)}]" if used else ""
    return f'"{wanted}" is already in use' if wanted in taken else ""


def _taken(others: Iterable[Object]) -> tuple[frozenset[str], frozenset[str]]:
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources.update(
            (names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ()))
        )
        kinds.update((names.get("kind", ""), names.get("listKind", "")))
    return frozenset(resources - {""}), frozenset(kinds - {""})


def _approval(definition: Object) -> Object | None:
    group = definition["spec"]["group"]
    if not any(group == each or group.endswith(f".{each}") for each in ("k8s.io", "kubernetes.io")):
        return None
    value = (definition["metadata"].get("annotations") or {}).get(APPROVAL) or ""
    if not value:
        text = f'protected groups must have approval annotation "{APPROVAL}", see https://github.com/kubernetes/enhancements/pull/1111'
        return condition(_APPROVED, "False", "MissingAnnotation", text)
    if value.startswith("unapproved"):
        return condition(_APPROVED, "False", "UnapprovedAnnotation", f'not approved: "{value}"')
    return condition(_APPROVED, "True", "ApprovedAnnotation", f"approved in {value}")
