"""The control plane as one piece: store, registry, HTTP, and the controllers when they are handed in.

`netkit.cluster` calls `serve_control_plane` inside the control plane's process. This module only composes; it makes
no sockets (they are passed in, bound) and knows no way into the cluster's network (`dial` is passed in).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any

from controlplane.apiserver.admission.always_deny import AlwaysDeny
from controlplane.apiserver.admission.certificates import (
    CertificatePermissions,
    CertificateRequester,
    CertificateSubjectRestriction,
)
from controlplane.apiserver.admission.chain import Chain, Plugin, assemble
from controlplane.apiserver.admission.default_classes import DefaultIngressClass, DefaultStorageClass
from controlplane.apiserver.admission.default_tolerations import DefaultTolerations
from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.kind_warnings import KindWarnings
from controlplane.apiserver.admission.limit_ranger import LimitRanger
from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.admission.node_restriction import NodeRestriction
from controlplane.apiserver.admission.pod_security import PodSecurity, PodSecurityConfiguration
from controlplane.apiserver.admission.policies import ValidatingAdmissionPolicy
from controlplane.apiserver.admission.priority import Priority
from controlplane.apiserver.admission.resource_quota import ResourceQuotaAdmission
from controlplane.apiserver.admission.runtime_class import RuntimeClassAdmission
from controlplane.apiserver.admission.service_account import ServiceAccountAdmission
from controlplane.apiserver.admission.storage_objects import (
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.admission.taints import TaintNodesByCondition
from controlplane.apiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from controlplane.apiserver.aggregation import Aggregation, FrontProxy
from controlplane.apiserver.allocation.services import ServiceAllocator
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.build import build, client_authorities
from controlplane.apiserver.authn.settings import DEFAULTS, AuthenticationSettings
from controlplane.apiserver.authz import AUTHENTICATED, MASTERS
from controlplane.apiserver.authz.escalation import EscalationCheck
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.bootstrap import bootstrap
from controlplane.apiserver.custom_resources.definitions import CustomResources
from controlplane.apiserver.cycle_collector import full_collections_by_the_clock
from controlplane.apiserver.flowcontrol.dangling import DanglingSchemas
from controlplane.apiserver.flowcontrol.follow import follow as follow_flow_control
from controlplane.apiserver.health import HealthCheck, Steps
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.own_objects import keep
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import Registry, Seed
from controlplane.apiserver.registry.following import Following
from controlplane.apiserver.seeds import kept_seeds
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.streams import Dial
from controlplane.apiserver.user import LOOPBACK_USER, UserInfo
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.client.client import Client
from controlplane.client.components import Clients
from controlplane.client.local import LocalTransport
from controlplane.errors import Object
from controlplane.resources.catalog import SERVED
from controlplane.store.sqlite import SQLiteStore

log = logging.getLogger(__name__)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

Controllers = Callable[[Clients, str], Coroutine[Any, Any, None]]
"""Runs all controllers and the scheduler until it is cancelled; gets clients and the CA's certificate (PEM)."""

