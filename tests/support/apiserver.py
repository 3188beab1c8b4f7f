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

from controlplane.apiserver.aggregation import FrontProxy
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.build import build, client_authorities
from controlplane.apiserver.authn.settings import AuthenticationSettings
from controlplane.apiserver.authz import Authorizer
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.composition import ControlPlane
from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths
from controlplane.apiserver.server_certificates import ServerCertificates, prepare_pki, server_tls
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.apiserver.streams import Dial
from controlplane.errors import Object, not_found
from controlplane.resources.catalog import KINDS
from controlplane.resources.kind import Kind
from controlplane.store.events import Stored
from controlplane.store.protocol import Store
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
    chosen = _with_tokens(directory, authentication)
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
    try:
        async with _session(authority, admin) as session:
            yield Served(server, url, session, authority, admin)
    finally:
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
    store: Store | None = None,
) -> AsyncIterator[Served]:
    """A control plane on a SQLite store (or `store`), as it is served, but without controllers."""
    control_plane = ControlPlaneSettings(
        data_dir=directory,
        pki_dir=directory / "pki",
        advertise_address=ip_address("172.18.0.2"),
        service_cidrs=(IPv4Network("10.96.0.0/16"),),
        authentication=_with_tokens(directory, authentication),
        authorization=settings or AuthorizationSettings(),
        operation=operation or OperationSettings(),
        disabled_admission=tuple(disabled_admission),
    )
    certificates = prepare_pki(control_plane)
    sock = socket.create_server(("127.0.0.1", port))
    address = f"127.0.0.1:{sock.getsockname()[1]}"
    held = store or SQLiteStore(directory / "store.db")
    plane = ControlPlane(
        control_plane,
        held,
        certificates,
        dial,
        address,
        authorizer=authorizer,
        config=config or ServerConfig(),
    )
    try:
        await plane.start()
        await plane.settled()
        await plane.serve([sock])
        authority, admin = certificates.authority, certificates.admin
        async with _session(authority, admin) as session:
            yield Served(plane.server, f"https://{address}", session, authority, admin)
    finally:
        await plane.close()
        await held.close()
        sock.close()


def _with_tokens(directory: Path, authentication: AuthenticationSettings | None) -> AuthenticationSettings:
    tokens = directory / "tokens.csv"
    tokens.write_text(f'{TOKEN},root,1,"system:masters"\n{GUEST_TOKEN},bob,2\n')
    return replace(authentication or AuthenticationSettings(), token_file=tokens)


@asynccontextmanager
async def _session(
    authority: CertificateAuthority, admin: CertificatePaths
) -> AsyncIterator[aiohttp.ClientSession]:
    tls = ssl.create_default_context(cafile=authority.certificate_path)
    tls.load_cert_chain(admin.cert, admin.key)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        yield session
