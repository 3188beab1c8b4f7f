"""The node agent: kubelet's part of one node, put together. Started by the supervisor, one process per node.

It registers the node, keeps its lease and status, runs the node's pods through the runtime process, and
serves the kubelet API. Its death stops nothing: a new agent adopts what stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from controlplane.client.client import Client
from controlplane.client.events import EventRecorder
from controlplane.client.informer import Informer
from controlplane.client.leases import NodeLease
from controlplane.errors import Object
from controlplane.resources.catalog import POD, SERVICE
from netkit.kernel.ledger import Ledger
from netkit.node.heartbeat import NodeHeartbeat
from netkit.node.images.store import ImageStore
from netkit.node.kubelet.server import KubeletServer
from netkit.node.machine_facts import read_facts
from netkit.node.pods import Pods
from netkit.node.runtime.client import RuntimeClient
from netkit.node.settings import NodeContext, NodeSettings, PodNetworkDriver
from netkit.node.usage_meter import UsageMeter


class NodeAgent:
    """One node's agent. All it makes lies in `settings.state_dir`, which the ledger's owner has recorded.

    `all_nodes` reads every Node, which the kubelet's own `client` may not.
    """

    def __init__(
        self,
        settings: NodeSettings,
        client: Client,
        network: PodNetworkDriver,
        ledger: Ledger,
        all_nodes: Callable[[], Awaitable[list[Object]]],
    ) -> None:
        self._settings = settings
        self._events = EventRecorder(client, "kubelet", settings.node_name)
        self._runtime = RuntimeClient(settings.runtime_socket)
        self._services = Informer(client, SERVICE)
        self._pods_informer = Informer(client, POD, field_selector=f"spec.nodeName={settings.node_name}")
        context = NodeContext(
            settings=settings,
            client=client,
            network=network,
            runtime=self._runtime,
            images=ImageStore(settings.image_file),
            events=self._events,
            services=self._services.items,
            clock=time.time,
        )
        self._pods = Pods(context, self._pods_informer)
        self._heartbeat = NodeHeartbeat(
            settings, read_facts(), client, self._events, self._problem, self._runtime.connected, all_nodes
        )
        self._lease = NodeLease(
            client, settings.node_name, settings.lease_seconds, lambda: self._heartbeat.node
        )
        self._meter = UsageMeter(self._runtime)
        self._server: KubeletServer | None = None
        if settings.tls:
            self._server = KubeletServer(settings, self._pods, self._runtime, self._meter)

    async def run(self) -> None:
        """Until cancelled, or until a part fails for a defect (then that exception comes out)."""
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._runtime.run(), name="runtime connection")
                group.create_task(self._services.run(), name="informer services")
                group.create_task(self._pods_informer.run(), name="informer pods")
                group.create_task(self._lease.run(), name="lease")
                group.create_task(self._heartbeat.run(), name="node status")
                group.create_task(self._watch_runtime(), name="runtime health")
                group.create_task(self._run_pods(), name="pods")
                group.create_task(self._meter.run(), name="usage of containers")
                if self._server is not None:
                    group.create_task(self._server.run(), name="kubelet server")
        finally:
            await self._events.close()

    async def ready(self) -> None:
        """Return once the node is registered and its pods are looked after."""
        await self._heartbeat.registered()
        await self._pods_informer.synced()
        if self._server is not None:
            await self._server.listening()

    async def _run_pods(self) -> None:
        # The services must be known before the first container gets its environment.
        await self._services.synced()
        await self._pods.run()

    async def _watch_runtime(self) -> None:
        while True:
            await self._runtime.connected()
            self._heartbeat.poke()
            await self._runtime.disconnected()
            self._heartbeat.poke()

    def _problem(self) -> str:
        return "" if self._runtime.is_connected else "container runtime is down"
