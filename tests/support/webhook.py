"""An admission webhook of a test's own: a real TLS server whose answers the test decides."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web

from controlplane.apiserver.pki import CertificateAuthority

Answer = Callable[[dict[str, Any]], Any]
"""The review's `request` -> the review's `response` (a dict without uid), or a web.StreamResponse as it is."""


def allow(request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def deny(message: str, **status: Any) -> Answer:
    return lambda request: {"allowed": False, "status": {"message": message, **status}}


def patch(*operations: dict[str, Any]) -> Answer:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


@dataclass(slots=True)
class Hook:
    """What stands behind one path. `seen` are the requests it got."""

    answer: Answer = allow
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class WebhookServer:
    url: str
    port: int
    bundle: str
    hooks: dict[str, Hook] = field(default_factory=dict)

    def hook(self, path: str, answer: Answer = allow) -> Hook:
        return self.hooks.setdefault(path, Hook(answer))

    async def dial(self, host: str, port: int) -> socket.socket:
        """The way into the "cluster": every address leads here."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    def webhook(self, name: str, path: str, **changes: Any) -> dict[str, Any]:
        """One entry of a configuration that asks this server about ConfigMaps."""
        return {
            "name": name,
            "clientConfig": {"url": f"{self.url}/{path}", "caBundle": self.bundle},
            "rules": [
                {
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["configmaps"],
                }
            ],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            **changes,
        }


def configuration(sort: str, name: str, *webhooks: dict[str, Any]) -> dict[str, Any]:
    """`sort` is `Mutating` or `Validating`."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{sort}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(webhooks),
    }


@asynccontextmanager
async def webhook_server(directory: Path) -> AsyncIterator[WebhookServer]:
    authority = CertificateAuthority.load_or_create(directory / "webhook-pki")
    paths = authority.ensure(
        "webhook", "webhook", (), ["hooks.default.svc"], [ip_address("127.0.0.1")], client=False, server=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(paths.cert, paths.key)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    bundle = base64.b64encode(authority.certificate_pem).decode()
    server = WebhookServer(f"https://127.0.0.1:{port}", port, bundle)

    async def handle(request: web.Request) -> web.StreamResponse:
        hook = server.hooks[request.match_info["path"]]
        review = await request.json()
        hook.seen.append(review["request"])
        hook.headers.append(dict(request.headers))
        answer = hook.answer(review["request"])
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        response = {"uid": review["request"]["uid"], **answer}
        return web.json_response(
            {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
        )

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    try:
        yield server
    finally:
        await runner.cleanup()


def lend_keys(store: Path, directory: Path) -> None:
    """Give a test the key pairs that another one made, or keep its own for the next: making them takes its time."""
    for folder in ("pki", "webhook-pki"):
        kept, own = store / folder, directory / folder
        if kept.exists() and not own.exists():
            shutil.copytree(kept, own)
        elif own.exists() and not kept.exists():
            shutil.copytree(own, kept)
