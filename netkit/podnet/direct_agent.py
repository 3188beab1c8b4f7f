"""Keeps the routes to pods of a machine that is no node (loop). Run by the control plane's process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from ipaddress import IPv4Address

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.kernel import rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import device, direct

log = logging.getLogger(__name__)


class DirectRoutes:
    """`address` is the machine's own on the segment; its routes to pod ranges are this object's alone.
    `routers_know`: its router knows the way to the pods of nodes on other segments.
    """

    def __init__(
        self, client: Client, ns: Namespace, address: IPv4Address, *, routers_know: bool = False
    ) -> None:
        self._ns = ns
        self._address = address
        self._routers_know = routers_know
        self._nodes = Informer(client, NODE)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        self._nodes.on_change(self._on_node)
        following = asyncio.create_task(self._nodes.run())
        try:
            await self._nodes.synced()
            await self._sync_for_ever()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        """Wake up for what concerns routes; heartbeats do not."""
        if direct.ways([old] if old else ()) != direct.ways([new] if new else ()):
            self._changed.set()

    async def _sync_for_ever(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            self._changed.clear()
            nodes = self._nodes.items()
            try:
                count = await asyncio.to_thread(self._apply, nodes)
            except (KernelError, OSError) as error:
                wait = backoff.next()
                log.warning("%s: routes to pods: %s; again in %.1f s", self._ns.name, error, wait)
                await asyncio.sleep(wait)
                continue
            backoff.reset()
            if count:
                log.info("%s: routes to pods: %d changes", self._ns.name, count)
            await self._changed.wait()

    def _apply(self, nodes: Sequence[Object]) -> int:
        uplink = device.uplink(self._ns, self._address)
        index = uplink.index
        wanted = direct.ways(nodes, uplink.network, routers_know=self._routers_know)
        current = {
            route.target: route.via
            for route in rtnl_read.routes(self._ns, index)
            if route.via is not None and route.target.prefixlen > 0
        }
        messages = direct.changes(current, wanted, index)
        if messages:
            with Rtnl(self._ns) as links:
                links.apply(*messages)
        return len(messages)
