"""All of API aggregation for one server: started by `server.py`, asked by the core, discovery and OpenAPI."""

from __future__ import annotations

from functools import partial

from controlplane.apiserver.aggregation.availability import Availability
from controlplane.apiserver.aggregation.gateway import Gateway, NotReached, NotResolved, Resolver
from controlplane.apiserver.aggregation.proxy import Proxy
from controlplane.apiserver.aggregation.registrations import Registrations
from controlplane.apiserver.pki import CertificatePaths
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.streams import Dial
from controlplane.resources.apiregistration import API_SERVICE

_JSON = "application/json"


class Aggregation:
    """`client` is the front proxy's certificate. `start` after the registry has been started."""

    def __init__(self, registry: Registry, resolver: Resolver, dial: Dial, client: CertificatePaths) -> None:
        self._registry = registry
        self._gateway = Gateway(resolver, dial, client)
        self.registrations = Registrations()
        self.proxy = Proxy(self.registrations, self._gateway)
        self._availability = Availability(registry, self.registrations, self._gateway)

    async def start(self) -> None:
        await self._registry.cache(API_SERVICE)
        self.registrations.follow(partial(self._registry.present_cache, API_SERVICE))
        self._availability.start()

    async def synced(self) -> None:
        """Return once APIServices are followed."""
        await self._availability.synced()

    async def close(self) -> None:
        await self._availability.close()

    async def openapi(self, group: str, version: str) -> bytes | None:
        """The OpenAPI v3 document of a version of another server; None when there is none."""
        one = self.registrations.find(group, version)
        url = self.registrations.served(group, version).openapi_url
        if one is None or not url:
            return None
        try:
            status, body = await self._gateway.get(one, await self._gateway.locate(one), url, _JSON)
        except (NotReached, NotResolved):
            return None
        return body if status == 200 else None
