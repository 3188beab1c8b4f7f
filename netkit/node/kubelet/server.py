"""The kubelet's HTTPS server, listening inside the node's network namespace. Made by `agent`.

Only client certificates of the cluster's CA with an allowed name or group get in. Paths are kubelet's:
/containerLogs, /exec, /attach, /portForward, and what `inspection` shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from netkit.kernel.netns import socket_in
from netkit.node.kubelet import logs
from netkit.node.kubelet.byte_stream import UpgradedConnection, WebSocketBytes
from netkit.node.kubelet.commands import SpdyCommand, WebSocketCommand, join
from netkit.node.kubelet.inspection import Inspection
from netkit.node.kubelet.port_forward import SpdyForward, WebSocketForward, parse_port
from netkit.node.kubelet.refusal import Refusal
from netkit.node.kubelet.spdy_session import SpdySession
from netkit.node.pods import Pods
from netkit.node.runtime.client import RuntimeClient, RuntimeGone, RuntimeRefused, RuntimeStream
from netkit.node.runtime.spec import ExecRequest
from netkit.node.settings import KubeletTls, NodeSettings
from netkit.node.streams.exec_protocol import (
    SPDY_VERSIONS,
    WEBSOCKET_VERSIONS,
    StreamOptions,
    choose,
    failure_status,
)
from netkit.node.usage_meter import UsageMeter
from netkit.node.worker import PodWorker

log = logging.getLogger(__name__)

_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_FORWARD_CHANNELS = "v4.channel.k8s.io"
_BARE_FORWARD = "portforward.k8s.io"
_LARGEST_MESSAGE = 32 << 20
_RETRY_SECONDS = 0.5
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubeletServer:
    """Serves the pods of one node."""

    def __init__(self, settings: NodeSettings, pods: Pods, runtime: RuntimeClient, meter: UsageMeter) -> None:
        assert settings.tls is not None
        self._settings = settings
        self._tls: KubeletTls = settings.tls
        self._pods = pods
        self._runtime = runtime
        self._inspection = Inspection(settings, pods, meter)
        self._listening = asyncio.Event()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard])
        self._inspection.add_routes(app.router)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for verb in ("exec", "attach"):
            app.router.add_route("*", f"/{verb}/{{namespace}}/{{pod}}/{{container}}", self._command)
        app.router.add_route("*", "/portForward/{namespace}/{pod}", self._port_forward)
        return app

    async def run(self) -> None:
        """Until cancelled."""
        runner = web.AppRunner(
            self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1
        )
        await runner.setup()
        try:
            site = web.SockSite(runner, await self._listener(), ssl_context=self._ssl_context())
            await site.start()
            self._listening.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def listening(self) -> None:
        """Return once connections are taken."""
        await self._listening.wait()

    async def _listener(self) -> socket.socket:
        """The port, waited for while a dying predecessor still has it."""
        place = (self._settings.node_address, self._settings.kubelet_port)
        while True:
            listener = socket_in(self._settings.node_ns, socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(place)
                listener.listen(128)
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                log.warning("%s: port %d is taken; trying again", self._settings.node_name, place[1])
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return listener

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        context.load_verify_locations(self._tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except Refusal as refusal:
            return web.Response(status=refusal.status, text=refusal.text)
        except (RuntimeGone, RuntimeRefused) as error:
            return web.Response(status=500, text=str(error))

    def _authorize(self, request: web.Request) -> None:
        if request.transport is None:
            raise Refusal(401, "Unauthorized")
        certificate = request.transport.get_extra_info("peercert") or {}
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        names = {value for key, value in subject if key == "commonName"}
        groups = {value for key, value in subject if key == "organizationName"}
        if names & self._tls.allowed_names or groups & self._tls.allowed_groups:
            return
        user = next(iter(names), "system:anonymous")
        raise Refusal(403, f"Forbidden (user={user}, verb=get, resource=nodes, subresource=proxy)")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        missing = f'pod "{request.match_info["pod"]}" does not exist'
        return await logs.serve(request, self._worker(request, missing))

    def _worker(self, request: web.Request, missing: str = "pod does not exist") -> PodWorker:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        worker = self._pods.find(namespace, name)
        if worker is None:
            raise Refusal(404, missing)
        return worker

    async def _command(self, request: web.Request) -> web.StreamResponse:
        """Exec and attach, over WebSocket or SPDY."""
        options = StreamOptions(
            stdin=_flag(request, "input"),
            stdout=_flag(request, "output"),
            stderr=_flag(request, "error"),
            tty=_flag(request, "tty"),
        )
        try:
            container = self._running_container(request)
        except Refusal as refusal:
            if _speaks_newest(request):
                return await _refuse_in_stream(request, refusal)
            raise
        wanted = ExecRequest(
            container=container,
            argv=tuple(request.query.getall("command", [])),
            attach=request.path.startswith("/attach/"),
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            tty=options.tty,
        )
        if _is_websocket(request):
            return await self._websocket_command(request, wanted, options)
        return await self._spdy_command(request, wanted, options)

    def _running_container(self, request: web.Request) -> str:
        """The id of the container the path names. Raises Refusal."""
        container = request.match_info["container"]
        view = self._worker(request).views.by_name.get(container)
        if view is not None and view.current is not None and view.current.running:
            return view.current.id
        if request.path.startswith("/attach/"):
            pod = "{pod}_{namespace}".format(**request.match_info)
            raise Refusal(500, f"container {container} not found in pod {pod}")
        raise Refusal(500, f'container not found ("{container}")')

    async def _websocket_command(
        self, request: web.Request, wanted: ExecRequest, options: StreamOptions
    ) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=WEBSOCKET_VERSIONS, max_msg_size=_LARGEST_MESSAGE)
        await response.prepare(request)
        client = WebSocketCommand(response)
        with contextlib.suppress(ConnectionError):
            await client.begin(options)
        try:
            program = await self._open(wanted)
        except RuntimeRefused as error:
            await client.finish(failure_status(str(error)))
            return response
        await join(client, program, options)
        await response.close()
        return response

    async def _spdy_command(
        self, request: web.Request, wanted: ExecRequest, options: StreamOptions
    ) -> web.StreamResponse:
        version = _spdy_version(request, SPDY_VERSIONS)
        session = SpdySession(_take_over(request, version))
        reading = asyncio.create_task(session.run(), name="SPDY exec")
        try:
            client = await SpdyCommand.open(session, version, options)
            if client is not None:
                reading.add_done_callback(lambda _: asyncio.ensure_future(client.gone()))
                try:
                    await join(client, await self._open(wanted), options)
                except RuntimeRefused as error:
                    await client.finish(failure_status(str(error)))
                finally:
                    await client.close()
                # The client closes the connection once it has read the status.
                await asyncio.wait([reading], timeout=_RETRY_SECONDS)
        except ConnectionError as error:
            log.debug("exec: %s", error)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await session.close()
        return _taken_over()

    async def _open(self, wanted: ExecRequest) -> RuntimeStream:
        try:
            return await self._runtime.stream(wanted)
        except RuntimeRefused as error:
            if wanted.attach:
                raise
            raise RuntimeRefused(error.kind, f"error executing command in container: {error}") from error

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        sandbox = worker.sandbox
        if sandbox is None:
            raise Refusal(500, f'sandbox of pod "{request.match_info["pod"]}" not found')
        name = worker.key
        if not _is_websocket(request):
            version = _spdy_version(request, (_BARE_FORWARD, ""))
            await self._serve_forward(SpdySession(_take_over(request, version)), sandbox.netns, name)
            return _taken_over()
        protocols = (_TUNNEL, _FORWARD_CHANNELS)
        response = web.WebSocketResponse(protocols=protocols, max_msg_size=_LARGEST_MESSAGE)
        if response.can_prepare(request).protocol == _TUNNEL:
            await response.prepare(request)
            await self._serve_forward(SpdySession(WebSocketBytes(response)), sandbox.netns, name)
            return response
        ports = _ports(request)
        await response.prepare(request)
        await WebSocketForward(response, sandbox.netns, name, ports).run()
        await response.close()
        return response

    async def _serve_forward(self, session: SpdySession, network: str, name: str) -> None:
        reading = asyncio.create_task(session.run(), name="SPDY port-forward")
        try:
            await SpdyForward(session, network, name).run()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await session.close()


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _speaks_newest(request: web.Request) -> bool:
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return _is_websocket(request) and WEBSOCKET_VERSIONS[0] in [word.strip() for word in offered.split(",")]


async def _refuse_in_stream(request: web.Request, refusal: Refusal) -> web.StreamResponse:
    """In the newest protocol a refusal is the stream's final status: upstream's API server takes the upgrade itself
    and only then asks the kubelet.
    """
    response = web.WebSocketResponse(protocols=WEBSOCKET_VERSIONS[:1])
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        await WebSocketCommand(response).finish(
            failure_status(f"unable to upgrade connection: {refusal.text}")
        )
    return response


def _spdy_version(request: web.Request, supported: tuple[str, ...]) -> str:
    if not request.headers.get("Upgrade", "").upper().startswith("SPDY/3.1"):
        raise Refusal(400, "unable to upgrade: missing upgrade headers in request")
    lines = request.headers.getall("X-Stream-Protocol-Version", [])
    offered = [part.strip() for line in lines for part in line.split(",") if part.strip()]
    version = choose(offered, supported)
    if version is None:
        raise Refusal(
            403, f"unable to negotiate protocol: client supports {offered}, server accepts {supported}"
        )
    return version


def _take_over(request: web.Request, version: str) -> UpgradedConnection:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    if version:
        headers["X-Stream-Protocol-Version"] = version
    return UpgradedConnection.take_over(request, headers)


def _taken_over() -> web.Response:
    """What a handler gives back whose connection is no HTTP any more; it is never sent."""
    return web.Response(status=499)


def _ports(request: web.Request) -> list[int]:
    texts = [text for value in request.query.getall("port", []) for text in value.split(",") if text]
    if not texts:
        raise Refusal(400, 'query parameter "port" is required')
    for text in texts:
        if parse_port(text) is None:
            raise Refusal(400, f'unable to parse "{text}" as a port')
    return [int(text) for text in texts]
