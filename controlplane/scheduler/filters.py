"""The filter plug-ins: each rules nodes out for one reason, in upstream's words and order (v1.32). Pure.

A filter looks at the pod once and returns the check for its nodes, or None when the pod does not ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.meta.objects import dig
from controlplane.meta.tolerations import tolerates
from controlplane.scheduler.affinity import untolerated, wants_node
from controlplane.scheduler.pod_affinity import pod_affinity_check
from controlplane.scheduler.requests import ports_conflict
from controlplane.scheduler.snapshot import NodeInfo, PodInfo
from controlplane.scheduler.spreading import hard_check
from controlplane.scheduler.volumes import Volumes

_UNSCHEDULABLE_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a node does not do. `resolvable` when removing pods from it could help."""

    reasons: tuple[str, ...]
    resolvable: bool = False


Check = Callable[[NodeInfo], Rejection | None]
Filter = Callable[[PodInfo, Sequence[NodeInfo]], Check | None]


def node_unschedulable(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check:
    """Cordoned nodes, unless the pod tolerates that."""
    tolerated = tolerates(dig(pod.spec, "tolerations", default=()), _UNSCHEDULABLE_TAINT)
    rejection = Rejection(("node(s) were unschedulable",))
    return lambda node: rejection if node.unschedulable and not tolerated else None


def node_name(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
    """A pod that names its node."""
    wanted = dig(pod.spec, "nodeName", default="")
    if not wanted:
        return None
    rejection = Rejection(("node(s) didn't match the requested node name",))
    return lambda node: rejection if node.name != wanted else None


def taint_toleration(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check:
    """Taints that keep pods away."""

    def check(node: NodeInfo) -> Rejection | None:
        found = untolerated(pod, node, ("NoSchedule", "NoExecute")) if node.taints else ()
        if not found:
            return None
        return Rejection(
            (f"node(s) had untolerated taint {{{found[0]['key']}: {found[0].get('value', '')}}}",)
        )

    return check


def node_affinity(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
    """nodeSelector and required node affinity."""
    if not dig(pod.spec, "nodeSelector") and not dig(pod.spec, "affinity", "nodeAffinity"):
        return None
    rejection = Rejection(("node(s) didn't match Pod's node affinity/selector",))
    return lambda node: None if wants_node(pod, node) else rejection


def node_ports(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
    """Host ports that another pod has."""
    if not pod.ports:
        return None
    rejection = Rejection(("node(s) didn't have free ports for the requested pod ports",), resolvable=True)
    return lambda node: rejection if ports_conflict(pod.ports, node.used_ports()) else None


def node_resources_fit(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check:
    """Room for the pod's requests and for one pod more."""
    wanted = [(name, amount) for name, amount in pod.requests.items() if amount > 0]

    def check(node: NodeInfo) -> Rejection | None:
        reasons = []
        resolvable = True
        if len(node.pods) + 1 > node.allocatable.get("pods", 0):
            reasons.append("Too many pods")
        for name, amount in wanted:
            allocatable = node.allocatable.get(name, 0)
            if amount > allocatable - node.requested.get(name, 0):
                reasons.append(f"Insufficient {name}")
                resolvable = resolvable and amount <= allocatable
        return Rejection(tuple(reasons), resolvable) if reasons else None

    return check


def pod_topology_spread(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
    """Hard topology spread constraints."""
    check = hard_check(pod, nodes)
    if check is None:
        return None
    text = "node(s) didn't match pod topology spread constraints"

    def reject(node: NodeInfo) -> Rejection | None:
        verdict = check(node)
        if verdict is None:
            return None
        if verdict.missing_label:
            return Rejection((f"{text} (missing required label)",))
        return Rejection((text,), resolvable=True)

    return reject


def inter_pod_affinity(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
    """Required affinity and anti-affinity to other pods, in both directions."""
    check = pod_affinity_check(pod, nodes)
    if check is None:
        return None

    def reject(node: NodeInfo) -> Rejection | None:
        verdict = check(node)
        return None if verdict is None else Rejection((verdict.reason,), verdict.resolvable)

    return reject


def volume_binding(volumes: Volumes) -> Filter:
    """Claims that are bound elsewhere, or cannot be bound or shared."""

    def filter_(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Check | None:
        check = volumes.placement(pod)
        if check is None:
            return None

        def reject(node: NodeInfo) -> Rejection | None:
            reason = check(node)
            return Rejection((reason,)) if reason else None

        return reject

    return filter_


FILTERS: tuple[Filter, ...] = (
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    node_resources_fit,
    pod_topology_spread,
    inter_pod_affinity,
)
_BEFORE_VOLUMES = 6


def with_volumes(volumes: Volumes) -> tuple[Filter, ...]:
    """All filters, that for volumes in its place."""
    return (*FILTERS[:_BEFORE_VOLUMES], volume_binding(volumes), *FILTERS[_BEFORE_VOLUMES:])


def feasible_nodes(
    pod: PodInfo, nodes: Sequence[NodeInfo], filters: Sequence[Filter] = FILTERS
) -> tuple[list[NodeInfo], dict[str, Rejection]]:
    """The nodes that pass all filters, and for each other the rejection of the first filter that failed."""
    checks = [check for make in filters if (check := make(pod, nodes)) is not None]
    feasible = []
    rejected: dict[str, Rejection] = {}
    for node in nodes:
        for check in checks:
            rejection = check(node)
            if rejection is not None:
                rejected[node.name] = rejection
                break
        else:
            feasible.append(node)
    return feasible, rejected
