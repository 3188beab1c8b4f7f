"""What the scheduler knows of nodes and the pods on them, including its own decisions that are not stored
yet.

Kept up to date by the scheduler's handlers; filters and scores only read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace, uid
from controlplane.meta.pods import is_finished
from controlplane.scheduler.requests import (
    Amounts,
    HostPort,
    amounts,
    host_ports,
    pod_requests,
    pod_requests_for_scores,
)


class PodInfo:
    """A pod with everything scheduling asks about it, worked out once."""

    __slots__ = (
        "labels",
        "name",
        "namespace",
        "object",
        "ports",
        "requests",
        "score_requests",
        "terminating",
        "uid",
    )

    def __init__(self, pod: Object) -> None:
        self.object = pod
        self.uid = uid(pod)
        self.namespace = namespace(pod)
        self.name = name(pod)
        self.labels = labels(pod)
        self.requests = pod_requests(pod)
        self.score_requests = pod_requests_for_scores(pod)
        self.ports: frozenset[HostPort] = host_ports(pod)
        self.terminating = is_being_deleted(pod)

    @property
    def spec(self) -> Mapping[str, object]:
        spec: Mapping[str, object] = self.object.get("spec") or {}
        return spec


class NodeInfo:
    """A node, the pods on it and the sum of what they ask for."""

    __slots__ = (
        "allocatable",
        "labels",
        "name",
        "object",
        "pods",
        "requested",
        "score_requested",
        "taints",
        "unschedulable",
    )

    def __init__(self, name_: str) -> None:
        self.name = name_
        self.object: Object | None = None
        self.labels: Mapping[str, str] = {}
        self.taints: Sequence[Object] = ()
        self.unschedulable = False
        self.allocatable: Amounts = {}
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        self.score_requested: Amounts = {}

    def set_object(self, node: Object | None) -> None:
        """Take over the Node's labels, taints and allocatable amounts."""
        self.object = node
        self.labels = labels(node or {})
        self.taints = dig(node, "spec", "taints", default=())
        self.unschedulable = dig(node, "spec", "unschedulable", default=False)
        self.allocatable = amounts(dig(node, "status", "allocatable"))

    def add(self, pod: PodInfo) -> None:
        self.remove(pod.uid)
        self.pods[pod.uid] = pod
        _change(self.requested, pod.requests, 1)
        _change(self.score_requested, pod.score_requests, 1)

    def remove(self, uid_: str) -> None:
        pod = self.pods.pop(uid_, None)
        if pod is not None:
            _change(self.requested, pod.requests, -1)
            _change(self.score_requested, pod.score_requests, -1)

    def used_ports(self) -> list[HostPort]:
        return [port for pod in self.pods.values() for port in pod.ports]


def _change(total: Amounts, amounts_: Amounts, sign: int) -> None:
    for key, amount in amounts_.items():
        total[key] = total.get(key, 0) + sign * amount


class Snapshot:
    """All nodes. A pod may be on a node whose object is not known (yet); such nodes are not offered."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}
        self._assumed: set[str] = set()

    def nodes(self) -> list[NodeInfo]:
        """The known nodes."""
        return [node for node in self._nodes.values() if node.object is not None]

    def set_node(self, node: Object) -> None:
        self._node(name(node)).set_object(node)

    def remove_node(self, name_: str) -> None:
        self._node(name_).set_object(None)
        self._drop_if_empty(name_)

    def set_pod(self, pod: Object) -> None:
        """A stored pod that is bound: replaces what was assumed. A finished one takes no room."""
        self.remove_pod(uid(pod))
        if not is_finished(pod):
            self._place(PodInfo(pod), pod["spec"]["nodeName"])

    def remove_pod(self, uid_: str) -> None:
        self._assumed.discard(uid_)
        place = self._places.pop(uid_, None)
        if place is not None:
            self._nodes[place].remove(uid_)
            self._drop_if_empty(place)

    def assume(self, pod: PodInfo, node: str) -> None:
        """Count the pod on the node from now on, before the binding is stored."""
        self._place(pod, node)
        self._assumed.add(pod.uid)

    def forget(self, uid_: str) -> bool:
        """The binding failed: take the assumption back. False if the pod has been seen bound meanwhile."""
        if uid_ not in self._assumed:
            return False
        self.remove_pod(uid_)
        return True

    def is_assumed(self, uid_: str) -> bool:
        return uid_ in self._assumed

    def _place(self, pod: PodInfo, node: str) -> None:
        self._places[pod.uid] = node
        self._node(node).add(pod)

    def _node(self, name_: str) -> NodeInfo:
        return self._nodes.setdefault(name_, NodeInfo(name_))

    def _drop_if_empty(self, name_: str) -> None:
        node = self._nodes.get(name_)
        if node is not None and node.object is None and not node.pods:
            del self._nodes[name_]
