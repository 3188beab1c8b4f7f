"""An API server on loopback TLS for tests, and the clients that talk to it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.aggregation import Aggregation, FrontProxy
from controlplane.apiserver.allocation.services import ServiceAllocator
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.build import build, client_authorities
from controlplane.apiserver.authn.settings import AuthenticationSettings
from controlplane.apiserver.authz import Authorizer
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.bootstrap import bootstrap
from controlplane.apiserver.custom_resources.definitions import CustomResources
from controlplane.apiserver.flowcontrol.dangling import DanglingSchemas
from controlplane.apiserver.flowcontrol.follow import follow as follow_flow_control
from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.own_objects import keep
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.registry.following import Following
from controlplane.apiserver.seeds import kept_seeds
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.server import (
    ControlPlaneSettings,
    ServerCertificates,
    admission_chain,
    server_tls,
)
from controlplane.apiserver.streams import Dial
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.errors import Object, not_found
from controlplane.resources.catalog import KINDS, SERVED
from controlplane.resources.kind import Kind
from controlplane.store.events import Stored
from controlplane.store.sqlite import SQLiteStore

TOKEN = "test-token-of-an-administrator"
GUEST_TOKEN = "test-token-of-a-guest"
WITHOUT_CONTROLLERS = ("ServiceAccount", "TaintNodesByCondition")
"""Admission plug-ins that count on controllers."""


@dataclass(slots=True)
class Served:
    """A running server. `session` speaks as an administrator by certificate; `url` has no closing slash."""

    server: ApiServer
    url: str
    session: aiohttp.ClientSession
    authority: CertificateAuthority
    admin: CertificatePaths

    def client_tls(self, *, certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.certificate_path)
        if certificate:
            context.load_cert_chain(self.admin.cert, self.admin.key)
        return context

    async def json(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        async with self.session.request(method, self.url + path, **arguments) as answer:
            body = await answer.read()
            assert answer.status == status, body[:2000]
            return await answer.json(content_type=None) if body else None


async def refuse(address: str, port: int) -> socket.socket:
    raise ConnectionRefusedError(111, f"connect {address}:{port}: connection refused")


def subject(peer_certificate: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of a certificate in the `ssl` module's form; empty without one."""
    names = [pair for names in (peer_certificate or {}).get("subject", ()) for pair in names]
    common = [value for key, value in names if key == "commonName"]
    return (common or [""])[0], tuple(value for key, value in names if key == "organizationName")


@asynccontextmanager
async def serving(
    registry: Any,
    directory: Path,
    dial: Dial = refuse,
    config: ServerConfig | None = None,
    authentication: AuthenticationSettings | None = None,
    authorizer: Authorizer | None = None,
    port: int = 0,
) -> AsyncIterator[Served]:
    """An ApiServer over `registry` on a loopback port (0 = a free one).

    Without `authorizer` only administrators may anything.
    """
    authorizer = authorizer or Authorization.of(AuthorizationSettings()).chain
    authority = CertificateAuthority.load_or_create(directory / "pki")
    loopback = [ip_address("127.0.0.1")]
    paths = authority.ensure("apiserver", "kube-apiserver", ips=loopback, client=False, server=True)
    admin = authority.ensure("admin", "kubernetes-admin", ["system:masters"])
    tokens = directory / "tokens.csv"
    tokens.write_text(f'{TOKEN},root,1,"system:masters"\n{GUEST_TOKEN},bob,2\n')
    chosen = replace(authentication or AuthenticationSettings(), token_file=tokens)
    made = ServerCertificates(authority, paths, admin, admin, FrontProxy.ensure(directory / "pki"))
    tls = server_tls(made, client_authorities(chosen, directory / "pki"))
    sock = socket.create_server(("127.0.0.1", port))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    parts = build(chosen, directory / "pki", "cluster.local", url.removeprefix("https://"), registry.lookup)
    config = replace(
        config or ServerConfig(),
        token_issuer=parts.issuer,
        documents=parts.documents,
        proxy_headers=parts.header_names,
    )
    server = ApiServer(config, registry, parts.authentication, authorizer, dial)
    await server.serve([sock], tls)
    client_tls = ssl.create_default_context(cafile=authority.certificate_path)
    client_tls.load_cert_chain(admin.cert, admin.key)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls))
    try:
        yield Served(server, url, session, authority, admin)
    finally:
        await session.close()
        await server.close()


