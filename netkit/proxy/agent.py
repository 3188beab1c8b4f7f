"""kube-proxy of one node: watches Services, EndpointSlices and its Node, and keeps the kernel's rules right.

Started by the node's supervisor. Talks to the API through the client only, to the kernel through backends
only. Nothing is written before Services and EndpointSlices have both been listed. Stopping it leaves all
rules in place, and starting it again adopts them; `cleanup` removes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, SERVICE
from netkit.proxy.addresses import parse_address
from netkit.proxy.backend import Backend, Follower, NodeFacts, Preparation, Server
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.family_loop import FamilyLoop
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.metrics import AgentMetrics, ProxyMetrics
from netkit.proxy.reports import Reports
from netkit.proxy.service_ranges import ServiceRanges
from netkit.proxy.services import NOT_OURS_SELECTOR
from netkit.proxy.settings import ProxyMode, ProxySettings

log = logging.getLogger(__name__)

ZONE_LABEL = "topology.kubernetes.io/zone"


class ProxyAgent:
    """The proxy of the node `node_name`. One back end per address family (see `modes.backends`).

    `preparations` are done first, `servers` run as long as the agent does, `followers` are told of each family's
    good syncs. What these share with the agent (`reports`, `health`, `counts`) is handed in; `assembly.assemble`
    puts a whole proxy together.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        settings: ProxySettings,
        backends: Sequence[Backend],
        followers: Sequence[Follower] = (),
        *,
        servers: Sequence[Server] = (),
        preparations: Sequence[Preparation] = (),
        reports: Reports | None = None,
        health: ProxyHealth | None = None,
        counts: AgentMetrics | None = None,
    ) -> None:
        self.node_name = node_name
        self._settings = settings
        self._services = Informer(client, SERVICE, label_selector=NOT_OURS_SELECTOR)
        self._slices = Informer(client, ENDPOINT_SLICE, label_selector=NOT_OURS_SELECTOR)
        self._nodes = Informer(client, NODE, field_selector=f"metadata.name={node_name}")
        self._ranges = ServiceRanges(client, self._ranges_changed)
        self._facts = NodeFacts()
        self._servers = servers
        self._preparations = preparations
        self._reports = reports or Reports(client, node_name)
        self._health = health or ProxyHealth(2 * settings.sync_period)
        counts = counts or AgentMetrics(settings.mode, [backend.family for backend in backends])
        self._pod_range_known = asyncio.Event()
        self._families = [
            FamilyLoop(
                backend,
                settings,
                node_name,
                self._reports.on_node,
                counts.families[backend.family],
                self._health,
                followers,
            )
            for backend in backends
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
            await self.prepare()
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.run(), name=f"proxy {type(server).__name__}")
                for informer in (self._services, self._slices, self._nodes):
                    group.create_task(informer.run(), name=f"proxy {informer.kind.plural}")
                # Only this mode has rules for unused addresses; others need not be allowed to see the ranges.
                if self._settings.mode is ProxyMode.NFTABLES:
                    group.create_task(self._ranges.run(), name="proxy ranges of Services")
                await self._everything_listed()
                for loop in self._families:
                    group.create_task(loop.run(), name=f"proxy {loop.backend.family}")
        finally:
            await self._reports.close()

    async def prepare(self) -> None:
        """Set up what needs more rights than the rest: `run` does it first, and `--init-only` nothing else."""
        for preparation in self._preparations:
            await preparation.prepare()

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

    def release(self) -> None:
        """Close what the back ends hold open in this process; for when `run` has ended and nobody runs it again."""
        for loop in self._families:
            loop.backend.release()

    async def _everything_listed(self) -> None:
        await self._services.synced()
        await self._slices.synced()
        await self._nodes.synced()
        self._health.node_seen(self._nodes.get("", self.node_name))
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
            loop.service_changed(_key(old, new))

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for loop in self._families:
            if new is not None:
                loop.state.upsert_slice(new)
            elif old is not None:
                loop.state.delete_slice(namespace(old), name(old))
            loop.slice_changed(_key(old, new))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """A deleted Node changes no rule: the pods that still run here keep their Services."""
        self._health.node_seen(new)
        if new is None:
            return
        self._reports.node = new
        self._configure(replace(node_facts(new), service_cidrs=self._facts.service_cidrs))
        if self._facts.pod_cidrs:
            self._pod_range_known.set()

    def _ranges_changed(self, ranges: Iterable[Object]) -> None:
        self._configure(replace(self._facts, service_cidrs=service_cidrs(ranges)))

    def _configure(self, facts: NodeFacts) -> None:
        self._facts = facts
        for loop in self._families:
            loop.configure(facts)


def _key(old: Object | None, new: Object | None) -> tuple[str, str]:
    """Namespace and name of what changed."""
    found = new or old or {}
    return namespace(found), name(found)


def service_cidrs(ranges: Iterable[Object]) -> tuple[str, ...]:
    """The ranges of all ServiceCIDR objects, each once, in the order of their text."""
    return tuple(sorted({cidr for item in ranges for cidr in dig(item, "spec", "cidrs", default=())}))


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
