"""metrics.k8s.io: NodeMetrics and PodMetrics made of what kubelets tell, over the real server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.apiserver import Served, cluster

from controlplane.apiserver.pki import CertificateAuthority

API = "/apis/metrics.k8s.io/v1beta1"
AT = "2026-01-02T03:04:05Z"


def used(nanos: int | None, memory: int) -> Any:
    cpu = {"time": AT, "usageCoreNanoSeconds": 1}
    if nanos is not None:
        cpu |= {"usageNanoCores": nanos, "windowSeconds": 15.058}
    return {"cpu": cpu, "memory": {"time": AT, "workingSetBytes": memory}}


class Kubelet:
    """Answers /stats/summary with `summary`, which may be any bytes."""

    def __init__(self) -> None:
        self.summary: Any = {"node": {"nodeName": "n1", **used(250_000_000, 1 << 30)}, "pods": []}
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.address = ("", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.was_asked.set()
        self.asked.append(head.split(b" ")[1].decode())
        if self.hold is not None:
            await self.hold.wait()
        body = self.summary if isinstance(self.summary, bytes) else orjson.dumps(self.summary)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async def dial(self, address: str, port: int) -> socket.socket:
        if address != "127.0.0.1":
            raise ConnectionRefusedError(111, "Connection refused")
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return sock


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@asynccontextmanager
async def listening(kubelet: Kubelet, authority: CertificateAuthority) -> AsyncIterator[None]:
    """The kubelet on TLS, with a certificate of the cluster's."""
    own = authority.ensure("kubelet-n1", "system:node:n1", ips=[ip_address("127.0.0.1")], server=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(own.cert, own.key)
    server = await asyncio.start_server(kubelet.serve, "127.0.0.1", 0, ssl=tls)
    kubelet.address = server.sockets[0].getsockname()[:2]
    async with server:
        yield


@pytest.fixture
async def api(tmp_path: Path, kubelet: Kubelet) -> AsyncIterator[Served]:
    async with cluster(tmp_path, kubelet.dial) as served, listening(kubelet, served.authority):
        for name, address in (("n1", "127.0.0.1"), ("n2", "10.0.0.2")):
            status = {"addresses": [{"type": "InternalIP", "address": address}]}
            node = {"metadata": {"name": name, "labels": {"zone": name}}, "status": status}
            await served.json("POST", "/api/v1/nodes", 201, json=node)
            await served.json("PUT", f"/api/v1/nodes/{name}/status", json=node)
        yield served


async def pod(
    api: Served, kubelet: Kubelet, name: str, *containers: Any, node: str = "n1", phase: str = "Running"
) -> None:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "i:1"}]}
    body = {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    path = "/api/v1/namespaces/default/pods"
    made = await api.json("POST", path, 201, json=body)
    await api.json("PUT", f"{path}/{name}/status", json={**made, "status": {"phase": phase}})
    reference = {"name": name, "namespace": "default", "uid": made["metadata"]["uid"]}
    kubelet.summary["pods"].append({"podRef": reference, "containers": list(containers)})


async def test_pods(api: Served, kubelet: Kubelet) -> None:
    await pod(
        api, kubelet, "web", {"name": "c", **used(1_500_000, 3 << 20)}, {"name": "d", **used(0, 1 << 20)}
    )
    await pod(api, kubelet, "young", {"name": "c", **used(None, 5)})
    await pod(api, kubelet, "done", {"name": "c", **used(1, 5)}, phase="Succeeded")
    await pod(api, kubelet, "away", {"name": "c", **used(1, 5)}, node="n2")
    found = await api.json("GET", f"{API}/pods")
    assert (found["kind"], found["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
    (item,) = found["items"]
    created = item["metadata"].pop("creationTimestamp")
    assert created.endswith("Z")
    assert item == {
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "timestamp": AT,
        "window": "15.058s",
        "containers": [
            {"name": "c", "usage": {"cpu": "1500u", "memory": "3Mi"}},
            {"name": "d", "usage": {"cpu": "0", "memory": "1Mi"}},
        ],
    }
    one = await api.json("GET", f"{API}/namespaces/default/pods/web")
    assert one["containers"] == item["containers"]
    assert kubelet.asked == ["/stats/summary"]


async def test_selectors_and_namespaces(api: Served, kubelet: Kubelet) -> None:
    for name in ("a", "b"):
        await pod(api, kubelet, name, {"name": "c", **used(5, 5)})

    async def names(path: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await api.json("GET", f"{API}/{path}"))["items"]]

    assert await names("namespaces/default/pods") == ["a", "b"]
    assert await names("pods?labelSelector=app%3Db") == ["b"]
    assert await names("pods?fieldSelector=metadata.name%3Da") == ["a"]
    assert await names("namespaces/kube-system/pods") == []
    assert await names("nodes?labelSelector=zone%3Dn1") == ["n1"]


async def test_nodes_and_tables(api: Served, kubelet: Kubelet) -> None:
    node = await api.json("GET", f"{API}/nodes/n1")
    assert node["usage"] == {"cpu": "250m", "memory": "1Gi"}
    assert node["metadata"]["labels"] == {"zone": "n1"}
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    shown = await api.json("GET", f"{API}/nodes", headers=table)
    assert [column["name"] for column in shown["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
    # The node whose kubelet does not answer is left out.
    assert [row["cells"] for row in shown["rows"]] == [["n1", "250m", "1Gi", "15.058s"]]
    await pod(api, kubelet, "web", {"name": "c", **used(1, 1 << 20)}, {"name": "d", **used(2, 1 << 20)})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nodes/n2", 'nodemetrics.metrics.k8s.io "n2" not found'),
        ("nodes/nobody", 'nodes "nobody" not found'),
        ("namespaces/default/pods/away", 'podmetrics.metrics.k8s.io "default/away" not found'),
        ("namespaces/default/pods/nobody", 'pods "nobody" not found'),
    ],
)
async def test_what_is_not_measured(api: Served, kubelet: Kubelet, path: str, message: str) -> None:
    await pod(api, kubelet, "away", {"name": "c", **used(1, 5)}, node="n2")
    body = await api.json("GET", f"{API}/{path}", 404)
    assert (body["reason"], body["message"]) == ("NotFound", message)


@pytest.mark.parametrize(
    "told",
    [
        b"", b"no json", b"[]", b"{}", b"null", b'{"node": 5}', b'{"node": {"cpu": 7}}',
        b'{"node": {"cpu": {"usageNanoCores": "x", "time": 1}, "memory": {"workingSetBytes": 1}}}',
        b'{"node": {"cpu": {"usageNanoCores": 1, "windowSeconds": 1e99, "time": 1}, "memory": {"workingSetBytes": 1}}}',
        b'{"node": {}, "pods": [{}]}', b'{"node": {}, "pods": 5}', b'{"node": {}, "pods": [{"podRef": []}]}',
    ],
)  # fmt: skip
async def test_kubelets_that_talk_nonsense(api: Served, kubelet: Kubelet, told: bytes) -> None:
    kubelet.summary = told
    assert (await api.json("GET", f"{API}/nodes"))["items"] == []


async def test_many_who_ask_are_one_question(api: Served, kubelet: Kubelet) -> None:
    kubelet.hold = asyncio.Event()
    asking = [asyncio.create_task(api.json("GET", f"{API}/nodes/n1")) for _ in range(10)]
    gone = asyncio.create_task(api.json("GET", f"{API}/nodes/n1"))
    async with asyncio.timeout(10):
        await kubelet.was_asked.wait()
        gone.cancel()
        kubelet.hold.set()
        found = await asyncio.gather(*asking)
    assert all(node["usage"]["cpu"] == "250m" for node in found)
    assert kubelet.asked == ["/stats/summary"]


async def test_it_is_served_as_a_group(api: Served) -> None:
    resources = await api.json("GET", API)
    assert [(row["name"], row["kind"], row["verbs"]) for row in resources["resources"]] == [
        ("nodes", "NodeMetrics", ["get", "list"]),
        ("pods", "PodMetrics", ["get", "list"]),
    ]
    service = await api.json("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
    (condition,) = service["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Available", "True")
    index = (await api.json("GET", "/openapi/v3"))["paths"]
    document = await api.json("GET", index["apis/metrics.k8s.io/v1beta1"]["serverRelativeURL"])
    schema = document["components"]["schemas"]["io.k8s.metrics.v1beta1.PodMetrics"]
    assert schema["x-kubernetes-group-version-kind"] == [
        {"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"}
    ]
    for method in ("POST", "DELETE"):
        await api.json(method, f"{API}/nodes", 405, json={})
