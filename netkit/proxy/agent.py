"""kube-proxy of one node: watches Services, EndpointSlices and its Node, and keeps the kernel's rules right.

Started by the node's supervisor. Talks to the API through the client only, to the kernel through backends
only. Nothing is written before Services and EndpointSlices have both been listed. Stopping it leaves all
rules in place, and starting it again adopts them; `cleanup` removes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from controlplane.client.client import Client
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE
from netkit.proxy.addresses import parse_address
from netkit.proxy.backend import Backend, Follower, NodeFacts
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.family_loop import FamilyLoop
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.services import NOT_OURS_SELECTOR
from netkit.proxy.settings import ProxySettings

log = logging.getLogger(__name__)

COMPONENT = "kube-proxy"
ZONE_LABEL = "topology.kubernetes.io/zone"


class ProxyAgent:
    """The proxy of the node `node_name`. One back end per address family (see `modes.backends`).

    `followers` are told of each family's good syncs.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        settings: ProxySettings,
        backends: Sequence[Backend],
        followers: Sequence[Follower] = (),
    ) -> None:
        self.node_name = node_name
        self._settings = settings
        self._services = Informer(client, SERVICE, label_selector=NOT_OURS_SELECTOR)
        self._slices = Informer(client, ENDPOINT_SLICE, label_selector=NOT_OURS_SELECTOR)
        self._nodes = Informer(client, NODE, field_selector=f"metadata.name={node_name}")
        self._events = EventRecorder(client, COMPONENT, node_name)
        self._pod_range_known = asyncio.Event()
        self._families = [
            FamilyLoop(backend, settings, node_name, self._report, followers) for backend in backends
        ]
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        self._nodes.on_change(self._node_changed)

    @property
    def metrics(self) -> Sequence[tuple[str, ProxyMetrics]]:
        """The counters of each family (`IPv4`, `IPv6`)."""
        return [(loop.backend.family, loop.metrics) for loop in self._families]

    async def run(self) -> None:
        """Work until cancelled. The rules stay."""
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (self._services, self._slices, self._nodes):
                    group.create_task(informer.run(), name=f"proxy {informer.kind.plural}")
                await self._everything_listed()
                for loop in self._families:
                    group.create_task(loop.run(), name=f"proxy {loop.backend.family}")
        finally:
            await self._events.close()

    async def synced(self) -> None:
        """Return once the rules of all families have been written for the first time."""
        for loop in self._families:
            await loop.synced()

    async def settled(self) -> None:
        """Return once no change that the agent knows of waits to be written."""
        for loop in self._families:
            await loop.settled()

    async def cleanup(self) -> None:
        """Remove all rules and chains of ours from the node. Not while `run` is at work."""
        for loop in self._families:
            await loop.backend.cleanup()

    async def _everything_listed(self) -> None:
        await self._services.synced()
        await self._slices.synced()
        await self._nodes.synced()
        if self._settings.detect_local_mode is DetectLocalMode.NODE_CIDR:
            if not self._pod_range_known.is_set():
                log.info("%s: waiting for the Node's pod range", self.node_name)
            await self._pod_range_known.wait()

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        for loop in self._families:
            if new is not None:
                loop.state.upsert_service(new)
            elif old is not None:
                loop.state.delete_service(namespace(old), name(old))
            loop.changed()

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for loop in self._families:
            if new is not None:
                loop.state.upsert_slice(new)
            elif old is not None:
                loop.state.delete_slice(namespace(old), name(old))
            loop.changed()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """A deleted Node changes nothing: the pods that still run here keep their Services."""
        if new is None:
            return
        facts = node_facts(new)
        for loop in self._families:
            loop.configure(facts)
        if facts.pod_cidrs:
            self._pod_range_known.set()

    def _report(self, reason: str, message: str) -> None:
        node = self._nodes.get("", self.node_name) or {"metadata": {"name": self.node_name}}
        self._events.event(NODE, node, WARNING, reason, message)


def node_facts(node: Object) -> NodeFacts:
    """What the proxy takes from a Node: its zone, its InternalIPs, its pod ranges."""
    spec = node.get("spec") or {}
    pod_cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return NodeFacts(
        zone=labels(node).get(ZONE_LABEL, ""),
        addresses=tuple(
            parse_address(item["address"])
            for item in dig(node, "status", "addresses", default=())
            if item.get("type") == "InternalIP"
        ),
        pod_cidrs=tuple(pod_cidrs),
    )
