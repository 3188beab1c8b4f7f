"""Node selectors and taints: does this pod want, and may it go to, this node? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.tolerations import tolerates
from controlplane.scheduler.snapshot import NodeInfo, PodInfo


def wants_node(pod: PodInfo, node: NodeInfo) -> bool:
    """`nodeSelector` and the required node affinity."""
    selector: Mapping[str, str] = dig(pod.spec, "nodeSelector", default={})
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    required = dig(pod.spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def preferred_weight(pod: PodInfo, node: NodeInfo) -> int:
    """The sum of the weights of the preferred node affinity's terms that match."""
    preferred = dig(
        pod.spec, "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution", default=()
    )
    return sum(
        int(entry.get("weight", 0))
        for entry in preferred
        if not _is_empty(entry.get("preference") or {}) and term_matches(entry["preference"], node)
    )


def term_matches(term: Mapping[str, Any], node: NodeInfo) -> bool:
    """A nodeSelectorTerm: all its expressions and fields must hold; an empty one matches nothing."""
    if _is_empty(term):
        return False
    if not all(_holds(each, node.labels) for each in term.get("matchExpressions") or ()):
        return False
    fields = {"metadata.name": node.name}
    return all(_holds(each, fields) for each in term.get("matchFields") or ())


def _is_empty(term: Mapping[str, Any]) -> bool:
    return not term.get("matchExpressions") and not term.get("matchFields")


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


def untolerated(pod: PodInfo, node: NodeInfo, effects: tuple[str, ...]) -> list[Object]:
    """The node's taints of these effects that the pod does not tolerate."""
    tolerations: Iterable[Object] = dig(pod.spec, "tolerations", default=())
    return [
        taint for taint in node.taints if taint.get("effect") in effects and not tolerates(tolerations, taint)
    ]
