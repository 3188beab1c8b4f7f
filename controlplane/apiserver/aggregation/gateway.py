"""The way to an aggregated server: its Service's endpoint, TLS under the front proxy's certificate, identity headers.

Called by `proxy` for users' requests and by `availability` for this server's own.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from controlplane.apiserver.aggregation.registrations import Registration
from controlplane.apiserver.http1 import Exchange, Http1Error
from controlplane.apiserver.pki import CertificatePaths
from controlplane.apiserver.streams import CONNECT_SECONDS, Dial
from controlplane.apiserver.user import UserInfo
from controlplane.apiserver.webhook_client import WebhookError

ANSWER_MAX = 32 * 1024 * 1024
"""Bytes of an answer to this server itself that are read."""

SELF = UserInfo("system:kube-aggregator", groups=("system:masters",))
"""As whom this server asks for itself."""

_UNRESERVED = "!#$&'*+-.^_`|~"

Lines = Sequence[tuple[str, str]]


class NotResolved(Exception):
    """The Service leads nowhere."""


class NotReached(Exception):
    """No connection, no TLS, or no answer; the text is what a Go client says."""


class Resolver(Protocol):
    async def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Address and port of a server behind the Service. Raises WebhookError."""


class Gateway:
    """`client` is the front proxy's certificate."""

    def __init__(self, resolver: Resolver, dial: Dial, client: CertificatePaths) -> None:
        self._resolver = resolver
        self._dial = dial
        self._client = client

    async def locate(self, one: Registration) -> tuple[str, int]:
        """Raises NotResolved."""
        try:
            return await self._resolver.resolve(*one.service)
        except WebhookError as fault:
            raise NotResolved(str(fault)) from fault

    async def send(
        self,
        one: Registration,
        where: tuple[str, int],
        method: str,
        target: str,
        lines: Lines,
        body: bytes = b"",
    ) -> Exchange:
        """Send a request and wait for the answer's head. Raises NotReached."""
        try:
            tls = _tls(one.ca_bundle, one.is_insecure, self._client)
            async with asyncio.timeout(CONNECT_SECONDS):
                far = await Exchange.open(await self._dial(*where), tls, one.server_name)
        except (OSError, ValueError) as fault:
            raise NotReached(reason(fault, where, one.server_name)) from fault
        try:
            await far.send(method, target, [("Host", _host(where)), *lines], body)
            await far.read_head()
        except (OSError, Http1Error) as fault:
            await far.close()
            raise NotReached(reason(fault, where, one.server_name)) from fault
        except BaseException:
            await far.close()
            raise
        return far

    async def get(
        self, one: Registration, where: tuple[str, int], target: str, accept: str
    ) -> tuple[int, bytes]:
        """Status and body of a GET by this server itself. Raises NotReached."""
        lines = [("Accept", accept), ("Connection", "close"), *identity_headers(SELF)]
        far = await self.send(one, where, "GET", target, lines)
        answer = bytearray()
        pieces = far.body()
        try:
            async for piece in pieces:
                answer += piece
                if len(answer) > ANSWER_MAX:
                    raise NotReached("http: response body too large")
        except (OSError, Http1Error) as fault:
            raise NotReached(reason(fault, where, one.server_name)) from fault
        finally:
            await pieces.aclose()
        return far.status, bytes(answer)


def identity_headers(user: UserInfo) -> list[tuple[str, str]]:
    """Who asks, in an authenticating proxy's words; one line for each group and each extra value."""
    lines = [("X-Remote-User", user.name)]
    lines += [("X-Remote-Group", group) for group in user.groups]
    lines += [
        (f"X-Remote-Extra-{quote(key, safe=_UNRESERVED)}", value)
        for key, values in user.extra.items()
        for value in values
    ]
    return lines


def _host(where: tuple[str, int]) -> str:
    address, port = where
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@lru_cache(maxsize=64)
def _tls(bundle: str, is_insecure: bool, client: CertificatePaths) -> ssl.SSLContext:
    """Trust in the bundle alone, in the system's authorities without one, or in anybody. Raises ValueError."""
    context = (
        ssl.create_default_context(cadata=_certificates(bundle)) if bundle else ssl.create_default_context()
    )
    if is_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(client.cert, client.key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _certificates(bundle: str) -> str:
    try:
        return base64.b64decode(bundle).decode()
    except ValueError as fault:
        raise ValueError("unable to load root certificates: unable to parse bytes as PEM block") from fault


def reason(fault: BaseException, where: tuple[str, int], server_name: str) -> str:
    match fault:
        case ssl.SSLCertVerificationError() if "hostname" in fault.verify_message.lower():
            return f"tls: failed to verify certificate: x509: certificate is not valid for {server_name}"
        case ssl.SSLCertVerificationError() if "expired" in fault.verify_message:
            return "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
        case ssl.SSLCertVerificationError():
            return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        case ssl.SSLError():
            return f"tls: {fault.reason or fault}"
        case ConnectionRefusedError():
            return f"dial tcp {_host(where)}: connect: connection refused"
        case TimeoutError():
            return f"dial tcp {_host(where)}: i/o timeout"
        case ConnectionResetError() | Http1Error():
            return "EOF"
        case socket.error():
            return f"dial tcp {_host(where)}: {fault.strerror or fault}"
    return str(fault) or type(fault).__name__
