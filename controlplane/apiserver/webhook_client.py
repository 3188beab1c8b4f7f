"""POST to a webhook: TLS by its caBundle, at a URL or behind a Service of the cluster.

Called by the conversion of custom resources and whatever else asks webhooks. Services are reached over the injected
`Dial`, as the API server stands outside of the cluster's network. Faults carry the texts a Go client gives.
"""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

from controlplane.apiserver.http1 import Exchange, Http1Error
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.streams import Dial
from controlplane.errors import NotFound, Object
from controlplane.resources.catalog import ENDPOINTS, SERVICE

ANSWER_MAX = 32 * 1024 * 1024
"""Bytes of an answer that are read."""


_PLAIN_ANSWERS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    403: "forbidden",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    413: "Request entity too large",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


class WebhookError(Exception):
    """The webhook could not be asked, or answered with no success."""


class ServiceResolver(Protocol):
    async def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Address and port of a server behind the Service. Raises WebhookError."""


class EndpointResolver:
    """Chooses a ready endpoint of the Service, as the stored Endpoints tell.

    The registry may come later (`attach`): admission, which asks webhooks, is made before it.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._attached = registry

    def attach(self, registry: Registry) -> None:
        self._attached = registry

    @property
    def _registry(self) -> Registry:
        if self._attached is None:
            raise WebhookError("the API server is starting")
        return self._attached

    async def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        try:
            service = (await self._registry.get(SERVICE, namespace, name)).object
        except NotFound as fault:
            raise WebhookError(f'service "{name}" not found') from fault
        entry = next((each for each in service["spec"].get("ports") or () if each["port"] == port), None)
        if entry is None:
            raise WebhookError(f'no service port {port} found for service "{name}"')
        try:
            endpoints = (await self._registry.get(ENDPOINTS, namespace, name)).object
        except NotFound:
            endpoints = {}
        found = [
            (str(address["ip"]), int(each["port"]))
            for subset in endpoints.get("subsets") or ()
            for each in subset.get("ports") or ()
            if each.get("name", "") == entry.get("name", "")
            for address in subset.get("addresses") or ()
        ]
        if not found:
            raise WebhookError(f'no endpoints available for service "{name}"')
        return random.choice(found)


@dataclass(frozen=True, slots=True)
class _Place:
    url: str
    target: str
    host: str
    port: int
    service: tuple[str, str] | None


class WebhookClient:
    """Asks webhooks described by a `clientConfig`."""

    def __init__(self, resolver: ServiceResolver, dial: Dial) -> None:
        self._resolver = resolver
        self._dial = dial

    async def post(self, config: Object, body: bytes, timeout_seconds: float) -> bytes:
        """The body of a good answer. Raises WebhookError."""
        place = _place(config, timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                status, answer = await self._exchange(place, config.get("caBundle") or "", body)
        except TimeoutError as fault:
            raise WebhookError(f'Post "{place.url}": context deadline exceeded') from fault
        except WebhookError as fault:
            raise WebhookError(f'Post "{place.url}": {fault}') from fault
        except (OSError, Http1Error) as fault:
            raise WebhookError(f'Post "{place.url}": {_reason(fault, place)}') from fault
        if not 200 <= status < 300:
            raise WebhookError(_refusal(status, answer))
        return answer

    async def _exchange(self, place: _Place, bundle: str, body: bytes) -> tuple[int, bytes]:
        far = await Exchange.open(await self._connect(place), _tls(bundle), place.host)
        try:
            headers = [
                ("Host", place.host if place.port == 443 else f"{place.host}:{place.port}"),
                ("Content-Type", "application/json"),
                ("Accept", "application/json, */*"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            await far.send("POST", place.target, headers, body)
            await far.read_head()
            answer = bytearray()
            async for piece in far.body():
                answer += piece
                if len(answer) > ANSWER_MAX:
                    raise WebhookError("http: response body too large")
            return far.status, bytes(answer)
        finally:
            await far.close()

    async def _connect(self, place: _Place) -> socket.socket:
        if place.service is not None:
            address, port = await self._resolver.resolve(*place.service, place.port)
            return await self._dial(address, port)
        loop = asyncio.get_running_loop()
        last: OSError | None = None
        for family, kind, protocol, _, where in await loop.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, where)
            except OSError as fault:
                sock.close()
                last = fault
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last or OSError(f"no address for {place.host}")


def _place(config: Object, timeout_seconds: float) -> _Place:
    query = f"timeout={timeout_seconds:g}s"
    service = config.get("service")
    if service is not None:
        port = int(service.get("port") or 443)
        host = f"{service['name']}.{service['namespace']}.svc"
        path = service.get("path") or "/"
        target = f"{path}?{query}"
        named = service["namespace"], service["name"]
        return _Place(f"https://{host}:{port}{target}", target, host, port, named)
    parts = urlsplit(config.get("url") or "")
    target = f"{parts.path or '/'}?{query}"
    url = f"https://{parts.netloc}{target}"
    return _Place(url, target, parts.hostname or "", parts.port or 443, None)


@lru_cache(maxsize=64)
def _tls(bundle: str) -> ssl.SSLContext:
    """Trust in the bundle alone, or in the system's authorities without one."""
    if not bundle:
        return ssl.create_default_context()
    try:
        pem = base64.b64decode(bundle).decode()
        return ssl.create_default_context(cadata=pem)
    except (ValueError, ssl.SSLError) as fault:
        raise WebhookError("unable to load root certificates: unable to parse bytes as PEM block") from fault


def _refusal(status: int, body: bytes) -> str:
    """What client-go makes of an answer other than success; redirects are not followed."""
    if status in _PLAIN_ANSWERS:
        return _PLAIN_ANSWERS[status]
    if status < 500:
        return f"the server responded with the status code {status} but did not return more information"
    text = body[:2048].decode("utf-8", "replace").strip() or "unknown"
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'an error on the server ("{quoted}") has prevented the request from succeeding'


def _reason(fault: Exception, place: _Place) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        if "hostname" in fault.verify_message.lower() or "ip address" in fault.verify_message.lower():
            return f"tls: failed to verify certificate: x509: certificate is not valid for {place.host}"
        if "expired" in fault.verify_message:
            return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if isinstance(fault, ConnectionRefusedError):
        return f"dial tcp {place.host}:{place.port}: connect: connection refused"
    if isinstance(fault, socket.gaierror):
        return f"dial tcp: lookup {place.host}: no such host"
    if isinstance(fault, Http1Error | ConnectionResetError):
        return "EOF"
    return str(fault) or type(fault).__name__
