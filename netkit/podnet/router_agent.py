"""Keeps the static routes to pods in the routers (loop). Run by the control plane's process.

Every route into the cluster's pod range is this loop's, but for those that a BGP daemon made: what it does not want it
removes, also after a restart. What somebody else changes is put right at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.kernel import rtnl_read
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.kernel.network_events import NetworkEvents, RouteEvent
from netkit.kernel.route_listener import EventsLost
from netkit.kernel.rtnl import Rtnl
from netkit.podnet import router_routes
from netkit.podnet.direct import node_address
from netkit.podnet.peer import pod_range
from netkit.podnet.router_routes import Router

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 60.0
"""How often routers are looked at though nothing changed."""

_CALM_SECONDS: Final = 0.1
"""Between looks at the routers, should somebody insist."""


class RouterRoutes:
    """`routers` with their namespaces; `cluster_cidr` is all pods' range."""

    def __init__(
        self, client: Client, routers: Sequence[tuple[Router, Namespace]], cluster_cidr: IPv4Network
    ) -> None:
        self._routers = tuple(routers)
        self._cluster_cidr = cluster_cidr
        self._nodes = Informer(client, NODE)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        self._nodes.on_change(self._on_node)
        with contextlib.ExitStack() as stack:
            watched = [stack.enter_context(NetworkEvents(ns)) for _, ns in self._routers]
            helping = [asyncio.create_task(self._nodes.run())]
            helping += [asyncio.create_task(self._watch(events)) for events in watched]
            try:
                await self._nodes.synced()
                await self._sync_for_ever()
            finally:
                for task in helping:
                    task.cancel()
                await asyncio.gather(*helping, return_exceptions=True)

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        """Wake up for what concerns routes; heartbeats do not."""
        if old is None or new is None or _concerns(old) != _concerns(new):
            self._changed.set()

    async def _watch(self, events: NetworkEvents) -> None:
        while True:
            try:
                found = await events.next()
            except EventsLost:
                self._changed.set()
                continue
            except KernelError as error:
                log.error("changes in routers are seen every %.0f s only: %s", RESYNC_SECONDS, error)
                return
            if any(isinstance(e, RouteEvent) and e.target.subnet_of(self._cluster_cidr) for e in found):
                self._changed.set()

    async def _sync_for_ever(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            self._changed.clear()
            wait = RESYNC_SECONDS
            try:
                count = await asyncio.to_thread(self._apply, self._nodes.items())
            except (KernelError, OSError) as error:
                wait = backoff.next()
                log.warning("routes of routers: %s; again in %.1f s", error, wait)
            else:
                backoff.reset()
                if count:
                    log.info("routes of %d routers: %d changes", len(self._routers), count)
            await asyncio.sleep(_CALM_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _apply(self, nodes: Sequence[Object]) -> int:
        return sum(self._apply_to(router, ns, nodes) for router, ns in self._routers)

    def _apply_to(self, router: Router, ns: Namespace, nodes: Sequence[Object]) -> int:
        current = {
            route.target: route.via
            for route in rtnl_read.routes(ns)
            if route.via is not None
            and route.target.subnet_of(self._cluster_cidr)
            and route.protocol != rtnl_read.BIRD
        }
        links = {
            entry.address.network: entry.index
            for entry in rtnl_read.addresses(ns)
            if isinstance(entry.address, IPv4Interface)
        }
        messages = router_routes.changes(current, router_routes.ways(router, nodes), links)
        if messages:
            with Rtnl(ns) as link:
                link.apply(*messages)
        return len(messages)


def _concerns(node: Object) -> tuple[object, ...]:
    return pod_range(node), node_address(node)
