"""The HTTPS transport against a real TLS server on the loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from support.client_wait import running, until

from controlplane import errors
from controlplane.apiserver.pki import CertificateAuthority
from controlplane.client import https
from controlplane.client.client import Client
from controlplane.client.https import HttpsTransport
from controlplane.client.informer import Informer
from controlplane.client.transport import ConnectionFailed
from controlplane.resources.catalog import POD

LOCALHOST = ipaddress.ip_address("127.0.0.1")


class Server:
    """Answers every path: watches stream, `missing` is a 404, all else echoes what was asked."""

    def __init__(self, authority: CertificateAuthority, directory: Path) -> None:
        self.authority = authority
        pair = authority.ensure("server", "server", ips=[LOCALHOST], server=True)
        self._tls = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate_path)
        )
        self._tls.load_cert_chain(pair.cert, pair.key)
        self._tls.verify_mode = ssl.CERT_OPTIONAL
        self.port = 0
        self.revision = 1
        self.hits: list[str] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        self.hits.append(request.path)
        if "missing" in request.path:
            return web.json_response(errors.not_found("pods", "", "missing").status(), status=404)
        if request.method == "GET" and request.path.endswith("/pods"):
            return web.json_response({"metadata": {"resourceVersion": str(self.revision)}, "items": []})
        transport = request.transport
        assert transport is not None
        certificate = transport.get_extra_info("peercert") or {}
        return web.json_response(
            {
                "authorization": request.headers.get("authorization", ""),
                "subject": [value for pair in certificate.get("subject", ()) for _, value in pair],
                "query": dict(request.query),
                "body": await request.text(),
            }
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.revision += 1
        pod = f'{{"metadata":{{"name":"p{self.revision}","resourceVersion":"{self.revision}"}}}}'
        await response.write(f'{{"type":"ADDED","object":{pod}}}\n'.encode())
        await asyncio.sleep(30)
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    subject = Server(CertificateAuthority.load_or_create(tmp_path), tmp_path)
    await subject.start()
    yield subject
    await subject.stop()


def transport(server: Server, **how: object) -> HttpsTransport:
    return HttpsTransport(f"https://127.0.0.1:{server.port}", ca=server.authority.certificate_pem, **how)


async def test_client_certificate_or_token_and_refusals(server: Server) -> None:
    certificate, key = server.authority.issue("system:node:n1", ["system:nodes"])
    client = Client(transport(server, certificate=certificate, key=key))
    answer = await client.get(POD, "p", "a")
    assert set(answer["subject"]) == {"system:node:n1", "system:nodes"}
    with pytest.raises(errors.NotFound):
        await client.get(POD, "missing", "a")
    await client.close()
    client = Client(transport(server, token="secret"))
    answer = await client.create(POD, {"metadata": {"name": "p", "namespace": "a"}})
    assert answer["authorization"] == "Bearer secret"
    assert answer["body"] == '{"metadata":{"name":"p","namespace":"a"}}'
    await client.close()


async def test_selectors_survive_the_query(server: Server) -> None:
    client = Client(transport(server))
    answer = await client.raw("GET", "/x", [("labelSelector", "a in (b,c),d!=é&e")])
    assert b"a in (b,c),d!=" in answer.body
    await client.close()


async def test_another_authority_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = CertificateAuthority.load_or_create(tmp_path / "other")
    client = Client(HttpsTransport(f"https://127.0.0.1:{server.port}", ca=other.certificate_pem))
    with pytest.raises(ConnectionFailed, match="certificate"):
        await client.get(POD, "p", "a")
    await client.close()


async def test_sockets_come_from_the_factory(server: Server) -> None:
    made: list[socket.socket] = []

    def factory(family: int, type_: int, protocol: int) -> socket.socket:
        made.append(socket.socket(family, type_, protocol))
        return made[-1]

    client = Client(transport(server, socket_factory=factory))
    await client.get(POD, "p", "a")
    assert len(made) == 1
    await client.close()


async def test_nobody_listens_and_no_answer_in_time(server: Server) -> None:
    client = Client(transport(server))
    await server.stop()
    with pytest.raises(ConnectionFailed):
        await client.get(POD, "p", "a")
    await client.close()


async def test_informer_survives_a_restart_of_the_server(server: Server) -> None:
    client = Client(transport(server))
    informer = Informer(client, POD)
    async with running(informer.run()):
        await until(lambda: len(informer) == 1)
        await server.stop()
        await server.start()
        await until(lambda: len(informer) == 2)
    await client.close()
    assert server.hits == ["/api/v1/pods"], "one list, then only watches"


async def test_a_token_file_is_read_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    client = Client(transport(server, token_file=path))
    assert (await client.get(POD, "p", "a"))["authorization"] == "Bearer first"
    path.write_text("second\n")
    assert (await client.get(POD, "p", "a"))["authorization"] == "Bearer first"
    monkeypatch.setattr(https, "_TOKEN_SECONDS", -1.0)
    assert (await client.get(POD, "p", "a"))["authorization"] == "Bearer second"
    path.unlink()
    assert (await client.get(POD, "p", "a"))["authorization"] == "Bearer second"
    await client.close()


async def test_without_an_authority_the_machines_own_are_asked(server: Server) -> None:
    client = Client(HttpsTransport(f"https://127.0.0.1:{server.port}", ca=""))
    with pytest.raises(ConnectionFailed, match="certificate"):
        await client.get(POD, "p", "a")
    await client.close()
    client = Client(HttpsTransport(f"https://127.0.0.1:{server.port}", ca="", insecure=True))
    assert (await client.get(POD, "p", "a"))["authorization"] == ""
    await client.close()
