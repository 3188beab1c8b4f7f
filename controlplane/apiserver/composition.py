"""The parts of one control plane, put together: registry, authorization, admission, custom resources, server.

Made by `server.py` on the machine's store and sockets, and by tests on their own; both serve the same. It makes no
sockets and no store, and runs no controllers.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from controlplane.apiserver.admission.plugins import admission_chain
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.aggregation import Aggregation
from controlplane.apiserver.allocation.services import ServiceAllocator
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.build import build, client_authorities
from controlplane.apiserver.authz import Authorizer
from controlplane.apiserver.authz.chain import as_chain
from controlplane.apiserver.authz.modes import Authorization
from controlplane.apiserver.bootstrap import bootstrap
from controlplane.apiserver.custom_resources.definitions import CustomResources
from controlplane.apiserver.flowcontrol.dangling import DanglingSchemas
from controlplane.apiserver.flowcontrol.follow import follow as follow_flow_control
from controlplane.apiserver.health import START_STEPS, HealthCheck, Steps
from controlplane.apiserver.metrics.parts import storage_series
from controlplane.apiserver.own_objects import keep
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import Registry, Seed
from controlplane.apiserver.registry.following import Following
from controlplane.apiserver.seeds import kept_seeds
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.server_certificates import ServerCertificates, kubelet_tls, server_tls
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.apiserver.streams import Dial
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.resources.catalog import SERVED
from controlplane.store.protocol import Store

_DEFAULT_CONFIG = ServerConfig()


class ControlPlane:
    """`start`, then `serve`; `close` in any case. `server` answers in the same process once it is started."""

    def __init__(
        self,
        settings: ControlPlaneSettings,
        store: Store,
        certificates: ServerCertificates,
        dial: Dial,
        address: str,
        *,
        with_controllers: bool = False,
        authorizer: Authorizer | None = None,
        config: ServerConfig = _DEFAULT_CONFIG,
    ) -> None:
        """`address` is `host:port` as clients reach the server. `with_controllers` is what ComponentStatus tells.

        `authorizer` stands for the settings' chain. Of `config` count the observers, and `kubelet_tls` when it has one.
        Raises AuthorizationError, ValueError for settings that cannot be.
        """
        self._settings = settings
        self._certificates = certificates
        self.authorization = Authorization.of(settings.authorization)
        if authorizer is not None:
            self.authorization = replace(self.authorization, chain=as_chain(authorizer))
        kinds, objects, resolver = ServedKinds(SERVED), StoredObjects(), EndpointResolver()
        webhooks = WebhookClient(resolver, dial)
        chain = admission_chain(settings, kinds, self.authorization, objects, webhooks)
        self.registry = Registry(
            store,
            kinds,
            admission=chain.mutating,
            validation=chain.validating,
            allocators=[ServiceAllocator(settings.service_cidrs, *settings.node_ports)],
            lifetimes={("", "events"): settings.event_ttl_seconds},
        )
        objects.attach(self.registry)
        resolver.attach(self.registry)
        self._custom = CustomResources(self.registry, webhooks)
        self._aggregation = Aggregation(self.registry, resolver, dial, certificates.front_proxy.client)
        self._steps, self._following = Steps(START_STEPS), Following(self.registry)
        self.server = self._server(address, dial, config, with_controllers=with_controllers)

    def _server(self, address: str, dial: Dial, config: ServerConfig, *, with_controllers: bool) -> ApiServer:
        settings, registry = self._settings, self.registry
        parts = build(
            settings.authentication, settings.pki_dir, settings.cluster_domain, address, registry.lookup
        )
        whole = replace(
            config,
            server_address=address,
            kinds=registry.kinds,
            kubelet_tls=config.kubelet_tls or kubelet_tls(self._certificates),
            components=_components(running=with_controllers),
            token_issuer=parts.issuer,
            documents=parts.documents,
            proxy_headers=parts.header_names,
            health_checks={"informer-sync": _informer_check(self._following), **self._steps.checks()},
            operation=settings.operation,
            aggregation=self._aggregation,
        )
        return ApiServer(whole, registry, parts.authentication, self.authorization.chain, dial)

    async def start(self) -> None:
        """Load what is stored, make the first objects, follow what must be followed. Raises StoreError."""
        settings, registry = self._settings, self.registry
        await registry.start()
        await self.authorization.follow(registry)
        await self._custom.start()
        addresses = [] if settings.advertise_address is None else [settings.advertise_address]
        await bootstrap(
            registry, settings.api_service_ip, addresses, settings.advertise_port, settings.service_cidrs
        )
        await bootstrap_policy(registry, settings.policy)
        file_size = partial(storage_series, settings.data_dir / "store.db")
        self.server.operation.more_series.append(file_size)
        await follow_flow_control(self.server.operation.gate, registry)
        await self._aggregation.start()
        keep(registry, self._following, self._own_objects())
        DanglingSchemas(registry, self._following)
        self._steps.done(*START_STEPS)

    async def settled(self) -> None:
        """Return once everything that is followed has been seen."""
        await self._following.synced()
        await self._aggregation.synced()

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Answer requests on bound sockets from now on."""
        authorities = client_authorities(self._settings.authentication, self._settings.pki_dir)
        await self.server.serve(sockets, server_tls(self._certificates, authorities))

    async def close(self) -> None:
        """End everything but the store. Watches first: they end cleanly, and nothing keeps a connection busy."""
        for part in (self._custom, self._following, self._aggregation):
            await part.close()
        await self.server.stop_listening()
        await self.registry.close()
        await self.server.close()
        await self.authorization.close()

    def _own_objects(self) -> Sequence[Seed]:
        """What is put back when somebody takes it away."""
        config_map = self._certificates.front_proxy.config_map(
            self._settings.authentication, self._certificates.authority.certificate_pem
        )
        return [*kept_seeds(self.registry.kinds.built_in), config_map]


def _informer_check(following: Following) -> HealthCheck:
    async def check() -> str:
        return "" if following.is_synced else "not all watches have begun"

    return check


def _components(*, running: bool) -> Mapping[str, HealthCheck]:
    """They run in this process or not at all: where one ends for good, the server ends with it."""

    async def check() -> str:
        return "" if running else "not running"

    return {"controller-manager": check, "scheduler": check}
