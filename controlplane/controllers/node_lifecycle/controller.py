"""The node life cycle controller's loop.

A node's sign of life is a change of its Lease or of the heartbeat in its Ready condition, as seen by the
clock of this process: clocks of nodes do not matter. Each node has one timer instead of a periodic scan.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.client.informer import Informers
from controlplane.client.leases import LEASE_NAMESPACE
from controlplane.controllers.node_lifecycle.taints import silenced, with_taints
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name, namespace, uid
from controlplane.meta.pods import is_ready
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import LEASE, NODE, POD

log = logging.getLogger(__name__)

_BY_NODE = "node"
_ATTEMPTS = 3


@dataclass(slots=True)
class _Health:
    """`heard` is the loop's time of the last sign of life; `signs` what it consisted of."""

    heard: float
    signs: tuple[str, str]
    pods_marked: bool = False


class NodeLifecycleController:
    """Keys are names of nodes. A node silent for `grace` seconds is unreachable."""

    def __init__(self, client: Client, informers: Informers, grace: float) -> None:
        self._client = client
        self._grace = grace
        self._nodes = informers.of(NODE)
        self._pods = informers.of(POD)
        self._leases = informers.of(LEASE)
        self._pods.index_by(_BY_NODE, lambda pod: (dig(pod, "spec", "nodeName", default=""),))
        self._health: dict[str, _Health] = {}
        self._outage = False
        self._events = EventRecorder(client, "node-controller")
        self._loop: Controller[str] = Controller("node-lifecycle", self._reconcile)
        self._nodes.on_change(self._node_changed)
        self._leases.on_change(self._lease_changed)
        self._pods.on_change(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._nodes, self._pods, self._leases)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._health.pop(name(old), None)
                self._tell(old, "RemovingNode", f"Removing Node {name(old)} from Controller")
            self._check_outage()
            return
        if old is None:
            self._tell(new, "RegisteredNode", f"Registered Node {name(new)} in Controller")
        self._hear(name(new))
        self._check_outage()
        self._loop.queue.add(name(new))

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        """The timer of the node finds out by itself; a node that was given up has to report its conditions."""
        if (
            new is not None
            and namespace(new) == LEASE_NAMESPACE
            and self._nodes.get("", name(new)) is not None
        ):
            self._hear(name(new))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """A pod that is bound to, or reported ready on, a node that is not ready."""
        if new is None or not is_ready(new):
            return
        node = self._nodes.get("", dig(new, "spec", "nodeName", default=""))
        if node is not None and conditions.status_of(node, "Ready") == "Unknown":
            self._health_of(name(node)).pods_marked = False
            self._loop.queue.add(name(node))

    def _hear(self, node_name: str) -> bool:
        """Note a sign of life, if there is a new one."""
        health = self._health_of(node_name)
        renewed, reported = self._signs(node_name)
        signs = (renewed, reported or health.signs[1])
        if signs == health.signs:
            return False
        health.signs = signs
        health.heard = asyncio.get_running_loop().time()
        return True

    def _signs(self, node_name: str) -> tuple[str, str]:
        lease = self._leases.get(LEASE_NAMESPACE, node_name)
        node = self._nodes.get("", node_name) or {}
        ready = conditions.of(node, "Ready") or {}
        # A heartbeat counts, and so does a report; what this controller itself wrote does not.
        reported = (
            ""
            if ready.get("status") == "Unknown"
            else f"{ready.get('lastHeartbeatTime')} {ready.get('status')}"
        )
        return str(dig(lease, "spec", "renewTime", default="")), reported

    def _health_of(self, node_name: str) -> _Health:
        health = self._health.get(node_name)
        if health is None:
            health = _Health(asyncio.get_running_loop().time(), self._signs(node_name))
            self._health[node_name] = health
        return health

    def _check_outage(self) -> None:
        """When no node at all is ready the fault is rather ours: nobody is evicted until one is back."""
        nodes = self._nodes.items()
        outage = bool(nodes) and not any(conditions.status_of(node, "Ready") == "True" for node in nodes)
        if outage != self._outage:
            self._outage = outage
            for node in nodes:
                self._loop.queue.add(name(node))

    async def _reconcile(self, key: str) -> None:
        node = self._nodes.get("", key)
        if node is None or is_being_deleted(node):
            return
        health = self._health_of(key)
        left = health.heard + self._grace - asyncio.get_running_loop().time()
        if left <= 0:
            node = await self._silence(node)
        elif conditions.status_of(node, "Ready") != "Unknown":
            self._loop.queue.add_after(key, left + 0.01)
        await self._set_taints(node)
        state = conditions.status_of(node, "Ready")
        if state == "True":
            health.pods_marked = False
        elif state and not health.pods_marked:
            await self._mark_pods(node)
            health.pods_marked = True

    async def _silence(self, node: Object) -> Object:
        status = dict(node.get("status") or {})
        listed = silenced(status.get("conditions") or [])
        if listed == status.get("conditions"):
            return node
        was_ready = conditions.status_of(node, "Ready") == "True"
        changed = await self._client.update_status(NODE, {**node, "status": {**status, "conditions": listed}})
        log.warning("%s: no sign of life for %.0f s, now unreachable", name(node), self._grace)
        if was_ready:
            text = f"Node {name(node)} status is now: NodeNotReady"
            self._events.event(NODE, node, NORMAL, "NodeNotReady", text)
        return changed

    async def _set_taints(self, node: Object) -> None:
        taints = with_taints(node, evict=not self._outage)
        if taints != (dig(node, "spec", "taints", default=[])):
            patch = {
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "spec": {"taints": taints or None},
            }
            await self._client.patch(NODE, name(node), patch)

    async def _mark_pods(self, node: Object) -> None:
        """Pods of a node that is not ready are not ready either: Services leave them out at once."""
        for pod in self._pods.lookup(_BY_NODE, name(node)):
            await self._mark_pod(pod)

    async def _mark_pod(self, pod: Object) -> None:
        current = pod
        for _ in range(_ATTEMPTS):
            ready = conditions.of(current, "Ready")
            if ready is None or ready["status"] == "False" or uid(current) != uid(pod):
                return
            status = dict(current["status"])
            changed = {**ready, "status": "False", "lastTransitionTime": now()}
            status["conditions"] = conditions.with_condition(status["conditions"], changed)
            try:
                await self._client.update_status(POD, {**current, "status": status})
            except NotFound:
                return
            except Conflict:
                current = await self._client.get(POD, name(pod), namespace(pod))
            else:
                self._events.event(POD, pod, WARNING, "NodeNotReady", "Node is not ready")
                return

    def _tell(self, node: Object, reason: str, text: str) -> None:
        self._events.event(NODE, node, NORMAL, reason, f"Node {name(node)} event: {text}")
