"""The HTTP shell: aiohttp on TLS sockets, thin around the core.

Takes a request off the wire, finds out who asks, calls `Core.handle`, and has the answer put on the wire (`wire.py`).
Started by `composition.py`. Knows nothing of Kubernetes' objects.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from aiohttp import web

from controlplane.apiserver import deadline
from controlplane.apiserver.aggregation import Aggregation
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.bearer import bearer_token
from controlplane.apiserver.authn.credentials import Credentials
from controlplane.apiserver.authn.impersonation import PREFIX as IMPERSONATE
from controlplane.apiserver.authn.impersonation import impersonate
from controlplane.apiserver.authn.service_account import TokenIssuer
from controlplane.apiserver.authn.settings import STANDARD_NAMES, HeaderNames
from controlplane.apiserver.authz import Authorizer
from controlplane.apiserver.authz.chain import as_chain
from controlplane.apiserver.authz.explain import EXPLAIN, WHO_CAN, Explainer
from controlplane.apiserver.core import Core, review_handlers, subresource_handlers
from controlplane.apiserver.discovery import Discovery
from controlplane.apiserver.handlers.component_status import ComponentStatuses
from controlplane.apiserver.handlers.connect import Connector
from controlplane.apiserver.handlers.metrics import Metrics
from controlplane.apiserver.health import Health, HealthCheck
from controlplane.apiserver.messages import ApiRequest, ApiResponse, error_response
from controlplane.apiserver.metrics.parts import aggregator_series, watch_series
from controlplane.apiserver.nonresource import NonResources, Page
from controlplane.apiserver.operation import Operation, OperationSettings
from controlplane.apiserver.passage import Observer
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.stalled import StalledConnections
from controlplane.apiserver.streams import Dial
from controlplane.apiserver.usage import Kubelets
from controlplane.apiserver.user import UserInfo
from controlplane.apiserver.wire import Detached, complete, endless, read_body, readable, wire_log
from controlplane.errors import BadRequest, StatusError, Unauthorized
from controlplane.resources.catalog import SERVED
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_KEEP_ALIVE_SECONDS = 90.0
"""How long a connection may say nothing, or only part of a request's head."""
_SHUTDOWN_SECONDS = 2.0
_WATCH_END_SECONDS = 0.5
_WRITES_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """`server_address` is `host:port` as clients reach the server. `kubelet_tls` carries the server's own client
    certificate. `kinds` is the registry's live set, or a fixed one. `health_checks` are told by /readyz and its
    siblings beside `ping`, `log` and `etcd`, `components` by ComponentStatus beside `etcd-0`. `token_issuer` signs
    ServiceAccount tokens. `documents` are fixed answers by path. `proxy_headers` are those an authenticating proxy
    speaks in: they go no further than authentication. `observers` are told of each request beside `operation`'s own.
    `aggregation` knows what other servers serve."""

    server_address: str = "127.0.0.1:6443"
    kinds: ServedKinds | Sequence[Kind] = SERVED
    kubelet_tls: ssl.SSLContext | None = None
    health_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
    components: Mapping[str, HealthCheck] = field(default_factory=dict)
    token_issuer: TokenIssuer | None = None
    documents: Mapping[str, ApiResponse] = field(default_factory=dict)
    proxy_headers: Sequence[HeaderNames] = (STANDARD_NAMES,)
    operation: OperationSettings = field(default_factory=OperationSettings)
    aggregation: Aggregation | None = None
    observers: Sequence[Observer] = ()