ADMIN_STEM = "admin"
_DEFAULT_AUTHORIZATION = AuthorizationSettings()
_ACCOUNTS = "system:serviceaccount:kube-system"
_ACCOUNT_GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", AUTHENTICATED)
CONTROLLER_MANAGER = UserInfo("system:kube-controller-manager", groups=(AUTHENTICATED,))
SCHEDULER = UserInfo("system:kube-scheduler", groups=(AUTHENTICATED,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneSettings:
    """What one control plane must be told.

    `data_dir` holds the store, `pki_dir` the certificates. `advertise_address` and `advertise_port` are where pods
    reach the API server behind the Service `kubernetes`; without an address that Service has no endpoints.
    `service_cidrs` in the order of preference, one per IP family; `node_ports` first and last, both included.
    `server_names` are further names and addresses that clients call the server by. `event_ttl_seconds`: how long an
    Event lives after its last write. `not_ready_seconds` and `unreachable_seconds`: how long pods stay on a node that
    is lost. `pod_security` is what the admission plug-in of that name does where namespaces say nothing. `operation`
    are limits and the audit log. `disabled_admission` and `enabled_admission` are names of admission plug-ins
    (`admission.chain.ORDER`).
    `authorization` says which authorizers are asked; `policy` are roles and bindings of the cluster's own parts beside
    Kubernetes' defaults.
    """

    data_dir: Path
    pki_dir: Path
    advertise_address: IPAddress | None = None
    advertise_port: int = 6443
    service_cidrs: tuple[IPNetwork, ...] = (IPv4Network("10.96.0.0/12"),)
    node_ports: tuple[int, int] = (30000, 32767)
    cluster_domain: str = "cluster.local"
    server_names: tuple[str, ...] = ()
    authentication: AuthenticationSettings = DEFAULTS
    authorization: AuthorizationSettings = _DEFAULT_AUTHORIZATION
    policy: tuple[Object, ...] = ()
    event_ttl_seconds: float = 3600.0
    not_ready_seconds: int = 300
    unreachable_seconds: int = 300
    disabled_admission: tuple[str, ...] = ()
    enabled_admission: tuple[str, ...] = ()
    pod_security: PodSecurityConfiguration = field(default_factory=PodSecurityConfiguration)
    operation: OperationSettings = field(default_factory=OperationSettings)

    @property
    def api_service_ip(self) -> IPAddress:
        """The ClusterIP of `default/kubernetes`: the first address of the first Service range."""
        return self.service_cidrs[0].network_address + 1


@dataclass(frozen=True, slots=True)
class ServerCertificates:
    """What `prepare_pki` made: the authority, and the API server's two identities."""

    authority: CertificateAuthority
    server: CertificatePaths
    kubelet_client: CertificatePaths
    admin: CertificatePaths
    front_proxy: FrontProxy


def prepare_pki(settings: ControlPlaneSettings, addresses: Iterable[IPAddress] = ()) -> ServerCertificates:
    """The authority and the control plane's certificates, made where missing. `addresses`: where it listens.

    Safe to repeat and after a kill at any moment. Raises PkiError, OSError.
    """
    authority = CertificateAuthority.load_or_create(settings.pki_dir)
    ips = {ip_address("127.0.0.1"), settings.api_service_ip, *addresses}
    if settings.advertise_address is not None:
        ips.add(settings.advertise_address)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"kubernetes.default.svc.{settings.cluster_domain}")
    for name in settings.server_names:
        try:
            ips.add(ip_address(name))
        except ValueError:
            names.append(name)
    usable = sorted((ip for ip in ips if not ip.is_unspecified), key=lambda ip: (ip.version, int(ip)))
    return ServerCertificates(
        authority,
        authority.ensure("apiserver", "kube-apiserver", (), names, usable, client=False, server=True),
        authority.ensure("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [MASTERS]),
        authority.ensure(ADMIN_STEM, "kubernetes-admin", [MASTERS]),
        FrontProxy.ensure(settings.pki_dir),
    )


_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl.VerifyFlags` has no name for."""


def server_tls(certificates: ServerCertificates, client_authorities: Iterable[Path]) -> ssl.SSLContext:
    """TLS for clients of the API server; a client certificate is welcome, not required (tokens do as well).

    Certificates of authorities unknown here end the handshake: Python's `ssl` offers no way to let them through to
    a 401, as Go's servers do. Dates are left to authentication, which answers 401.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.cert, certificates.server.key)
    for path in client_authorities:
        context.load_verify_locations(path)
    context.verify_flags |= _NO_CHECK_TIME
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def kubelet_tls(certificates: ServerCertificates) -> ssl.SSLContext:
    """TLS towards kubelets, under the API server's client certificate."""
    context = ssl.create_default_context(cafile=certificates.authority.certificate_path)
    context.load_cert_chain(certificates.kubelet_client.cert, certificates.kubelet_client.key)
    return context


async def serve_control_plane(
    settings: ControlPlaneSettings,
    sockets: Sequence[socket.socket],
    dial: Dial,
    controllers: Controllers | None = None,
    *,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until cancelled, or until a controller fails for good (its exception is raised then).

    `sockets` are bound TCP sockets; they are closed at the end. `on_ready` is called once, when requests are
    answered and the first objects are there. Raises StoreError, PkiError, OSError when it cannot start.
    """
    started = time.monotonic()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    certificates = prepare_pki(settings, (ip_address(sock.getsockname()[0]) for sock in sockets))
    store = SQLiteStore(settings.data_dir / "store.db")
    try:
        with full_collections_by_the_clock():
            authorization = Authorization.of(settings.authorization)
            kinds, objects, resolver = ServedKinds(SERVED), StoredObjects(), EndpointResolver()
            webhooks = WebhookClient(resolver, dial)
            chain = admission_chain(settings, kinds, authorization, objects, webhooks)
            registry = Registry(
                store,
                kinds,
                admission=chain.mutating,
                validation=chain.validating,
                allocators=[_allocator(settings)],
                lifetimes={("", "events"): settings.event_ttl_seconds},
            )
            objects.attach(registry)
            resolver.attach(registry)
            await registry.start()
            await authorization.follow(registry)
            custom = CustomResources(registry, webhooks)
            aggregation = Aggregation(registry, resolver, dial, certificates.front_proxy.client)
            steps, following = Steps(START_STEPS), Following(registry)
            server = _api_server(
                settings,
                sockets,
                registry,
                certificates,
                dial,
                authorization,
                _components(running=controllers is not None),
                aggregation,
                {"informer-sync": _informer_check(following), **steps.checks()},
            )
            try:
                await custom.start()
                addresses = [] if settings.advertise_address is None else [settings.advertise_address]
                await bootstrap(
                    registry,
                    settings.api_service_ip,
                    addresses,
                    settings.advertise_port,
                    settings.service_cidrs,
                )
                await bootstrap_policy(registry, settings.policy)
                await follow_flow_control(server.operation.gate, registry)
                await aggregation.start()
                keep(registry, following, own_objects(settings, registry, certificates))
                DanglingSchemas(registry, following)
                steps.done(*START_STEPS)
                authorities = client_authorities(settings.authentication, settings.pki_dir)
                await server.serve(sockets, server_tls(certificates, authorities))
                log.info("control plane: ready in %.0f ms", (time.monotonic() - started) * 1000)
                if on_ready is not None:
                    on_ready()
                await _run(server, controllers, certificates.authority.certificate_pem.decode())
            finally:
                for part in (custom, following, aggregation):
                    await part.close()
                await _close(server, registry)
                await authorization.close()
    finally:
        await store.close()


def _api_server(
    settings: ControlPlaneSettings,
    sockets: Sequence[socket.socket],
    registry: Registry,
    certificates: ServerCertificates,
    dial: Dial,
    authorization: Authorization,
    components: Mapping[str, HealthCheck],
    aggregation: Aggregation,
    health_checks: Mapping[str, HealthCheck],
) -> ApiServer:
    host, port = sockets[0].getsockname()[:2] if sockets else ("127.0.0.1", settings.advertise_port)
    address = f"{host}:{port}"
    parts = build(
        settings.authentication, settings.pki_dir, settings.cluster_domain, address, registry.lookup
    )
    config = ServerConfig(
        server_address=address,
        kinds=registry.kinds,
        kubelet_tls=kubelet_tls(certificates),
        components=components,
        token_issuer=parts.issuer,
        documents=parts.documents,
        proxy_headers=parts.header_names,
        health_checks=health_checks,
        operation=settings.operation,
        aggregation=aggregation,
    )
    return ApiServer(config, registry, parts.authentication, authorization.chain, dial)


START_STEPS = (
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapiv3-controller",
)
"""What /readyz tells of the start, by upstream's names, in its order."""


def own_objects(
    settings: ControlPlaneSettings, registry: Registry, certificates: ServerCertificates
) -> Sequence[Seed]:
    """What is put back when somebody takes it away."""
    config_map = certificates.front_proxy.config_map(
        settings.authentication, certificates.authority.certificate_pem
    )
    return [*kept_seeds(registry.kinds.built_in), config_map]


def _informer_check(following: Following) -> HealthCheck:
    async def check() -> str:
        return "" if following.is_synced else "not all watches have begun"

    return check


def _components(*, running: bool) -> Mapping[str, HealthCheck]:
    """They run in this process or not at all: where one ends for good, the server ends with it."""

    async def check() -> str:
        return "" if running else "not running"

    return {"controller-manager": check, "scheduler": check}


def admission_chain(
    settings: ControlPlaneSettings,
    kinds: ServedKinds,
    authorization: Authorization,
    objects: StoredObjects,
    webhooks: WebhookClient,
) -> Chain:
    """All admission plug-ins and what always runs after them. Raises ValueError for bad names."""
    authorizer = authorization.chain
    seat = AuthorizerSeat(authorizer)
    plugins: dict[str, Plugin] = {
        "NamespaceLifecycle": NamespaceLifecycle(),
        "LimitRanger": LimitRanger(objects),
        "ServiceAccount": ServiceAccountAdmission(),
        "NodeRestriction": NodeRestriction(),
        "TaintNodesByCondition": TaintNodesByCondition(),
        "PodSecurity": PodSecurity(settings.pod_security.defaults, settings.pod_security.exemptions),
        "Priority": Priority(),
        "DefaultTolerationSeconds": DefaultTolerations(
            settings.not_ready_seconds, settings.unreachable_seconds
        ),
        "PersistentVolumeClaimResize": PersistentVolumeClaimResize(),
        "DefaultStorageClass": DefaultStorageClass(),
        "StorageObjectInUseProtection": StorageObjectInUseProtection(),
        "RuntimeClass": RuntimeClassAdmission(),
        "CertificateApproval": CertificatePermissions(authorizer),
        "CertificateSubjectRestriction": CertificateSubjectRestriction(),
        "DefaultIngressClass": DefaultIngressClass(),
        "MutatingAdmissionWebhook": MutatingAdmissionWebhook(webhooks, seat, kinds),
        "ValidatingAdmissionPolicy": ValidatingAdmissionPolicy(seat, kinds),
        "ValidatingAdmissionWebhook": ValidatingAdmissionWebhook(webhooks, seat, kinds),
        "ResourceQuota": ResourceQuotaAdmission(objects),
        "AlwaysDeny": AlwaysDeny(),
    }
    chain = assemble(plugins, disabled=settings.disabled_admission, enabled=settings.enabled_admission)
    always = (EscalationCheck(authorization.rbac, authorizer), CertificateRequester())
    return replace(chain, mutating=(*chain.mutating, *always), validating=(*chain.validating, KindWarnings()))


def _allocator(settings: ControlPlaneSettings) -> ServiceAllocator:
    return ServiceAllocator(settings.service_cidrs, *settings.node_ports)


async def _run(server: ApiServer, controllers: Controllers | None, ca_pem: str) -> None:
    if controllers is None:
        await asyncio.get_running_loop().create_future()
        return
    await controllers(component_clients(server), ca_pem)


def component_clients(server: ApiServer) -> Clients:
    """Clients in this process for the controller manager, the scheduler, and each controller as itself."""

    def controller(name: str) -> Client:
        user = UserInfo(f"{_ACCOUNTS}:{name}", groups=_ACCOUNT_GROUPS)
        return Client(local_transport(server, user), f"kube-controller-manager/{name}")

    return Clients(
        Client(local_transport(server, CONTROLLER_MANAGER), "kube-controller-manager"),
        Client(local_transport(server, SCHEDULER), "kube-scheduler"),
        Client(local_transport(server, LOOPBACK_USER), "kube-apiserver"),
        controller,
    )


def local_transport(server: ApiServer, user: UserInfo) -> LocalTransport:
    """A transport for a client in this process that speaks as `user`."""
    return LocalTransport(server.handle, user, ApiRequest)


async def _close(server: ApiServer, registry: Registry) -> None:
    """Watches first: they end cleanly, and nothing keeps a connection busy."""
    await server.stop_listening()
    await registry.close()
    await server.close()
