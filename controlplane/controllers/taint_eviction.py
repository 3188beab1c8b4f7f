"""Evicts pods from nodes with NoExecute taints, when their tolerations have run out.

How long a pod may stay follows from the taint's `timeAdded` and the pod's tolerations alone, so that a
restart of this controller changes nothing.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.events import NORMAL, EventRecorder
from controlplane.client.informer import Informers
from controlplane.errors import NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.pods import is_finished
from controlplane.meta.timestamps import now, parse
from controlplane.meta.tolerations import covers
from controlplane.resources.catalog import NODE, POD

log = logging.getLogger(__name__)

_BY_NODE = "node"
_FOREVER = math.inf


class TaintEvictionController:
    """Keys are (namespace, name) of pods."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._pods = informers.of(POD)
        self._nodes = informers.of(NODE)
        self._pods.index_by(_BY_NODE, lambda pod: (dig(pod, "spec", "nodeName", default=""),))
        self._events = EventRecorder(client, "taint-eviction-controller")
        self._first_seen: dict[tuple[str, str, str], datetime] = {}
        self._scheduled: set[NamespacedName] = set()
        self._loop: Controller[NamespacedName] = Controller("taint-eviction", self._reconcile)
        self._pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._nodes, self._pods)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None or _no_execute(old) == _no_execute(new):
            return
        present = {(name(obj), taint["key"], taint.get("value", "")) for taint in _no_execute(new)}
        for known in [each for each in self._first_seen if each[0] == name(obj) and each not in present]:
            del self._first_seen[known]
        for pod in self._pods.lookup(_BY_NODE, name(obj)):
            self._loop.queue.add((namespace(pod), name(pod)))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._scheduled.discard((namespace(old), name(old)))
        elif dig(new, "spec", "nodeName") and (
            old is None
            or dig(old, "spec", "nodeName") != dig(new, "spec", "nodeName")
            or dig(old, "spec", "tolerations") != dig(new, "spec", "tolerations")
        ):
            self._loop.queue.add((namespace(new), name(new)))

    async def _reconcile(self, key: NamespacedName) -> None:
        pod = self._pods.get(*key)
        if pod is None or is_being_deleted(pod) or is_finished(pod):
            self._scheduled.discard(key)
            return
        node = self._nodes.get("", dig(pod, "spec", "nodeName", default=""))
        taints = _no_execute(node)
        left = self._seconds_left(pod, name(node), taints) if node is not None and taints else _FOREVER
        if left == _FOREVER:
            if key in self._scheduled:
                self._scheduled.discard(key)
                self._event(pod, f"Cancelling deletion of Pod {key[0]}/{key[1]}")
            return
        if left > 0:
            self._scheduled.add(key)
            self._loop.queue.add_after(key, left)
            return
        await self._evict(key, pod)

    def _seconds_left(self, pod: Object, node: str, taints: list[Object]) -> float:
        """How long the pod may stay under these taints; 0 or less = not at all, infinite = for ever."""
        tolerations = dig(pod, "spec", "tolerations", default=[])
        moment = datetime.now(UTC)
        left = _FOREVER
        for taint in taints:
            covering = [each for each in tolerations if covers(each, taint)]
            if not covering:
                return 0.0
            limits = [
                each["tolerationSeconds"] for each in covering if each.get("tolerationSeconds") is not None
            ]
            if limits:
                since = max(self._since(node, taint, moment), _created(pod))
                left = min(left, max(0, min(limits)) - (moment - since).total_seconds())
        return left

    def _since(self, node: str, taint: Object, moment: datetime) -> datetime:
        if taint.get("timeAdded"):
            return parse(taint["timeAdded"])
        return self._first_seen.setdefault((node, taint["key"], taint.get("value", "")), moment)

    async def _evict(self, key: NamespacedName, pod: Object) -> None:
        self._event(pod, f"Marking for deletion Pod {key[0]}/{key[1]}")
        status = dict(pod.get("status") or {})
        status["conditions"] = conditions.with_condition(
            status.get("conditions"),
            {
                "type": "DisruptionTarget",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": now(),
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
            },
        )
        try:
            if status != pod.get("status"):
                await self._client.update_status(POD, {**pod, "status": status})
            await self._client.delete(POD, key[1], key[0], uid=uid(pod))
        except NotFound:
            return
        log.info("%s/%s: evicted from %s", *key, dig(pod, "spec", "nodeName"))

    def _event(self, pod: Object, text: str) -> None:
        self._events.event(POD, pod, NORMAL, "TaintManagerEviction", text)


def _no_execute(node: Object | None) -> list[Object]:
    return [taint for taint in dig(node, "spec", "taints", default=()) if taint.get("effect") == "NoExecute"]


def _created(pod: Object) -> datetime:
    return parse(dig(pod, "metadata", "creationTimestamp", default="1970-01-01T00:00:00Z"))
