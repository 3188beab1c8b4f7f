"""Logs, exec and port-forward through the API server to a fake kubelet, over real TLS on both legs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import FakeRegistry, Served, serving, subject

from controlplane.apiserver.app import ServerConfig
from controlplane.apiserver.http1 import Exchange, Http1Error
from controlplane.apiserver.pki import CertificateAuthority

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMIT = 10.0


class FakeKubelet:
    """Answers every request by `reply`; keeps what it was asked. A plain-HTTP one stands for a pod's own server."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.peers: list[str] = []
        self.reply: Reply | None = None
        self.busy: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            self.peers.append(subject(writer.get_extra_info("peercert"))[0])
            assert self.reply is not None
            await self.reply(reader, writer)
        finally:
            writer.close()

    @property
    def request_line(self) -> str:
        return self.heads[-1].partition("\r\n")[0]


def text(status: str, body: bytes, *headers: str) -> Reply:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return reply


@pytest.fixture
def kubelet() -> FakeKubelet:
    return FakeKubelet()


@pytest.fixture
def registry() -> FakeRegistry:
    fake = FakeRegistry()
    fake.add("nodes", {
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "Hostname", "address": "n1"},
                                 {"type": "InternalIP", "address": "127.0.0.1"}]},
    })  # fmt: skip
    fake.add("pods", {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]},
        "status": {"podIP": "10.0.0.9"},
    })  # fmt: skip
    fake.add("pods", {
        "metadata": {"name": "two", "namespace": "default"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
    })  # fmt: skip
    return fake


@pytest.fixture
async def served(kubelet: FakeKubelet, registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[Served]:
    authority = CertificateAuthority.load_or_create(tmp_path / "pki")
    loopback = [ip_address("127.0.0.1")]
    paths = authority.ensure("kubelet", "system:node:n1", ["system:nodes"], ips=loopback, server=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate_path)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(paths.cert, paths.key)
    own = authority.ensure("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
    client_tls = ssl.create_default_context(cafile=authority.certificate_path)
    client_tls.load_cert_chain(own.cert, own.key)
    secure = await asyncio.start_server(kubelet.accept, "127.0.0.1", 0, ssl=tls)
    plain = await asyncio.start_server(kubelet.accept, "127.0.0.1", 0)
    ports = {
        ("127.0.0.1", 10250): secure.sockets[0].getsockname()[1],
        ("10.0.0.9", 8080): plain.sockets[0].getsockname()[1],
    }

    async def dial(address: str, port: int) -> socket.socket:
        if (address, port) not in ports:
            raise ConnectionRefusedError(f"{address} refused the connection")
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", ports[address, port]))
        return sock

    async with (
        secure,
        plain,
        serving(registry, tmp_path, dial, ServerConfig(kubelet_tls=client_tls)) as served,
    ):
        yield served
    if kubelet.busy:
        _, left = await asyncio.wait(kubelet.busy, timeout=LIMIT)
        assert not left, "a connection to the kubelet outlived the server"


async def get(served: Served, path: str) -> tuple[int, str, bytes]:
    async with served.session.get(served.url + path) as answer:
        return answer.status, answer.headers.get("Content-Type", ""), await answer.read()


POD = "/api/v1/namespaces/default/pods/p"


async def test_logs_are_passed_on_as_plain_text(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = text("200 OK", b"one\ntwo\n", "Content-Type: text/html")
    status, kind, body = await get(served, f"{POD}/log?follow=True&tailLines=10&container=c&unknown=1")
    assert (status, kind, body) == (200, "text/plain", b"one\ntwo\n")
    assert kubelet.request_line == "GET /containerLogs/default/p/c?follow=true&tailLines=10 HTTP/1.1"
    assert kubelet.peers == ["kube-apiserver-kubelet-client"]
    assert "authorization" not in kubelet.heads[0].lower()


async def test_followed_logs_arrive_while_they_are_written(served: Served, kubelet: FakeKubelet) -> None:
    more = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        await more.wait()
        writer.write(b"4\r\ntwo\n\r\n0\r\n\r\n")
        await writer.drain()

    kubelet.reply = reply
    async with asyncio.timeout(LIMIT), served.session.get(f"{served.url}{POD}/log?follow=true") as answer:
        assert await answer.content.readline() == b"one\n"
        more.set()
        assert await answer.content.readline() == b"two\n"
        assert await answer.content.read() == b""


async def test_a_reader_of_logs_that_leaves_frees_the_kubelet(served: Served, kubelet: FakeKubelet) -> None:
    gone = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        assert await reader.read() == b""
        gone.set()

    kubelet.reply = reply
    answer = await served.session.get(f"{served.url}{POD}/log?follow=true")
    assert await answer.content.readline() == b"one\n"
    answer.close()
    await asyncio.wait_for(gone.wait(), LIMIT)


async def test_a_log_that_breaks_off_is_not_taken_for_complete(served: Served, kubelet: FakeKubelet) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        await writer.drain()

    kubelet.reply = reply
    with pytest.raises(aiohttp.ClientError):
        await get(served, f"{POD}/log")


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/two/log", 400, "a container name must be specified for pod two, choose one of: [a b]"
                          " or one of the init containers: [i]"),
        ("/p/log?container=x", 400, "container x is not valid for pod p"),
        ("/two/exec?container=a&command=ls&stdout=1", 400, "pod two does not have a host assigned"),
        ("/p/exec?stdout=1", 400, "you must specify a command to execute"),
        ("/p/exec?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/none/log", 404, 'pods "none" not found'),
    ],
)  # fmt: skip
async def test_what_is_refused_before_the_kubelet_is_asked(
    served: Served, kubelet: FakeKubelet, path: str, code: int, message: str
) -> None:
    body = await served.json("GET", "/api/v1/namespaces/default/pods" + path, code)
    assert (body["kind"], body["message"], body["code"]) == ("Status", message, code)
    assert kubelet.heads == []


async def test_the_kubelets_refusals_become_statuses(served: Served, kubelet: FakeKubelet) -> None:
    message = 'container "c" in pod "p" is waiting to start: ContainerCreating'
    kubelet.reply = text("400 Bad Request", message.encode())
    body = await served.json("GET", f"{POD}/log", 400)
    assert (body["reason"], body["message"]) == ("BadRequest", message)


@pytest.mark.parametrize("what", ["exec?command=ls&stdout=true", "attach?stdout=true", "portforward"])
async def test_refused_upgrades_are_handed_on_as_they_are(
    served: Served, kubelet: FakeKubelet, what: str
) -> None:
    kubelet.reply = text(
        "500 Internal Server Error", b'container not found ("c")', "Content-Type: text/plain"
    )
    reader, writer = await raw(served, f"GET {POD}/{what} HTTP/1.1\r\n{UPGRADE.format('SPDY/3.1')}\r\n")
    async with asyncio.timeout(LIMIT):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"Content-Type: text/plain" in head
        assert await reader.readexactly(25) == b'container not found ("c")'
    writer.close()


async def test_a_dead_kubelet_is_told(served: Served, registry: FakeRegistry) -> None:
    pod = registry.objects["pods", "default", "p"]
    registry.add("pods", {**pod, "spec": {**pod["spec"], "nodeName": "n2"}})
    registry.add("nodes", {
        "metadata": {"name": "n2"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.8"}],
                   "daemonEndpoints": {"kubeletEndpoint": {"Port": 8080}}},
    })  # fmt: skip
    body = await served.json("GET", f"{POD}/log", 500)
    assert body["message"] == "error dialing backend: 10.0.0.8:8080: 10.0.0.8 refused the connection"


async def test_a_pod_without_a_node_has_empty_logs(served: Served) -> None:
    status, _, body = await get(served, "/api/v1/namespaces/default/pods/two/log?container=a")
    assert (status, body) == (200, b"")


async def echo_websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts the upgrade, sends a frame in the same breath, then returns whatever comes, byte by byte."""
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\nfirst"
    )
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def raw(served: Served, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = served.url.removeprefix("https://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=served.client_tls())
    writer.write(request.encode())
    return reader, writer


UPGRADE = "Host: x\r\nConnection: Upgrade\r\nUpgrade: {}\r\n"


async def test_an_upgrade_is_a_tunnel_in_both_directions(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = echo_websocket
    head = (
        UPGRADE.format("websocket")
        + "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Key: a2V5\r\n"
    )
    reader, writer = await raw(
        served,
        f"GET {POD}/exec?command=sh&command=-c&command=a%20b%26c&stdin=true&stdout=1 HTTP/1.1\r\n{head}\r\n",
    )
    async with asyncio.timeout(LIMIT):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 ")
        assert "Sec-Websocket-Protocol: v5.channel.k8s.io" in answer
        assert await reader.readexactly(5) == b"first"
        sent = bytes(range(256)) * 8192
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.close()
    line = "GET /exec/default/p/c?input=1&output=1&command=sh&command=-c&command=a+b%26c HTTP/1.1"
    assert kubelet.request_line == line
    assert "Sec-WebSocket-Key: a2V5".lower() in kubelet.heads[0].lower()


async def test_spdy_posts_are_tunnelled_with_one_line_per_version(
    served: Served, kubelet: FakeKubelet
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n"
            b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        )
        assert await reader.readexactly(4) == b"\x80\x03\x00\x01"
        writer.write(b"bye")
        await writer.drain()

    kubelet.reply = reply
    versions = (
        "X-Stream-Protocol-Version: v5.channel.k8s.io\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    )
    reader, writer = await raw(
        served, f"POST {POD}/portforward HTTP/1.1\r\n{UPGRADE.format('SPDY/3.1')}{versions}\r\n"
    )
    async with asyncio.timeout(LIMIT):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Upgrade: SPDY/3.1" in answer
        assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in answer
        writer.write(b"\x80\x03\x00\x01")
        assert await reader.read() == b"bye"
        writer.close()
    assert kubelet.request_line == "POST /portForward/default/p HTTP/1.1"
    assert kubelet.heads[0].lower().count("x-stream-protocol-version: ") == 2


async def test_a_client_that_vanishes_ends_the_tunnel(served: Served, kubelet: FakeKubelet) -> None:
    gone = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo_websocket(reader, writer)
        gone.set()

    kubelet.reply = reply
    reader, writer = await raw(
        served, f"GET {POD}/attach?stdin=1 HTTP/1.1\r\n{UPGRADE.format('websocket')}\r\n"
    )
    async with asyncio.timeout(LIMIT):
        await reader.readuntil(b"first")
        writer.transport.abort()
        await gone.wait()


async def test_closing_the_server_ends_tunnels(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = echo_websocket
    reader, writer = await raw(
        served, f"GET {POD}/attach?stdin=1 HTTP/1.1\r\n{UPGRADE.format('websocket')}\r\n"
    )
    async with asyncio.timeout(LIMIT):
        await reader.readuntil(b"first")
        await served.server.close()
        assert await reader.read() == b""
        writer.close()


async def test_an_upgrade_that_is_neither_taken_nor_refused(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = text("200 OK", b"hello")
    reader, writer = await raw(
        served, f"GET {POD}/exec?command=ls&stdout=1 HTTP/1.1\r\n{UPGRADE.format('websocket')}\r\n"
    )
    async with asyncio.timeout(LIMIT):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 500 ")
        assert b"invalid upgrade response: status code 200" in await reader.read(1000)
    writer.close()


async def test_a_pods_own_server_is_reached_by_proxy(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = text("302 Found", b"moved", "Location: /there", "X-Own: 1")
    url = f"{served.url}{POD}:8080/proxy/a%2Fb//c?x=1"
    async with served.session.get(url, allow_redirects=False) as answer:
        headers: Any = answer.headers
        assert (answer.status, await answer.read()) == (302, b"moved")
    assert headers["Location"] == f"{POD}:8080/proxy/there"
    assert headers["X-Own"] == "1"
    assert kubelet.request_line.startswith("GET /a%2Fb//c?x=1 ")


async def test_a_proxy_without_a_slash_redirects(served: Served) -> None:
    async with served.session.get(f"{served.url}{POD}/proxy", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, f"{POD}/proxy/")


async def test_a_service_without_endpoints_is_unavailable(served: Served, registry: FakeRegistry) -> None:
    registry.add(
        "services", {"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
    )
    registry.add("endpoints", {"metadata": {"name": "s", "namespace": "default"}, "subsets": []})
    body = await served.json("GET", "/api/v1/namespaces/default/services/s:80/proxy/", 503)
    assert body["message"] == 'no endpoints available for service "s"'


async def test_a_service_is_reached_through_a_ready_endpoint(
    served: Served, registry: FakeRegistry, kubelet: FakeKubelet
) -> None:
    meta = {"name": "s", "namespace": "default"}
    registry.add("services", {"metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}})
    pod = {"kind": "Pod", "namespace": "default", "name": "p"}
    subset = {"addresses": [{"ip": "10.0.0.9", "targetRef": pod}], "notReadyAddresses": [{"ip": "10.9.9.9"}],
              "ports": [{"name": "http", "port": 8080}]}  # fmt: skip
    registry.add("endpoints", {"metadata": meta, "subsets": [subset]})
    kubelet.reply = text("200 OK", b"hello")
    status, _, body = await get(served, "/api/v1/namespaces/default/services/s:http/proxy/")
    assert (status, body) == (200, b"hello")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1",
     "::", "::ffff:127.0.0.1", "localhost", "metadata.internal", "2130706433", "0x7f000001"],
)  # fmt: skip
async def test_a_proxy_leads_to_ordinary_addresses_only(
    served: Served, registry: FakeRegistry, kubelet: FakeKubelet, address: str
) -> None:
    meta = {"name": "evil", "namespace": "default"}
    registry.add("pods", {"metadata": meta, "spec": {"containers": []}, "status": {"podIP": address}})
    registry.add("services", {"metadata": meta, "spec": {"ports": [{"port": 80}]}})
    pod = {"kind": "Pod", "namespace": "default", "name": "evil"}
    subset = {"addresses": [{"ip": address, "targetRef": pod}], "ports": [{"port": 80}]}
    registry.add("endpoints", {"metadata": meta, "subsets": [subset]})
    status = {"addresses": [{"type": "InternalIP", "address": address}]}
    registry.add("nodes", {"metadata": {"name": "evil"}, "status": status})
    for path in ("namespaces/default/pods/evil:80", "namespaces/default/services/evil", "nodes/evil"):
        body = await served.json("GET", f"/api/v1/{path}/proxy/x", 400)
        assert body["message"] == "address not allowed"
    assert kubelet.heads == []


@pytest.mark.parametrize(
    "target",
    [
        None,
        {"kind": "Node", "namespace": "default", "name": "p"},
        {"kind": "Pod", "namespace": "kube-system", "name": "p"},
        {"kind": "Pod", "namespace": "default", "name": "gone"},
        {"kind": "Pod", "namespace": "default", "name": "other"},
    ],
)
async def test_a_service_leads_to_pods_of_its_namespace_only(
    served: Served, registry: FakeRegistry, target: dict[str, str] | None
) -> None:
    """Who writes Endpoints by hand may not send the API server where he likes."""
    registry.add(
        "pods", {"metadata": {"name": "other", "namespace": "default"}, "status": {"podIP": "10.0.0.77"}}
    )
    meta = {"name": "s", "namespace": "default"}
    registry.add("services", {"metadata": meta, "spec": {"ports": [{"port": 80}]}})
    address = {"ip": "10.0.0.9", **({"targetRef": target} if target else {})}
    registry.add(
        "endpoints", {"metadata": meta, "subsets": [{"addresses": [address], "ports": [{"port": 80}]}]}
    )
    body = await served.json("GET", "/api/v1/namespaces/default/services/s/proxy/", 503)
    assert body["message"] == 'no endpoints available for service "s"'


async def test_a_client_that_leaves_before_the_kubelet_answers(served: Served, kubelet: FakeKubelet) -> None:
    asked, leave = asyncio.Event(), asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await leave.wait()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n")
        assert await reader.read() == b""

    kubelet.reply = reply
    _, writer = await raw(served, f"POST {POD}/portforward HTTP/1.1\r\n{UPGRADE.format('SPDY/3.1')}\r\n")
    async with asyncio.timeout(LIMIT):
        await asked.wait()
        writer.transport.abort()
        leave.set()
        await asyncio.wait(kubelet.busy)


async def test_a_body_that_is_never_read_can_be_closed(kubelet: FakeKubelet) -> None:
    near, far = socket.socketpair()
    far.sendall(b"HTTP/1.1 200 OK\r\n\r\nbody without end")
    exchange = await Exchange.open(near)
    await exchange.read_head()
    await exchange.body().aclose()
    far.settimeout(LIMIT)
    assert far.recv(1) == b""
    far.close()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    ],
)
async def test_bodies_in_all_their_forms(sent: bytes, expected: bytes) -> None:
    assert await received(sent) == expected


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
    ],
)
async def test_answers_that_are_broken(sent: bytes) -> None:
    with pytest.raises(Http1Error):
        await received(sent)


async def received(sent: bytes) -> bytes:
    """The body a server's bytes hold."""
    near, far = socket.socketpair()
    with far:
        far.setblocking(False)
        exchange = await Exchange.open(near)
        try:
            async with asyncio.timeout(LIMIT):
                await asyncio.get_running_loop().sock_sendall(far, sent)
                far.shutdown(socket.SHUT_WR)
                await exchange.read_head()
                return b"".join([piece async for piece in exchange.body()])
        finally:
            await exchange.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("stream=Stdout", "stream: Forbidden: may not be specified"),
        (
            "sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ],
)
async def test_log_options_that_make_no_sense(
    served: Served, kubelet: FakeKubelet, query: str, said: str
) -> None:
    body = await served.json("GET", f"{POD}/log?{query}", 422)
    assert body["details"]["kind"] == "PodLogOptions"
    assert body["message"].startswith('PodLogOptions "p" is invalid: ')
    assert said in body["message"]
    assert kubelet.heads == []


@pytest.mark.parametrize("what", ["exec?command=ls&stdout=true", "attach?stdout=true", "portforward"])
async def test_streams_need_an_upgrade(served: Served, kubelet: FakeKubelet, what: str) -> None:
    for method in ("GET", "POST"):
        body = await served.json(method, f"{POD}/{what}", 400)
        assert (body["reason"], body["message"]) == ("BadRequest", "Upgrade request required")
    assert kubelet.heads == []


async def test_every_method_is_proxied(served: Served, kubelet: FakeKubelet) -> None:
    kubelet.reply = text("200 OK", b"")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        async with served.session.request(method, f"{served.url}{POD}/proxy/a%20b?q=1") as answer:
            assert answer.status == 200
        assert kubelet.request_line == f"{method} /a%20b?q=1 HTTP/1.1"
        assert f"X-Forwarded-Uri: {POD}/proxy/a%20b\r\n" in kubelet.heads[-1]
    await served.json("OPTIONS", POD, 405)