class ApiServer:
    """`handle` answers in the same process; `serve` puts it on sockets."""

    def __init__(
        self,
        config: ServerConfig,
        registry: Registry,
        authentication: Authentication,
        authorizer: Authorizer,
        kubelet_dial: Dial,
    ) -> None:
        async def good() -> str:
            return ""

        async def store() -> str:
            await registry.revision()
            return ""

        async def shutdown() -> str:
            return "process is shutting down" if self._is_closing else ""

        self._is_closing = False
        health = Health(
            {
                "ping": good, "log": good, "etcd": store, "etcd-readiness": store, "informer-sync": good,
                **config.health_checks, "shutdown": shutdown,
            },
            ready_only=("etcd-readiness", "informer-sync", "shutdown"),
        )  # fmt: skip
        self._authentication = authentication
        self._proxy_headers = tuple(config.proxy_headers)
        self.authorizer = authorizer
        components = ComponentStatuses({"etcd-0": store, **config.components})
        metrics = Metrics(Kubelets(kubelet_dial, config.kubelet_tls))
        subresources = {
            **subresource_handlers(Connector(kubelet_dial, config.kubelet_tls), config.token_issuer),
            ("", "componentstatuses", ""): {"get": components.get, "list": components.list},
            ("metrics.k8s.io", "nodes", ""): {"get": metrics.get_node, "list": metrics.list_nodes},
            ("metrics.k8s.io", "pods", ""): {"get": metrics.get_pod, "list": metrics.list_pods},
        }
        kinds = ServedKinds.of(config.kinds)
        registrations = None if config.aggregation is None else config.aggregation.registrations
        discovery = Discovery(kinds, config.server_address, subresources, registrations)
        explainer = Explainer(as_chain(authorizer))
        non_resources = NonResources(kinds, discovery, health, config.documents, config.aggregation)
        self.operation = Operation(config.operation, registry)
        pages: dict[tuple[str, ...], Page] = {EXPLAIN: explainer.explain, WHO_CAN: explainer.who_can}
        non_resources.add_pages({**pages, **self.operation.pages(health.healthy)})
        self._core = Core(
            registry,
            kinds,
            authorizer,
            non_resources,
            subresources,
            review_handlers(authentication, authorizer),
            gate=self.operation.gate,
            observers=[*self.operation.observers, *config.observers],
            request_timeout=config.operation.request_timeout,
            aggregation=config.aggregation,
        )
        self.operation.more_series.append(lambda: [watch_series(self._core.frames.events)])
        if registrations is not None:
            self.operation.more_series.append(partial(aggregator_series, registrations))
        self._runner: web.ServerRunner | None = None
        self._stalled: StalledConnections | None = None
        self._sites: list[web.SockSite] = []
        self._endless: set[asyncio.Task[Any]] = set()
        self._watches: set[asyncio.Task[Any]] = set()
        self._writes: set[asyncio.Task[Any]] = set()
        self._certificates: WeakKeyDictionary[ssl.SSLObject, bytes] = WeakKeyDictionary()
        self._is_over = False

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer a request whose user is known already; never raises but for cancellation."""
        response = await self._core.handle(request)
        response.sent()
        return response

    async def serve(self, sockets: Sequence[socket.socket], ssl_context: ssl.SSLContext | None) -> None:
        """Listen on bound sockets until `close`; returns at once. May be called once."""
        server = web.Server(
            self._respond,
            access_log=None,
            logger=wire_log(),
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            handler_cancellation=True,
            lingering_time=1.0,
            # Bodies are taken as they are: upstream unpacks none, and what is passed on must not change.
            auto_decompress=False,
            max_field_size=64 * 1024,
            max_line_size=64 * 1024,
        )
        self._stalled = StalledConnections(lambda: server.connections)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        for sock in sockets:
            site = web.SockSite(self._runner, sock, ssl_context=ssl_context, backlog=512)
            await site.start()
            self._sites.append(site)

    async def stop_listening(self) -> None:
        """Take no more connections; the ones there are go on. From now on the server says that it is not ready."""
        self._is_closing = True
        for site in self._sites:
            await site.stop()
        self._sites.clear()

    async def close(self) -> None:
        """Stop listening, end streams and finish the writes that have begun.

        Watches get a moment to tell their clients of the end, which comes when the registry is closed before.
        """
        await self.stop_listening()
        self._is_over = True
        await self._authentication.close()
        for task in self._endless:
            task.cancel()
        if self._watches:
            _, late = await asyncio.wait(self._watches, timeout=_WATCH_END_SECONDS)
            for task in late:
                task.cancel()
        if self._stalled is not None:
            self._stalled.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._writes:
            _, late = await asyncio.wait(self._writes, timeout=_WRITES_SECONDS)
            for task in late:
                task.cancel()
        self.operation.close()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._handle_wire(request)
        except StatusError as error:
            response = error_response(error)
        if isinstance(response.body, bytes) and response.tunnel is None:
            return await self._written(request, response, response.body)
        task = asyncio.current_task()
        assert task is not None
        group = self._watches if response.is_watch else self._endless
        group.add(task)
        try:
            return await endless(request, response)
        finally:
            group.discard(task)

    async def _written(
        self, request: web.BaseRequest, response: ApiResponse, body: bytes
    ) -> web.StreamResponse:
        """A complete answer, sent. Its request keeps its seat while it is written, which for long lists is most of the
        work, but not while a slow client reads."""
        try:
            answer = await complete(request, response, body)
            if self._is_over:
                # A client that keeps its connection would go on asking a server that is gone.
                answer.force_close()
            asyncio.get_running_loop().call_soon(response.sent)
            await answer.prepare(request)
            await answer.write_eof()
        except OSError as error:
            log.debug("%s %s: the client left: %s", request.method, request.raw_path, error)
            return Detached()
        finally:
            response.sent()
        return answer

    async def _handle_wire(self, request: web.BaseRequest) -> ApiResponse:
        path, _, query = request.raw_path.partition("?")
        if not path.startswith("/"):
            raise BadRequest("the request target must be a path")
        method = "GET" if request.method == "HEAD" else request.method
        pairs = parse_qsl(query, keep_blank_values=True) if query else ()
        headers, remote = self._headers(request), request.remote or ""
        fault: StatusError
        try:
            user, impersonator = await self._user(request, path, headers)
            body = await read_body(request) if request.body_exists else b""
        except TimeoutError:
            fault = deadline.exceeded()
        except StatusError as error:
            fault = error
        else:
            return await self._answer(
                request, ApiRequest(method, path, pairs, headers, body, user, impersonator, remote)
            )
        return self._core.refuse(ApiRequest(method, path, pairs, headers, remote=remote), fault)

    async def _answer(self, request: web.BaseRequest, api_request: ApiRequest) -> ApiResponse:
        if request.method in _SAFE_METHODS:
            return await self._core.handle(api_request)
        # A client that goes away must not stop a write half way.
        task = asyncio.create_task(self._core.handle(api_request))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._abandon)
            raise

    def _abandon(self, task: asyncio.Task[ApiResponse]) -> None:
        """Nobody waits for this answer any more: close what it holds open."""
        if not task.cancelled():
            closing = asyncio.create_task(_close(task.result()))
            self._writes.add(closing)
            closing.add_done_callback(self._writes.discard)

    async def _user(
        self, request: web.BaseRequest, path: str, lowered: Mapping[str, str]
    ) -> tuple[UserInfo, UserInfo | None]:
        """As whom is asked, and who asks where that is another. `lowered` are the headers with lower-case names.

        Raises Unauthorized, Forbidden, BadRequest.
        """
        headers = readable(request.headers)
        credentials = Credentials(self._certificate(request), bearer_token(headers), headers)
        try:
            user = (await self._authentication.identify(credentials, path)).user
        except Unauthorized:
            self.operation.metrics.authenticated("failure")
            raise
        self.operation.metrics.authenticated("success")
        if not any(name.startswith(IMPERSONATE) for name in lowered):
            return user, None
        pairs = [(name.lower(), value) for name, value in headers.items()]
        return await impersonate(user, pairs, self.authorizer), user

    def _certificate(self, request: web.BaseRequest) -> bytes:
        """The client's certificate, empty without one."""
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        if tls is None:
            return b""
        # It stays the same as long as the connection lives, and to encode it again takes 5 us.
        found = self._certificates.get(tls)
        if found is None:
            found = self._certificates[tls] = tls.getpeercert(True) or b""
        return found

    def _headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """Lower-case names; repeated headers are joined by commas. What only a proxy may say is left out."""
        headers: dict[str, str] = {}
        for name, value in readable(request.headers).items():
            name = name.lower()
            if name.startswith("x-") and any(known.covers(name) for known in self._proxy_headers):
                continue
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers


async def _close(response: ApiResponse) -> None:
    response.sent()
    if response.tunnel is not None:
        await response.tunnel.close()
    if not isinstance(response.body, bytes):
        await response.body.aclose()
