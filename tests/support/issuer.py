"""Servers of other people on loopback TLS: an OpenID Connect issuer, and a webhook that knows tokens."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controlplane.apiserver.pki import CertificateAuthority


@dataclass
class Issuer:
    """`url` and `ca` are for the API server's settings. `keys` are the private ones that are told of, by id."""

    url: str = ""
    ca: Path = Path()
    keys: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    told_issuer: str = ""

    def new_key(self, kid: str, *, rsa_key: bool = True) -> Any:
        key: Any = (
            rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        )
        self.keys[kid] = key
        return key

    def token(self, kid: str = "one", key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.url, "aud": "netkit", "sub": "jane", "iat": now, "exp": now + 300, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})

    def _configuration(self) -> Any:
        return {"issuer": self.told_issuer or self.url, "jwks_uri": f"{self.url}/keys"}

    def _keys(self) -> Any:
        found = []
        for kid, key in self.keys.items():
            algorithm = (
                jwt.algorithms.RSAAlgorithm
                if isinstance(key, rsa.RSAPrivateKey)
                else jwt.algorithms.ECAlgorithm
            )
            entry = json.loads(algorithm.to_jwk(key.public_key()))
            found.append({**entry, "kid": kid, "use": "sig"})
        return {"keys": [*found, {"kty": "OKP", "crv": "X448", "x": "?"}]}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response(self._configuration())
            case "/keys":
                return web.json_response(self._keys())
        return web.Response(status=404)


@asynccontextmanager
async def tls_server(
    directory: Path, answer: Callable[[web.Request], Any], client_ca: Path | None = None
) -> AsyncIterator[tuple[str, Path]]:
    """A server on loopback TLS: its URL and the certificate of its authority."""
    authority = CertificateAuthority.load_or_create(directory / "tls", "somebody else")
    paths = authority.ensure("server", "server", ips=[ip_address("127.0.0.1")], client=False, server=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(paths.cert, paths.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"https://127.0.0.1:{port}", authority.certificate_path
    finally:
        await runner.cleanup()


@asynccontextmanager
async def issuer(directory: Path) -> AsyncIterator[Issuer]:
    """An OpenID Connect issuer with one RSA key, `one`."""
    made = Issuer()
    made.new_key("one")
    async with tls_server(directory, made.answer) as (url, ca):
        made.url, made.ca = url, ca
        yield made


@dataclass
class Webhook:
    """Answers TokenReviews by `status_of(token, audiences)`; `faults` are HTTP codes that are answered before."""

    status_of: Callable[[str, list[str]], Any]
    faults: list[int] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    body: bytes | None = None

    async def answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append((request.path, review))
        if self.faults:
            return web.Response(status=self.faults.pop(0))
        if self.body is not None:
            return web.Response(body=self.body, content_type="application/json")
        spec = review["spec"]
        status = self.status_of(spec["token"], spec.get("audiences") or [])
        kept = {key: review[key] for key in ("apiVersion", "kind")}
        return web.json_response({**kept, "status": status})


def kubeconfig(path: Path, url: str, ca: Path, user: str = "") -> Path:
    """A kubeconfig file that leads to `url`; `user` are further lines of the user."""
    path.write_text(
        f"""
apiVersion: v1
kind: Config
clusters: [{{name: hook, cluster: {{server: "{url}", certificate-authority: {ca}}}}}]
users: [{{name: api, user: {{{user}}}}}]
contexts: [{{name: hook, context: {{cluster: hook, user: api}}}}]
current-context: hook
"""
    )
    return path
