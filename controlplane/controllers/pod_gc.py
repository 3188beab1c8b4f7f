"""Deletes pods nobody else will: of nodes that no longer exist, and terminating ones that never had a node."""

from __future__ import annotations

import logging

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.errors import NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.pods import is_finished
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import NODE, POD

log = logging.getLogger(__name__)

_BY_NODE = "node"


class PodGarbageController:
    """Keys are (namespace, name) of pods. A node has `quarantine` seconds to come back before its pods go."""

    def __init__(self, client: Client, informers: Informers, quarantine: float) -> None:
        self._client = client
        self._pods = informers.of(POD)
        self._nodes = informers.of(NODE)
        self._quarantine = quarantine
        self._pods.index_by(_BY_NODE, lambda pod: (dig(pod, "spec", "nodeName", default=""),))
        self._loop: Controller[NamespacedName] = Controller("pod-gc", self._reconcile)
        self._pods.on_change(self._pod_changed)
        self._nodes.on_change(self._node_changed)
        self._settled = False

    async def run(self) -> None:
        """Work until cancelled."""
        await self._nodes.synced()
        await self._pods.synced()
        self._settled = True
        for pod in self._pods.items():
            self._pod_changed(None, pod)
        await self._loop.run(self._pods, self._nodes)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or not self._settled:
            return
        node = dig(new, "spec", "nodeName", default="")
        if not node and is_being_deleted(new):
            self._loop.queue.add((namespace(new), name(new)))
        elif node and self._nodes.get("", node) is None:
            self._loop.queue.add_after((namespace(new), name(new)), self._quarantine)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None:
            for pod in self._pods.lookup(_BY_NODE, name(old)):
                self._loop.queue.add_after((namespace(pod), name(pod)), self._quarantine)

    async def _reconcile(self, key: NamespacedName) -> None:
        pod = self._pods.get(*key)
        if pod is None:
            return
        node = dig(pod, "spec", "nodeName", default="")
        if node and (self._nodes.get("", node) is not None or await self._exists(node)):
            return
        if not node and not is_being_deleted(pod):
            return
        if node and not is_finished(pod):
            await self._mark_failed(pod)
        log.info("%s/%s: deleting, %s", *key, f"node {node} is gone" if node else "it never had a node")
        try:
            await self._client.delete(POD, key[1], key[0], grace=0, uid=uid(pod))
        except NotFound:
            return

    async def _exists(self, node: str) -> bool:
        try:
            await self._client.get(NODE, node)
        except NotFound:
            return False
        return True

    async def _mark_failed(self, pod: Object) -> None:
        """Say why it ends, for controllers that count failures."""
        listed = conditions.with_condition(
            (pod.get("status") or {}).get("conditions"),
            {
                "type": "DisruptionTarget",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": now(),
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
            },
        )
        metadata = {"uid": uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"]}
        patch = {"metadata": metadata, "status": {"phase": "Failed", "conditions": listed}}
        await self._client.patch(POD, name(pod), patch, namespace(pod), subresource="status")