class FakeRegistry:
    """Holds objects by (plural, namespace, name); enough for handlers that only read one object."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}

    def add(self, plural: str, obj: Object) -> None:
        metadata = obj["metadata"]
        self.objects[plural, metadata.get("namespace", ""), metadata["name"]] = obj

    async def get(self, kind: Any, namespace: str, name: str, resource_version: str = "") -> Stored:
        obj = self.objects.get((kind.plural, namespace, name))
        if obj is None:
            raise not_found(kind.plural, kind.group, name)
        return Stored(obj, b"{}", 1)

    def kind_of(self, group: str, plural: str) -> Kind | None:
        return next((kind for kind in KINDS if (kind.group, kind.plural) == (group, plural)), None)

    def count(self, kind: Kind, namespace: str = "") -> int:
        return 0

    async def revision(self) -> int:
        return 1

    async def admit(self, *arguments: Any, **options: Any) -> None:
        """Everything is welcome."""

    async def lookup(self, group: str, plural: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((plural, namespace, name))


@asynccontextmanager
async def cluster(
    directory: Path,
    dial: Dial = refuse,
    settings: AuthorizationSettings | None = None,
    authentication: AuthenticationSettings | None = None,
    authorizer: Authorizer | None = None,
    disabled_admission: Sequence[str] = WITHOUT_CONTROLLERS,
    operation: OperationSettings | None = None,
    port: int = 0,
    config: ServerConfig | None = None,
) -> AsyncIterator[Served]:
    """A server over a real registry and a SQLite store, with the first objects; no controllers."""
    authorization = Authorization.of(settings or AuthorizationSettings())
    asked = authorization if authorizer is None else replace(authorization, chain=authorizer)
    store = SQLiteStore(directory / "store.db")
    kinds, objects = ServedKinds(SERVED), StoredObjects()
    control_plane = ControlPlaneSettings(
        data_dir=directory, pki_dir=directory / "pki", disabled_admission=tuple(disabled_admission)
    )
    resolver = EndpointResolver()
    webhooks = WebhookClient(resolver, dial)
    chain = admission_chain(control_plane, kinds, asked, objects, webhooks)
    registry = Registry(
        store,
        kinds,
        admission=chain.mutating,
        validation=chain.validating,
        allocators=[ServiceAllocator([IPv4Network("10.96.0.0/16")])],
    )
    objects.attach(registry)
    resolver.attach(registry)
    await registry.start()
    await authorization.follow(registry)
    custom = CustomResources(registry, webhooks)
    proxy = FrontProxy.ensure(directory / "pki")
    clients = CertificateAuthority.load_or_create(directory / "pki").certificate_pem
    config_map = proxy.config_map(authentication or AuthenticationSettings(), clients)
    aggregation = Aggregation(registry, resolver, dial, proxy.client)
    following = Following(registry)
    upkeep = (custom, following, aggregation)
    try:
        await custom.start()
        cidrs = [IPv4Network("10.96.0.0/16")]
        await bootstrap(registry, ip_address("10.96.0.1"), [ip_address("172.18.0.2")], 6443, cidrs)
        if authorizer is None:
            await bootstrap_policy(registry)
        await aggregation.start()
        keep(registry, following, [*kept_seeds(registry.kinds.built_in), config_map])
        DanglingSchemas(registry, following)
        await following.synced()
        await aggregation.synced()
        config = replace(
            config or ServerConfig(),
            kinds=registry.kinds,
            aggregation=aggregation,
            operation=operation or OperationSettings(),
        )
        async with serving(registry, directory, dial, config, authentication, asked.chain, port) as served:
            await follow_flow_control(served.server.operation.gate, registry)
            yield served
            await served.server.stop_listening()
            for part in upkeep:
                await part.close()
            await registry.close()
    finally:
        for part in upkeep:
            await part.close()
        await registry.close()
        await store.close()
        await authorization.close()
