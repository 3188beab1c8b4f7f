"""The score plug-ins: each ranks the feasible nodes from 0 to 100; weights are upstream's (v1.32). Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.meta.labels import LabelSelector
from controlplane.scheduler.affinity import preferred_weight, untolerated
from controlplane.scheduler.pod_affinity import pod_affinity_scores
from controlplane.scheduler.snapshot import NodeInfo, PodInfo
from controlplane.scheduler.spreading import constraints_of, default_constraints, soft_scores

_RESOURCES = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Question:
    """What scores look at: the pod, all known nodes, and the selector of the Services and sets it belongs to."""

    pod: PodInfo
    nodes: Sequence[NodeInfo]
    group: LabelSelector


Score = Callable[[Question, Sequence[NodeInfo]], list[int]]


def taint_toleration(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """Fewer taints that would rather not have the pod."""
    return _normalized(
        [len(untolerated(question.pod, node, ("PreferNoSchedule",))) for node in feasible], reverse=True
    )


def node_affinity(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """Preferred node affinity."""
    return _normalized([preferred_weight(question.pod, node) for node in feasible])


def pod_topology_spread(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """Soft constraints of the pod, or the default ones for the pods of its Service or ReplicaSet."""
    pod = question.pod
    own = constraints_of(pod, "ScheduleAnyway")
    if own:
        return soft_scores(pod, own, feasible, question.nodes, need_labels=True)
    if question.group.empty or question.group.nothing or constraints_of(pod, "DoNotSchedule"):
        return [0] * len(feasible)
    constraints = default_constraints(question.group)
    return soft_scores(pod, constraints, feasible, question.nodes, need_labels=False)


def inter_pod_affinity(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """Preferred affinity between pods."""
    return pod_affinity_scores(question.pod, feasible, question.nodes)


def least_allocated(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """The share of cpu and memory that stays free."""
    result = []
    for node in feasible:
        shares = [100 * (1 - used) for used in _fractions(question.pod, node)]
        result.append(int(sum(shares) / len(shares)) if shares else 0)
    return result


def balanced_allocation(question: Question, feasible: Sequence[NodeInfo]) -> list[int]:
    """Cpu and memory used to a similar degree."""
    result = []
    for node in feasible:
        used = _fractions(question.pod, node)
        mean = sum(used) / len(used) if used else 0.0
        deviation = math.sqrt(sum((each - mean) ** 2 for each in used) / len(used)) if used else 0.0
        result.append(int(100 * (1 - deviation)))
    return result


def _fractions(pod: PodInfo, node: NodeInfo) -> list[float]:
    """Used share of each resource the node has, with the pod on it; 1 at most."""
    fractions = []
    for name in _RESOURCES:
        allocatable = node.allocatable.get(name, 0)
        if allocatable:
            used = node.score_requested.get(name, 0) + pod.score_requests.get(name, 0)
            fractions.append(min(1.0, used / allocatable))
    return fractions


def _normalized(raw: list[int], *, reverse: bool = False) -> list[int]:
    highest = max(raw, default=0)
    if highest == 0:
        return [100 if reverse else 0] * len(raw)
    scaled = [100 * value // highest for value in raw]
    return [100 - value for value in scaled] if reverse else scaled


SCORES: tuple[tuple[Score, int], ...] = (
    (taint_toleration, 3),
    (node_affinity, 2),
    (pod_topology_spread, 2),
    (inter_pod_affinity, 2),
    (least_allocated, 1),
    (balanced_allocation, 1),
)


def ranked(
    question: Question, feasible: Sequence[NodeInfo], scores: Sequence[tuple[Score, int]] = SCORES
) -> list[tuple[int, NodeInfo]]:
    """Each feasible node with its weighted sum."""
    totals = [0] * len(feasible)
    for score, weight in scores:
        for position, value in enumerate(score(question, feasible)):
            totals[position] += weight * value
    return list(zip(totals, feasible, strict=True))
