"""A small extension API server of a test's own: one kind, `flunders` of `wardle.example.com/v1`, over TLS.

It believes the front proxy alone, as extension servers do, and remembers what it was told.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from controlplane.apiserver.pki import CertificateAuthority

GROUP, VERSION = "wardle.example.com", "v1"
ROOT = f"/apis/{GROUP}/{VERSION}"
NAMESPACE, SERVICE, ADDRESS = "wardle", "api", "10.1.1.1"

RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/{VERSION}",
    "resources": [
        {
            "name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list", "watch"], "shortNames": ["fl"], "categories": ["pets"],
        },
        {
            "name": "flunders/status", "singularName": "", "namespaced": True, "kind": "Flunder",
            "verbs": ["get", "patch", "update"],
        },
        {
            "name": "flunders/exec", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]
        },
    ],
}  # fmt: skip

OPENAPI = {
    "openapi": "3.0.0",
    "info": {"title": "wardle", "version": "v1"},
    "paths": {
        f"{ROOT}/namespaces/{{namespace}}/flunders": {
            "get": {
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": "list",
                "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": "Flunder"},
            }
        }
    },
    "components": {
        "schemas": {
            "com.example.wardle.v1.Flunder": {
                "type": "object",
                "description": "Flunder is an animal that nobody has seen.",
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "legs": {"type": "integer", "description": "How many it stands on."},
                },
                "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "Flunder"}],
            }
        }
    },
}


@dataclass(slots=True)
class Extension:
    """`seen` are the requests that came, newest last. `status` other than 200 makes discovery fail."""

    port: int
    bundle: str
    status: int = 200
    seen: list[web.Request] = field(default_factory=list)
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    paused: asyncio.Event = field(default_factory=asyncio.Event)

    async def dial(self, host: str, port: int) -> socket.socket:
        """The way into the "cluster": ADDRESS is this server, everything else refuses."""
        if (host, port) != (ADDRESS, self.port):
            raise ConnectionRefusedError(111, "connection refused")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def asked(self) -> list[web.Request]:
        """What users asked, without the API server's own questions."""
        return [one for one in self.seen if one.headers.get("X-Remote-User") != "system:kube-aggregator"]

    def service(self) -> dict[str, Any]:
        spec = {"ports": [{"port": 443, "targetPort": self.port, "protocol": "TCP"}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE}, "spec": spec}

    def endpoints(self) -> dict[str, Any]:
        subset = {"addresses": [{"ip": ADDRESS}], "ports": [{"port": self.port, "protocol": "TCP"}]}
        return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": SERVICE}, "subsets": [subset]}

    def api_service(self, **changes: Any) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "group": GROUP, "version": VERSION, "groupPriorityMinimum": 2000, "versionPriority": 15,
            "caBundle": self.bundle, "service": {"namespace": NAMESPACE, "name": SERVICE}, **changes,
        }  # fmt: skip
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{spec['version']}.{spec['group']}"},
            "spec": spec,
        }


def _flunder(namespace: str, name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": metadata, "legs": 3}


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return web.json_response(body, status=code)


class _Handlers:
    def __init__(self, extension: Extension) -> None:
        self._extension = extension

    def routes(self) -> list[web.RouteDef]:
        many = ROOT + "/namespaces/{namespace}/flunders"
        return [
            web.get(ROOT, self.resources),
            web.get("/openapi/v3", self.index),
            web.get(f"/openapi/v3{ROOT}", self.document),
            web.get(many, self.list),
            web.post(many, self.create),
            web.get(f"{many}/{{name}}", self.get),
            web.delete(f"{many}/{{name}}", self.delete),
            web.get(f"{many}/{{name}}/exec", self.echo),
            web.get(f"{many}/{{name}}/huge", self.huge),
        ]

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Only the front proxy is believed."""
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        names = [pair for names in (certificate or {}).get("subject", ()) for pair in names]
        if ("commonName", "front-proxy-client") not in names:
            return _status(401, "Unauthorized", "not the front proxy")
        self._extension.seen.append(request)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def resources(self, request: web.Request) -> web.Response:
        if self._extension.status != 200:
            return web.Response(status=self._extension.status)
        return web.json_response(RESOURCES)

    async def index(self, request: web.Request) -> web.Response:
        url = f"/openapi/v3{ROOT}?hash=ABC"
        return web.json_response({"paths": {ROOT[1:]: {"serverRelativeURL": url}}})

    async def document(self, request: web.Request) -> web.Response:
        return web.json_response(OPENAPI)

    async def list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") in ("true", "1"):
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            await stream.prepare(request)
            for obj in self._extension.objects.values():
                await stream.write(web.json_response({"type": "ADDED", "object": obj}).body + b"\n")  # type: ignore[operator]
            await self._extension.paused.wait()
            return stream
        space = request.match_info["namespace"]
        items = [obj for key, obj in self._extension.objects.items() if key[0] == space]
        return web.json_response(
            {"apiVersion": f"{GROUP}/{VERSION}", "kind": "FlunderList", "metadata": {}, "items": items}
        )

    async def create(self, request: web.Request) -> web.Response:
        name = (await request.json())["metadata"]["name"]
        key = request.match_info["namespace"], name
        if key in self._extension.objects:
            return _status(409, "AlreadyExists", f'flunders.{GROUP} "{name}" already exists')
        self._extension.objects[key] = _flunder(*key)
        return web.json_response(self._extension.objects[key], status=201)

    async def get(self, request: web.Request) -> web.Response:
        key = request.match_info["namespace"], request.match_info["name"]
        found = self._extension.objects.get(key)
        return (
            web.json_response(found)
            if found
            else _status(404, "NotFound", f'flunders.{GROUP} "{key[1]}" not found')
        )

    async def delete(self, request: web.Request) -> web.Response:
        self._extension.objects.pop((request.match_info["namespace"], request.match_info["name"]))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def echo(self, request: web.Request) -> web.StreamResponse:
        socket_ = web.WebSocketResponse(protocols=["v5.channel.k8s.io"])
        await socket_.prepare(request)
        async for message in socket_:
            if message.type is WSMsgType.TEXT:
                await socket_.send_str(message.data[::-1])
        return socket_

    async def huge(self, request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (3 * 1024 * 1024))


@asynccontextmanager
async def extension_server(directory: Path) -> AsyncIterator[Extension]:
    authority = CertificateAuthority.load_or_create(directory / "extension-pki")
    paths = authority.ensure(
        "extension",
        "extension",
        (),
        [f"{SERVICE}.{NAMESPACE}.svc"],
        [ip_address("127.0.0.1")],
        client=False,
        server=True,
    )
    front = CertificateAuthority.load_or_create(directory / "pki", "front-proxy-ca", "front-proxy-ca")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(paths.cert, paths.key)
    tls.load_verify_locations(front.certificate_path)
    tls.verify_mode = ssl.CERT_OPTIONAL
    sock = socket.create_server(("127.0.0.1", 0))
    extension = Extension(sock.getsockname()[1], base64.b64encode(authority.certificate_pem).decode())
    handlers = _Handlers(extension)
    app = web.Application(middlewares=[handlers.guard])
    app.router.add_routes(handlers.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    try:
        yield extension
    finally:
        extension.paused.set()
        await runner.cleanup()
