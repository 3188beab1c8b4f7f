"""The servers of a whole proxy, inside a namespace: Services' health, the proxy's own, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web as web_server
from support.client_fake import FakeApi
from support.client_wait import running, until
from support.proxy import Object, endpoint, service, slice_of, state_of

from controlplane.resources.catalog import ENDPOINT_SLICE, EVENT, NODE, SERVICE
from netkit.kernel import netns
from netkit.kernel.errors import KernelError
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.assembly import assemble
from netkit.proxy.backend import Synced, SyncReport
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.health.service_servers import ServiceHealthServers
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.modes import Site
from netkit.proxy.reports import Reports
from netkit.proxy.servers.status import StatusServer, plain
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import Changes

pytestmark = pytest.mark.root

HEALTH_PORT = 32000
PORTS = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
LOCAL: dict[str, Any] = {
    "type": "LoadBalancer",
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": HEALTH_PORT,
}
DUAL: dict[str, Any] = {"clusterIPs": ["172.30.0.41", "fd00::41"]}
SETTINGS = ProxySettings(cluster_cidr="10.0.0.0/16", min_sync_period=0)
NODE_HERE: Object = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "here"},
    "spec": {},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}
_serial = iter(range(1_000_000))


@dataclass(frozen=True)
class Answer:
    """What a probe got."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    """A node with the addresses 192.0.2.1, 198.51.100.1 and fd01::1."""
    ledger = Ledger(tmp_path, "healthtest")
    name = f"nkhealth{os.getpid()}x{next(_serial)}"
    with netns.create(name, ledger) as made:
        run(["ip", "link", "set", "lo", "up"], ns=made, check=True)
        for address in ("192.0.2.1/32", "198.51.100.1/32", "fd01::1/128"):
            run(["ip", "addr", "add", address, "dev", "lo"], ns=made, check=True)
        yield made
    netns.delete(name, ledger)
    assert not netns.exists(name)


class Proxy:
    """A whole proxy on the node, and probes of it from the node."""

    def __init__(self, space: Namespace, tmp_path: Path) -> None:
        self.api = FakeApi()
        self.space = space
        self._site = Site("here", space, tmp_path / "xtables.lock")

    async def add(self, *objects: Object) -> None:
        kinds = {"Service": SERVICE, "EndpointSlice": ENDPOINT_SLICE, "Node": NODE}
        for obj in objects:
            await self.api.client().create(kinds[obj["kind"]], obj, obj["metadata"].get("namespace", ""))

    def assembled(self, settings: ProxySettings = SETTINGS) -> ProxyAgent:
        configuration = {"kind": "KubeProxyConfiguration", "mode": "iptables"}
        return assemble(self.api.client(), "here", settings, self._site, list(Family), configuration)

    @asynccontextmanager
    async def working(self, settings: ProxySettings = SETTINGS) -> AsyncIterator[ProxyAgent]:
        agent = self.assembled(settings)
        async with running(agent.run()):
            async with asyncio.timeout(60):
                await agent.synced()
            yield agent

    async def get(self, address: str, port: int, path: str = "/") -> Answer | None:
        """None when nobody listens."""
        return await asyncio.to_thread(self._get, address, port, path)

    async def until(self, address: str, port: int, status: int | None, path: str = "/") -> Answer | None:
        """Return the answer once its status is that one, or once nobody listens."""
        async with asyncio.timeout(60):
            while True:
                answer = await self.get(address, port, path)
                if (answer.status if answer else None) == status:
                    return answer
                await asyncio.sleep(0.005)

    def warnings(self) -> list[Object]:
        return [event for event in self.api.all(EVENT) if event["type"] == "Warning"]

    def take(self, address: str, port: int) -> socket.socket:
        """Have somebody else listen there."""
        sock = netns.socket_in(self.space, socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((address, port))
        sock.listen()
        return sock

    def _get(self, address: str, port: int, path: str) -> Answer | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = netns.socket_in(self.space, family, socket.SOCK_STREAM)
        sock.settimeout(5)
        connection = http.client.HTTPConnection(address, port)
        connection.sock = sock
        with contextlib.closing(connection):
            try:
                sock.connect((address, port))
                connection.request("GET", path)
                response = connection.getresponse()
            except (ConnectionRefusedError, ConnectionResetError):
                # Reset: the kernel had taken the connection of a server that was just closing.
                return None
            return Answer(response.status, dict(response.getheaders()), response.read().decode())


@pytest.fixture
def proxy(space: Namespace, tmp_path: Path) -> Proxy:
    return Proxy(space, tmp_path)


def web(*, name: str = "ns1/web", ip: str = "172.30.0.41", **spec: Any) -> Object:
    return service(name, ip, PORTS, **{**LOCAL, **spec})


def behind(*endpoints: Object, name: str = "ns1/web", **options: Any) -> Object:
    return slice_of(name, *endpoints, ports=PORTS, **options)


HERE, THERE = endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "there")


async def test_balancers_learn_where_the_endpoints_are(proxy: Proxy) -> None:
    await proxy.add(NODE_HERE, web(), behind(HERE, THERE))
    async with proxy.working():
        answer = await proxy.until("192.0.2.1", HEALTH_PORT, 200, "/any/path")
        assert answer
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "1"
        assert answer.document == {
            "service": {"namespace": "ns1", "name": "web"},
            "localEndpoints": 1,
            "serviceProxyHealthy": True,
        }
        proxy.api.edit(ENDPOINT_SLICE, "web-a", "ns1", lambda obj: obj["endpoints"].pop(0))
        answer = await proxy.until("192.0.2.1", HEALTH_PORT, 503)
        assert answer
        assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "0"
        assert answer.document["localEndpoints"] == 0
        proxy.api.edit(SERVICE, "web", "ns1", lambda obj: obj["spec"].update(healthCheckNodePort=32005))
        await proxy.until("192.0.2.1", 32005, 503)
        await proxy.until("192.0.2.1", HEALTH_PORT, None)
        proxy.api.remove(SERVICE, "web", "ns1")
        await proxy.until("192.0.2.1", 32005, None)


async def test_each_family_has_its_own_server_on_the_same_port(proxy: Proxy) -> None:
    six = behind(endpoint("fd02::1", "there"), suffix="six", address_type="IPv6")
    await proxy.add(NODE_HERE, web(**DUAL), behind(HERE), six)
    async with proxy.working():
        answer = await proxy.until("192.0.2.1", HEALTH_PORT, 200)
        assert answer
        assert answer.document["localEndpoints"] == 1
        answer = await proxy.until("fd01::1", HEALTH_PORT, 503)
        assert answer
        assert answer.document["localEndpoints"] == 0
    assert not proxy.warnings()


async def test_node_port_addresses_say_where(proxy: Proxy) -> None:
    await proxy.add(NODE_HERE, web(**DUAL), behind(HERE))
    settings = ProxySettings(min_sync_period=0, node_port_addresses=("198.51.100.0/24", "fd01::/64"))
    async with proxy.working(settings):
        await proxy.until("198.51.100.1", HEALTH_PORT, 200)
        await proxy.until("fd01::1", HEALTH_PORT, 503)
        assert await proxy.get("192.0.2.1", HEALTH_PORT) is None
        assert await proxy.get("127.0.0.1", HEALTH_PORT) is None


async def test_a_taken_port_is_told_and_others_are_not_concerned(proxy: Proxy) -> None:
    other = web(name="ns2/other", ip="172.30.0.42", healthCheckNodePort=32001)
    await proxy.add(NODE_HERE, web(), behind(HERE), other, behind(HERE, name="ns2/other"))
    with proxy.take("192.0.2.1", HEALTH_PORT):
        async with proxy.working():
            await proxy.until("192.0.2.1", 32001, 200)
            await until(lambda: proxy.warnings())
            (event,) = proxy.warnings()
            assert event["reason"] == "FailedToStartServiceHealthcheck"
            assert event["type"] == "Warning"
            assert event["involvedObject"]["kind"] == "Service"
            assert event["involvedObject"]["name"] == "web"
            assert event["metadata"]["namespace"] == "ns1"
            assert "32000" in event["message"]
            assert await proxy.get("198.51.100.1", HEALTH_PORT) is None


async def test_a_port_that_becomes_free_is_taken(proxy: Proxy) -> None:
    health, reports = ProxyHealth(60), Reports(proxy.api.client(), "here")
    servers = ServiceHealthServers(
        "here", proxy.space, lambda _: [ip_address("192.0.2.1")], health, reports, retry=0.01
    )
    state = state_of(web(), behind(HERE))
    changes = Changes(frozenset(port.name for port in state.ports()), frozenset())
    taken = proxy.take("192.0.2.1", HEALTH_PORT)
    async with running(servers.run()):
        await servers.after_sync(Synced(state, changes, SyncReport(True, False), ProxyMetrics()))
        await until(lambda: proxy.warnings())
        taken.close()
        await proxy.until("192.0.2.1", HEALTH_PORT, 200)
    await reports.close()


async def test_an_address_that_becomes_free_is_taken(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports(proxy.api.client(), "here")
    pages = {"/": functools.partial(_hello, "hello")}
    server = StatusServer(
        "test server", "Failed", proxy.space, "192.0.2.1", pages, reports, default_port=4000, retry=0.01
    )
    taken = proxy.take("192.0.2.1", 4000)
    async with running(server.run()):
        await until(lambda: len([record for record in caplog.records if "4000" in record.message]) >= 3)
        taken.close()
        async with asyncio.timeout(60):
            await server.started()
        answer = await proxy.get("192.0.2.1", 4000)
        assert answer
        assert answer.body == "hello"
    await until(proxy.warnings)
    (event,) = proxy.warnings()
    assert event["count"] == 1, "said once, however often it is tried"
    await reports.close()


async def _hello(text: str, _: object) -> web_server.Response:
    return plain(text)


async def test_health_and_metrics_of_the_proxy(proxy: Proxy) -> None:
    await proxy.add(NODE_HERE, web(), behind(HERE))
    async with proxy.working():
        for address in ("127.0.0.1", "192.0.2.1", "fd01::1"):
            answer = await proxy.until(address, 10256, 200, "/healthz")
            assert answer
            assert answer.document["nodeEligible"] is True
            assert set(answer.document["status"]) == {"IPv4", "IPv6"}
        live = await proxy.get("127.0.0.1", 10256, "/livez")
        assert live
        assert "nodeEligible" not in live.document
        missing = await proxy.get("127.0.0.1", 10256, "/else")
        assert missing
        assert (missing.status, missing.body) == (404, "404 page not found\n")
        mode = await proxy.get("127.0.0.1", 10249, "/proxyMode")
        assert mode
        assert mode.body == "iptables"
        shown = await proxy.get("127.0.0.1", 10249, "/configz")
        assert shown
        assert shown.document["kubeproxy.config.k8s.io"]["kind"] == "KubeProxyConfiguration"
        metrics = await proxy.get("127.0.0.1", 10249, "/metrics")
        assert metrics
        assert 'kubeproxy_proxy_healthz_total{code="200"} 3.0' in metrics.body
        assert 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1' in metrics.body
        profile = await proxy.get("127.0.0.1", 10249, "/debug/pprof/")
        assert profile
        assert profile.status == 404
        (event,) = proxy.api.all(EVENT)
        assert (event["type"], event["reason"]) == ("Normal", "Starting")
        assert await proxy.get("192.0.2.1", 10249, "/metrics") is None, "for the node itself only"
    assert await proxy.get("127.0.0.1", 10256, "/healthz") is None


async def test_no_address_no_server(proxy: Proxy) -> None:
    settings = ProxySettings(min_sync_period=0, healthz_bind_address="", metrics_bind_address="")
    async with proxy.working(settings):
        assert await proxy.get("127.0.0.1", 10256, "/healthz") is None
        assert await proxy.get("127.0.0.1", 10249, "/metrics") is None


async def test_a_taken_address_is_told_and_the_rules_are_written(proxy: Proxy) -> None:
    await proxy.add(NODE_HERE)
    with proxy.take("127.0.0.1", 10249):
        async with proxy.working():
            await until(lambda: proxy.warnings())
            (event,) = proxy.warnings()
            assert event["reason"] == "FailedToStartMetricsServer"
            assert event["involvedObject"]["kind"] == "Node"
            assert await proxy.until("127.0.0.1", 10256, 200, "/healthz")


async def test_a_taken_address_can_be_fatal(proxy: Proxy) -> None:
    settings = ProxySettings(min_sync_period=0, bind_address_hard_fail=True)
    with proxy.take("127.0.0.1", 10249), pytest.raises(ExceptionGroup) as failed:
        await asyncio.wait_for(proxy.assembled(settings).run(), 60)
    (error,) = failed.value.exceptions
    assert isinstance(error, KernelError)
    assert "127.0.0.1:10249" in str(error)
