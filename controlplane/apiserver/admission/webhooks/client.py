"""Posting to a webhook over TLS, wherever it is: at a URL, or behind a Service of the cluster.

Called by the webhook plug-ins. Whatever the far side does (no answer, a slow one, a huge one, nonsense), a call ends
in time with the body or a `CallFault`. Texts are those Go's HTTP client and the API machinery would give.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from controlplane.apiserver.http1 import Exchange, Http1Error
from controlplane.errors import Object
from controlplane.meta.objects import dig

Dial = Callable[[str, int], Awaitable[socket.socket]]
Lookup = Callable[[str, str, str, str], Awaitable[Object | None]]

MAX_ANSWER = 16 * 1024 * 1024
_SHOWN = 2048
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
_UNTRUSTED = frozenset({18, 19, 20, 21})


class CallFault(Exception):
    """The webhook could not be asked; the text says why."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to connect, and how the far side is called in requests and certificates."""

    address: str
    port: int
    server_name: str
    host: str
    in_cluster: bool


class WebhookClient:
    """`dial` is the way into the cluster's network, for Services."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def post(self, config: Object, body: bytes, seconds: int, lookup: Lookup) -> bytes:
        """The answer to `body` from the webhook of a clientConfig. Raises CallFault."""
        target, host = _target(config)
        target = f"{target}?timeout={seconds}s"
        shown = f'Post "https://{host}{target}"'
        try:
            async with asyncio.timeout(seconds):
                place = await _place(config, host, lookup)
                return await self._exchange(place, target, config.get("caBundle") or "", body)
        except TimeoutError as fault:
            raise CallFault(f"{shown}: context deadline exceeded") from fault
        except _Answer as answer:
            raise CallFault(str(answer)) from answer
        except (OSError, Http1Error, ValueError, _Unreachable) as fault:
            raise CallFault(f"{shown}: {_reason(fault)}") from fault

    async def _exchange(self, place: _Place, target: str, bundle: str, body: bytes) -> bytes:
        tls = _tls(bundle)
        if place.in_cluster:
            sock = await self._dial(place.address, place.port)
        else:
            sock = await _connect(place.address, place.port)
        far = await Exchange.open(sock, tls, place.server_name)
        try:
            headers = [
                ("Host", place.host),
                ("User-Agent", "kube-apiserver-admission"),
                ("Accept", "application/json, */*"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            await far.send("POST", target, headers, body)
            await far.read_head()
            answer = await _read(far)
        finally:
            await far.close()
        if not 200 <= far.status <= 206:
            raise _Answer(_refusal(far.status, answer))
        return answer


class _Answer(Exception):
    """An answer other than success."""


class _Unreachable(Exception):
    """A Service without a place to connect to."""


def _target(config: Object) -> tuple[str, str]:
    """The path, and the host as it is written in the URL."""
    service = config.get("service")
    if service is None:
        parts = urlsplit(str(config.get("url") or ""))
        return parts.path or "/", parts.netloc.rpartition("@")[2]
    host = f"{service.get('name', '')}.{service.get('namespace', '')}.svc"
    path = str(service.get("path") or "/")
    return path if path.startswith("/") else f"/{path}", f"{host}:{service.get('port') or 443}"


async def _place(config: Object, host: str, lookup: Lookup) -> _Place:
    service = config.get("service")
    if service is None:
        parts = urlsplit(str(config["url"]))
        name = parts.hostname or ""
        return _Place(name, parts.port or 443, name, host, in_cluster=False)
    address, port = await _resolve(service, lookup)
    return _Place(address, port, host.rpartition(":")[0], host, in_cluster=True)


async def _resolve(service: Object, lookup: Lookup) -> tuple[str, int]:
    """A ready endpoint of a Service's port, or where an ExternalName points to."""
    namespace, name, number = str(service["namespace"]), str(service["name"]), service.get("port") or 443
    found = await lookup("", "services", namespace, name)
    if found is None:
        raise _Unreachable(f'service "{name}" not found')
    if dig(found, "spec", "type") == "ExternalName":
        return str(dig(found, "spec", "externalName", default="")), number
    ports = dig(found, "spec", "ports", default=())
    port = next((each for each in ports if each.get("port") == number), None)
    if port is None:
        raise _Unreachable(f'no service port {number} found for service "{name}"')
    endpoints = await lookup("", "endpoints", namespace, name)
    places = [
        (str(address["ip"]), int(each["port"]))
        for subset in (endpoints or {}).get("subsets") or ()
        for each in subset.get("ports") or ()
        if each.get("name", "") == port.get("name", "")
        for address in subset.get("addresses") or ()
    ]
    if not places:
        raise _Unreachable(f'no endpoints available for service "{name}"')
    return random.choice(places)


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as fault:
        raise _Unreachable(f"dial tcp: lookup {host}: no such host") from fault
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as fault:
            sock.close()
            last = fault
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    where = f"{found[-1][4][0]}:{port}" if found else f"{host}:{port}"
    why = "connection refused" if isinstance(last, ConnectionRefusedError) else str(last)
    raise _Unreachable(f"dial tcp {where}: connect: {why}")


@lru_cache(maxsize=64)
def _tls(bundle: str) -> ssl.SSLContext:
    """Trusts the bundle (base64 of PEM), or what the system trusts without one."""
    if not bundle:
        return ssl.create_default_context()
    try:
        pem = base64.b64decode(bundle, validate=True).decode("ascii")
        return ssl.create_default_context(cadata=pem)
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as fault:
        raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from fault


async def _read(far: Exchange) -> bytes:
    pieces: list[bytes] = []
    length = 0
    async for piece in far.body():
        length += len(piece)
        if length > MAX_ANSWER:
            raise Http1Error(f"the answer is longer than {MAX_ANSWER} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _refusal(status: int, body: bytes) -> str:
    if status in _PLAIN_ANSWERS:
        return _PLAIN_ANSWERS[status]
    if status >= 500:
        text = body[:_SHOWN].decode("utf-8", "replace").strip() or "unknown"
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'an error on the server ("{quoted}") has prevented the request from succeeding'
    return f"the server responded with the status code {status} but did not return more information"


def _reason(fault: Exception) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        if fault.verify_code in _UNTRUSTED:
            why = "certificate signed by unknown authority"
        elif fault.verify_code == 10:
            why = "certificate has expired or is not yet valid"
        else:
            why = fault.verify_message
        return f"tls: failed to verify certificate: x509: {why}"
    if isinstance(fault, ssl.SSLError):
        return f"tls: {fault.reason or fault}"
    if isinstance(fault, ConnectionResetError):
        return "read: connection reset by peer"
    if isinstance(fault, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(fault, Http1Error) and "before an answer came" in str(fault):
        return "EOF"
    return str(fault) or type(fault).__name__
