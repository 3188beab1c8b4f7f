"""Node selectors and taints: does this pod want, and may it go to, this node? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.errors import Object
from controlplane.meta.node_selection import required_matches, term_matches
from controlplane.meta.objects import dig
from controlplane.meta.tolerations import tolerates
from controlplane.scheduler.snapshot import NodeInfo, PodInfo


def wants_node(pod: PodInfo, node: NodeInfo) -> bool:
    """`nodeSelector` and the required node affinity."""
    return required_matches(pod.spec, node.name, node.labels)


def preferred_weight(pod: PodInfo, node: NodeInfo) -> int:
    """The sum of the weights of the preferred node affinity's terms that match."""
    preferred = dig(
        pod.spec, "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution", default=()
    )
    return sum(
        int(entry.get("weight", 0))
        for entry in preferred
        if term_matches(entry.get("preference") or {}, node.name, node.labels)
    )


def untolerated(pod: PodInfo, node: NodeInfo, effects: tuple[str, ...]) -> list[Object]:
    """The node's taints of these effects that the pod does not tolerate."""
    tolerations: Iterable[Object] = dig(pod.spec, "tolerations", default=())
    return [
        taint for taint in node.taints if taint.get("effect") in effects and not tolerates(tolerations, taint)
    ]
