"""The control plane as one piece: first start, restart, controllers, the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from support.apiserver import refuse

from controlplane.apiserver.pki import PkiError
from controlplane.apiserver.server import Controllers, serve_control_plane
from controlplane.apiserver.server_certificates import prepare_pki
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.client.components import Clients
from controlplane.errors import Forbidden
from controlplane.resources.catalog import CONFIG_MAP, NAMESPACE

LIMIT = 20.0


def settings(directory: Path, **more: Any) -> ControlPlaneSettings:
    return ControlPlaneSettings(
        data_dir=directory / "data",
        pki_dir=directory / "pki",
        advertise_address=ip_address("172.18.0.2"),
        **more,
    )


@asynccontextmanager
async def running(directory: Path, controllers: Controllers | None = None) -> AsyncIterator[str]:
    """The URL of a control plane that is cancelled at the end."""
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    ready = asyncio.Event()
    task = asyncio.create_task(
        serve_control_plane(settings(directory), [sock], refuse, controllers, on_ready=ready.set)
    )
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait((task, waiting), timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        assert ready.is_set()
        yield url
    finally:
        waiting.cancel()
        task.cancel()
        async with asyncio.timeout(LIMIT):
            await asyncio.wait((task, waiting))


def admin(directory: Path) -> aiohttp.ClientSession:
    tls = ssl.create_default_context(cafile=directory / "pki" / "ca.crt")
    tls.load_cert_chain(directory / "pki" / "admin.crt", directory / "pki" / "admin.key")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))


async def test_objects_and_identity_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as url, admin(tmp_path) as session:
        body = {"metadata": {"name": "kept"}}
        async with session.post(f"{url}/api/v1/namespaces/default/configmaps", json=body) as answer:
            assert answer.status == 201
            made = await answer.json()
        async with session.get(f"{url}/api/v1/namespaces/default/services/kubernetes") as answer:
            assert (await answer.json())["spec"]["clusterIP"] == "10.96.0.1"
    certificate = (tmp_path / "pki" / "apiserver.crt").read_bytes()
    async with running(tmp_path) as url, admin(tmp_path) as session:
        async with session.get(f"{url}/api/v1/namespaces/default/configmaps/kept") as answer:
            assert await answer.json() == made
        async with session.get(f"{url}/api/v1/namespaces/default/endpoints/kubernetes") as answer:
            assert (await answer.json())["subsets"][0]["addresses"] == [{"ip": "172.18.0.2"}]
    assert (tmp_path / "pki" / "apiserver.crt").read_bytes() == certificate


async def test_controllers_work_through_a_client_in_the_same_process(tmp_path: Path) -> None:
    seen: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def controllers(clients: Clients, ca_pem: str) -> None:
        client = clients.controller("root-ca-cert-publisher")
        await client.create(CONFIG_MAP, {"metadata": {"name": "by-controller"}}, "default")
        with pytest.raises(Forbidden):
            await client.list(NAMESPACE)
        client = clients.shared
        async for event in client.watch(NAMESPACE):
            if not seen.done():
                seen.set_result((event.object["metadata"]["name"], ca_pem))

    async with running(tmp_path, controllers) as url, admin(tmp_path) as session:
        name, ca_pem = await asyncio.wait_for(seen, LIMIT)
        assert name == "default"
        assert ca_pem == (tmp_path / "pki" / "ca.crt").read_text()
        async with session.get(f"{url}/api/v1/namespaces/default/configmaps/by-controller") as answer:
            assert answer.status == 200


async def test_a_controller_that_fails_for_good_ends_the_control_plane(tmp_path: Path) -> None:
    async def controllers(clients: Clients, ca_pem: str) -> None:
        raise RuntimeError("controller broke")

    sock = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(RuntimeError, match="controller broke"):
        async with asyncio.timeout(LIMIT):
            await serve_control_plane(settings(tmp_path), [sock], refuse, controllers)
    assert sock.fileno() == -1


async def test_watchers_are_told_of_the_end(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        session = admin(tmp_path)
        answer = await session.get(f"{url}/api/v1/namespaces?watch=true&resourceVersion=0")
        assert await answer.content.readline()
        rest = asyncio.create_task(answer.read())
    try:
        lines = (await asyncio.wait_for(rest, LIMIT)).splitlines()
    finally:
        await session.close()
    assert all(b'"ADDED"' in line for line in lines)


def test_the_server_answers_to_every_name_it_is_called_by(tmp_path: Path) -> None:
    made = prepare_pki(settings(tmp_path, server_names=("lab.example", "192.0.2.7")), [ip_address("0.0.0.0")])
    certificate = x509.load_pem_x509_certificate(made.server.cert.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {
        "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local", "lab.example",
    }  # fmt: skip
    assert set(map(str, names.get_values_for_type(x509.IPAddress))) == {
        "127.0.0.1", "10.96.0.1", "172.18.0.2", "192.0.2.7",
    }  # fmt: skip


async def test_broken_certificates_are_named(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "ca.crt").write_text("nonsense")
    (tmp_path / "pki" / "ca.key").write_text("nonsense")
    with pytest.raises(PkiError, match=r"ca\.crt: not a certificate"):
        await serve_control_plane(settings(tmp_path), [], refuse)
