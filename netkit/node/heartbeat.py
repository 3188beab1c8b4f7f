"""Registers the node and keeps its status fresh (loop). The lease is `controlplane.client.leases`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from controlplane.client.client import Client
from controlplane.client.events import NORMAL, EventRecorder
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import AlreadyExists, NotFound, Object, StatusError
from controlplane.meta import conditions, timestamps
from controlplane.resources.catalog import NODE
from netkit.node.machine_facts import MachineFacts
from netkit.node.node_object import labels, node_object, node_status
from netkit.node.settings import NodeSettings

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_CHECK_SECONDS = 10.0
_SETTLE_SECONDS = 2.0


class NodeHeartbeat:
    """`problem()` is why the node is not ready, "" when it is. `poke` has it looked at now.

    `settled()` is waited for, a moment at most, before the first word, so that a node does not begin as not
    ready.
    """

    def __init__(
        self, settings: NodeSettings, facts: MachineFacts, client: Client, events: EventRecorder,
        problem: Callable[[], str],
        settled: Callable[[], Awaitable[None]],
        all_nodes: Callable[[], Awaitable[list[Object]]],
    ) -> None:  # fmt: skip
        self.node: Object | None = None
        self._settings = settings
        self._facts = facts
        self._client = client
        self._events = events
        self._problem = problem
        self._settled = settled
        self._all_nodes = all_nodes
        self._pod_ranges: Object = {}
        self._poked = asyncio.Event()
        self._registered = asyncio.Event()

    def poke(self) -> None:
        """Something about the node's readiness changed."""
        self._poked.set()

    async def registered(self) -> None:
        """Return once the node is in the API with its status."""
        await self._registered.wait()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        written = 0.0
        while True:
            self._poked.clear()
            try:
                if self.node is None:
                    self.node = await self._register()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_SETTLE_SECONDS):
                            await self._settled()
                else:
                    # Others write it too: a node that was cut off comes back as Unknown and tainted.
                    self.node = await self._client.get(NODE, self._settings.node_name)
                spec = self.node.get("spec") or {}
                self._pod_ranges = {key: spec[key] for key in ("podCIDR", "podCIDRs") if spec.get(key)}
                if self._has_changed(self.node) or loop.time() - written > self._settings.status_seconds:
                    await self._write(self.node)
                    written = loop.time()
                delay = _CHECK_SECONDS
            except NotFound:
                # Deleted by somebody: a kubelet that lives registers again.
                self.node = None
                delay = _RETRY_SECONDS
            except (StatusError, ConnectionFailed) as error:
                log.warning("%s: node status not written: %s", self._settings.node_name, error)
                delay = _RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._poked.wait()

    async def _register(self) -> Object:
        wanted = node_object(self._settings, self._facts)
        if self._pod_ranges and not await self._are_taken(self._pod_ranges):
            # Registered again after a deletion: its pods go on with their addresses.
            wanted["spec"] |= self._pod_ranges
        try:
            node = await self._client.create(NODE, wanted)
        except AlreadyExists:
            patch = {"metadata": {"labels": labels(self._settings, self._facts)}}
            node = await self._client.patch(NODE, self._settings.node_name, patch)
        else:
            log.info("%s: registered", self._settings.node_name)
        return node

    async def _are_taken(self, ranges: Object) -> bool:
        """Whether another node was given one of the pod ranges meanwhile."""
        given = {text for node in await self._all_nodes() for text in _pod_ranges(node)}
        return not given.isdisjoint(_pod_ranges({"spec": ranges}))

    async def _write(self, node: Object) -> None:
        current = await self._client.get(NODE, self._settings.node_name)
        problem = self._problem()
        before = conditions.status_of(current, "Ready")
        status = node_status(
            self._settings, self._facts, current.get("status") or {}, timestamps.now(), problem
        )
        patch = {"metadata": {"uid": current["metadata"]["uid"]}, "status": status}
        self.node = await self._client.patch(NODE, self._settings.node_name, patch, subresource="status")
        self._registered.set()
        after = "False" if problem else "True"
        if before != after:
            reason = "NodeNotReady" if problem else "NodeReady"
            text = f"Node {self._settings.node_name} status is now: {reason}"
            self._events.event(NODE, self._as_seen_by_events(current), NORMAL, reason, text)

    def _has_changed(self, node: Object) -> bool:
        ready = conditions.of(node, "Ready")
        problem = self._problem()
        if ready is None or not self._registered.is_set():
            return True
        return ready.get("status") != ("False" if problem else "True") or (
            bool(problem) and ready.get("message") != problem
        )

    def _as_seen_by_events(self, node: Object) -> Object:
        # Kubelet's node events carry the name as uid, and `kubectl describe node` asks for both.
        return {**node, "metadata": {**node["metadata"], "uid": self._settings.node_name}}


def _pod_ranges(node: Object) -> list[str]:
    spec = node.get("spec") or {}
    return [*(spec.get("podCIDRs") or ()), *([spec["podCIDR"]] if spec.get("podCIDR") else ())]
