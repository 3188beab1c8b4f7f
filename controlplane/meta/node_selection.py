"""Node selectors: whether a pod's `nodeSelector` and required node affinity let it on a node. Pure.

Called by the scheduler and by the DaemonSet controller, which must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.meta.objects import dig


def required_matches(spec: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether the node of that name and labels is one the pod spec asks for."""
    selector: Mapping[str, str] = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    required = dig(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def term_matches(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """A nodeSelectorTerm: all its expressions and fields must hold; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    named = {"metadata.name": name}
    return all(_holds(each, labels) for each in expressions) and all(_holds(each, named) for each in fields)


def _holds(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    value = values.get(requirement["key"])
    wanted = requirement.get("values") or []
    operator = requirement["operator"]
    if operator == "In":
        return value is not None and value in wanted
    if operator == "NotIn":
        return value is None or value not in wanted
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        number, bound = int(value or ""), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else number < bound
