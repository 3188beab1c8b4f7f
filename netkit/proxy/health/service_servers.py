"""The health servers of Services, one per Service and family: open what is wanted, close what is not, try again.

A follower of the family loops (it takes in what changed) and a server of the agent (it listens). Balancers probe the
Service's healthCheckNodePort to learn which nodes have endpoints of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace
from netkit.proxy.addresses import Address, Family
from netkit.proxy.backend import Synced
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.health.service_health import ServiceHealth, health_body
from netkit.proxy.reports import Reports
from netkit.proxy.servers.http import NO_SNIFF, Handler, HttpServer, serve
from netkit.proxy.state import ServiceKey

log = logging.getLogger(__name__)

FAILED: Final = "FailedToStartServiceHealthcheck"
RETRY: Final = 5.0
"""Seconds after which what could not be had is asked for again."""

WEIGHT_HEADER: Final = "X-Load-Balancing-Endpoint-Weight"

AddressesOf = Callable[[Family], Sequence[Address]]
"""Where the health servers of a family listen; may block shortly, raises KernelError."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What a Service's server listens on."""

    port: int
    addresses: tuple[Address, ...]


_Identity = tuple[Family, ServiceKey]


class ServiceHealthServers:
    """All health servers of one node."""

    def __init__(
        self,
        node_name: str,
        ns: Namespace,
        addresses_of: AddressesOf,
        health: ProxyHealth,
        reports: Reports,
        retry: float = RETRY,
    ) -> None:
        self._node_name = node_name
        self._ns = ns
        self._addresses_of = addresses_of
        self._health = health
        self._reports = reports
        self._retry = retry
        self._services: dict[Family, ServiceHealth] = {}
        self._open: dict[_Identity, tuple[_Place, HttpServer]] = {}
        self._changed = asyncio.Event()

    async def after_sync(self, synced: Synced) -> None:
        """See `Follower`."""
        services = self._services.setdefault(synced.state.family, ServiceHealth(self._node_name))
        before = services.ports()
        services.take(synced.state, synced.changes)
        if services.ports() != before:
            self._changed.set()

    async def run(self) -> None:
        """See `Server`."""
        try:
            while True:
                self._changed.clear()
                complete = await self._reconcile()
                try:
                    async with asyncio.timeout(None if complete else self._retry):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            for _, server in self._open.values():
                await server.close()
            self._open.clear()

    async def _reconcile(self) -> bool:
        """Close, then open: a port may have moved from one Service to another. True if all is as wanted."""
        try:
            wanted = dict(await asyncio.to_thread(lambda: list(self._wanted())))
        except KernelError as error:
            log.warning("%s: health servers of Services left as they are: %s", self._node_name, error)
            return False
        for identity, (place, server) in list(self._open.items()):
            if wanted.get(identity) != place:
                del self._open[identity]
                await server.close()
        results = [await self._opened(identity, place) for identity, place in wanted.items()]
        return all(results)

    def _wanted(self) -> Iterator[tuple[_Identity, _Place]]:
        for family, services in list(self._services.items()):
            ports = services.ports()
            if ports:
                addresses = tuple(self._addresses_of(family))
                for service, port in ports.items():
                    yield (family, service), _Place(port, addresses)

    async def _opened(self, identity: _Identity, place: _Place) -> bool:
        """Whether the server is there now."""
        if identity in self._open:
            return True
        family, (namespace, name) = identity
        if not place.addresses:
            # None of the ranges for node ports holds an address of this node, yet.
            return False
        try:
            server = await serve(self._ns, place.addresses, place.port, self._handler(family, identity[1]))
        except KernelError as error:
            log.warning(
                "%s/%s: no health server on %s port %d: %s",
                namespace,
                name,
                self._node_name,
                place.port,
                error,
            )
            self._reports.on_service(
                namespace,
                name,
                FAILED,
                f"node {self._node_name} could not listen for health checks on port {place.port}: {error}",
            )
            return False
        self._open[identity] = (place, server)
        log.info("%s/%s: health server on %s port %d", namespace, name, self._node_name, place.port)
        return True

    def _handler(self, family: Family, service: ServiceKey) -> Handler:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            count = self._services[family].local_endpoints(service)
            healthy = self._health.healthy
            return web.Response(
                status=200 if count and healthy else 503,
                body=health_body(service, count, proxy_healthy=healthy).encode(),
                headers={"Content-Type": "application/json", WEIGHT_HEADER: str(count), **NO_SNIFF},
            )

        return answer
