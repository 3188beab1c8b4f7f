"""Spreading over topology domains: hard constraints as a filter, soft ones (and the default ones) as a score.
Pure.

Rules and formulas are upstream's PodTopologySpread (v1.32).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig
from controlplane.scheduler.affinity import untolerated, wants_node
from controlplane.scheduler.snapshot import NodeInfo, PodInfo

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

_DEFAULT_SKEWS = ((HOSTNAME, 3), (ZONE, 5))


@dataclass(frozen=True, slots=True)
class Constraint:
    """One topologySpreadConstraint, with its selector parsed."""

    key: str
    max_skew: int
    selector: LabelSelector
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False

    def counts_on(self, pod: PodInfo, node: NodeInfo) -> bool:
        """Whether the node takes part in the count for this pod."""
        if self.honor_affinity and not wants_node(pod, node):
            return False
        return not (self.honor_taints and untolerated(pod, node, ("NoSchedule", "NoExecute")))

    def matching(self, namespace: str, node: NodeInfo) -> int:
        """Pods on the node that the selector counts."""
        return sum(
            1
            for other in node.pods.values()
            if other.namespace == namespace and not other.terminating and self.selector.matches(other.labels)
        )


def constraints_of(pod: PodInfo, when_unsatisfiable: str) -> list[Constraint]:
    """The pod's own constraints of that sort (`DoNotSchedule`, `ScheduleAnyway`)."""
    listed: Sequence[Mapping[str, Any]] = dig(pod.spec, "topologySpreadConstraints", default=())
    return [
        Constraint(
            key=each["topologyKey"],
            max_skew=int(each["maxSkew"]),
            selector=_selector(each, pod),
            min_domains=int(each.get("minDomains") or 1),
            honor_affinity=each.get("nodeAffinityPolicy", "Honor") == "Honor",
            honor_taints=each.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )
        for each in listed
        if each.get("whenUnsatisfiable", "DoNotSchedule") == when_unsatisfiable
    ]


def _selector(constraint: Mapping[str, Any], pod: PodInfo) -> LabelSelector:
    selector = (
        dict(constraint.get("labelSelector") or {}) if constraint.get("labelSelector") is not None else None
    )
    keys = [key for key in constraint.get("matchLabelKeys") or () if key in pod.labels]
    if selector is not None and keys:
        more = [{"key": key, "operator": "In", "values": [pod.labels[key]]} for key in keys]
        selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *more]
    return LabelSelector.from_object(selector)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node does not do: `missing_label` or too much skew."""

    missing_label: bool


def hard_check(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Callable[[NodeInfo], Verdict | None] | None:
    """The filter for one pod, or None when it has no hard constraint."""
    constraints = constraints_of(pod, "DoNotSchedule")
    if not constraints:
        return None
    keys = [constraint.key for constraint in constraints]
    domains: list[Counter[str]] = []
    for constraint in constraints:
        counts: Counter[str] = Counter()
        for node in nodes:
            if all(key in node.labels for key in keys) and constraint.counts_on(pod, node):
                counts[node.labels[constraint.key]] += constraint.matching(pod.namespace, node)
        domains.append(counts)

    def check(node: NodeInfo) -> Verdict | None:
        for constraint, counts in zip(constraints, domains, strict=True):
            domain = node.labels.get(constraint.key)
            if domain is None:
                return Verdict(missing_label=True)
            least = min(counts.values(), default=0) if len(counts) >= constraint.min_domains else 0
            own = 1 if constraint.selector.matches(pod.labels) else 0
            if counts[domain] + own - least > constraint.max_skew:
                return Verdict(missing_label=False)
        return None

    return check


def default_constraints(selector: LabelSelector) -> list[Constraint]:
    """What spreads the pods of one Service or ReplicaSet that say nothing themselves."""
    return [Constraint(key, skew, selector) for key, skew in _DEFAULT_SKEWS]


def soft_scores(
    pod: PodInfo,
    constraints: Sequence[Constraint],
    feasible: Sequence[NodeInfo],
    nodes: Sequence[NodeInfo],
    *,
    need_labels: bool,
) -> list[int]:
    """0 to 100 for each feasible node, more for emptier domains.

    With `need_labels` nodes that lack a constraint's label get 0 (a pod's own constraints), else they are
    ranked by the labels they have (default constraints).
    """
    ignored = [
        need_labels and any(constraint.key not in node.labels for constraint in constraints)
        for node in feasible
    ]
    raw = [0.0] * len(feasible)
    for constraint in constraints:
        sizes = {
            node.labels[constraint.key]
            for node, skip in zip(feasible, ignored, strict=True)
            if not skip and constraint.key in node.labels
        }
        by_host = constraint.key == HOSTNAME
        size = sum(not skip for skip in ignored) if by_host else len(sizes)
        weight = math.log(size + 2)
        counts: Counter[str] = Counter()
        for node in nodes:
            if node.labels.get(constraint.key) in sizes and constraint.counts_on(pod, node):
                counts[node.labels[constraint.key]] += constraint.matching(pod.namespace, node)
        for position, node in enumerate(feasible):
            if not ignored[position] and constraint.key in node.labels:
                count = counts[node.labels[constraint.key]]
                raw[position] += count * weight + (constraint.max_skew - 1)
    valid = [round(value) for value, skip in zip(raw, ignored, strict=True) if not skip]
    lowest, highest = min(valid, default=0), max(valid, default=0)
    if highest == 0:
        return [0 if skip else 100 for skip in ignored]
    return [
        0 if skip else 100 * (highest + lowest - round(value)) // highest
        for value, skip in zip(raw, ignored, strict=True)
    ]
