"""kr8s: its objects, synchronous and asynchronous, discovery, waits, exec, port-forward."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import httpx
import kr8s
import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment, Node, Pod, new_class
from support.client_wait import until
from support.client_world import DEPLOYMENT, POD, WIDGET, WIDGETS
from support.live import Live, established

pytestmark = pytest.mark.filterwarnings("ignore")

T = TypeVar("T")
LIMIT = 20


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "x"}},
        "data": data,
    }


async def test_objects(server: Live) -> None:
    api = await kr8s.asyncio.api(kubeconfig=server.kubeconfig())
    made = await ConfigMap(config_map("a", k="1"), api=api)
    await made.create()
    assert await made.exists()
    await made.patch({"data": {"l": "1"}})
    assert made.data == {"k": "1", "l": "1"}
    await made.patch([{"op": "remove", "path": "/data/k"}], type="json")
    assert made.data == {"l": "1"}
    await made.label({"by": "test"})
    await made.annotate({"note": "n"})
    fresh = await ConfigMap.get("a", namespace="default", api=api)
    assert (fresh.labels, fresh.annotations) == ({"app": "x", "by": "test"}, {"note": "n"})
    await fresh.remove_label("by")
    await made.refresh()
    assert made.labels == {"app": "x"}
    for number in range(3):
        await (await ConfigMap(config_map(f"b{number}"), api=api)).create()
    names = [each.name async for each in api.get("configmaps", namespace="default", label_selector="app=x")]
    assert names == ["a", "b0", "b1", "b2"]
    assert [each.name async for each in api.get("cm", "b1", namespace="default")] == ["b1"]
    with pytest.raises(kr8s.ServerError) as caught:
        await (await ConfigMap(config_map("a"), api=api)).create()
    assert caught.value.response is not None
    assert caught.value.response.status_code == 409
    await made.delete(propagation_policy="Background")
    assert not await made.exists()
    with pytest.raises(kr8s.NotFoundError):
        await ConfigMap.get("a", namespace="default", api=api)
    kinds = {each["kind"] for each in await api.api_resources()}
    assert {"Pod", "Deployment", "CustomResourceDefinition"} <= kinds
    assert (await api.version())["major"] == "1"
    assert await api.whoami() == "kubernetes-admin"
    node = await Node.get("node1", api=api)
    await node.cordon()
    assert node.unschedulable
    await node.uncordon()
    asked = server.asked
    assert asked.lines()[0] == "GET /version/ 200"
    assert all(agent.startswith("kr8s/") for agent in asked.agents())
    assert asked.types("PATCH") == {"application/merge-patch+json", "application/json-patch+json"}
    assert {each.accept for each in asked.requests} <= {"*/*", "application/json"}


async def test_workloads(server: Live) -> None:
    server.kubelet.log = ["one", "two", "three"]

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(page, "127.0.0.1", 0)
    server.kubelet.ports[80] = listener.sockets[0].getsockname()[1]
    api = await kr8s.asyncio.api(kubeconfig=server.kubeconfig())
    deployment = await Deployment(DEPLOYMENT, api=api)
    await deployment.create()
    await deployment.wait("condition=Available", timeout=LIMIT)
    async with asyncio.timeout(LIMIT):
        while not await deployment.ready():
            await deployment.refresh()
    await deployment.scale(1)
    assert deployment.replicas == 1
    pod = await Pod(POD, api=api)
    await pod.create()
    await pod.wait("condition=Ready", timeout=LIMIT)
    assert await pod.ready()
    assert [line async for line in pod.logs(tail_lines=2)] == ["two", "three"]
    done = await pod.exec(["sh", "-c", "printf hello; echo bad >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"hello", b"bad\n", 3)
    async with (
        listener,
        pod.portforward(remote_port=80, local_port="auto") as port,
        httpx.AsyncClient() as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{port}/")
        assert answer.text == "hello"
    watched = asyncio.create_task(anext(pod.watch()))
    await until(lambda: any(each.verb == "watch" for each in server.asked.requests), LIMIT)
    await (await Pod.get("p", namespace="default", api=api)).label({"by": "test"})
    sort, changed = await asyncio.wait_for(watched, LIMIT)
    assert (sort, changed.labels["by"]) == ("MODIFIED", "test")
    await pod.delete()
    await pod.wait("delete", timeout=LIMIT)
    await deployment.delete(propagation_policy="Foreground")
    await deployment.wait("delete", timeout=LIMIT)
    asked = server.asked.lines()
    assert "PATCH /apis/apps/v1/namespaces/default/deployments/web 200" in asked
    assert (
        "GET /api/v1/namespaces/default/pods/p/portforward?name=p&namespace=default&ports=80&_preload_content=false 101"
        in asked
    )


async def test_custom_resources(server: Live) -> None:
    await established(server.client, WIDGETS)
    api = await kr8s.asyncio.api(kubeconfig=server.kubeconfig())
    widgets = new_class("Widget", version="example.com/v1", namespaced=True, plural="widgets", asyncio=True)
    made = await widgets(WIDGET, api=api)
    await made.create()
    await made.patch({"status": {"ready": 1}}, subresource="status")
    assert made.status == {"ready": 1}
    with pytest.raises(kr8s.ServerError) as caught:
        await made.patch({"spec": {"size": "large"}})
    assert 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"' in str(
        caught.value
    )
    # Found by discovery alone, by its short name too.
    assert [each.name async for each in api.get("wd", namespace="default", allow_unknown_type=True)] == ["w"]
    await made.delete()


async def test_the_synchronous_half(server: Live) -> None:
    def story() -> None:
        api = kr8s.api(kubeconfig=server.kubeconfig())
        made = kr8s.objects.ConfigMap(config_map("a", k="1"), api=api)
        made.create()
        assert [each.name for each in api.get("configmaps", namespace="default", label_selector="app=x")] == [
            "a"
        ]
        made.patch({"data": {"k": "2"}})
        assert made.data == {"k": "2"}
        made.delete()
        assert not made.exists()

    await asyncio.wait_for(asyncio.to_thread(story), 3 * LIMIT)


async def test_in_a_pod(server: Live, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment and files as a pod has them; the token is the ServiceAccount's."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(server.served.authority.certificate_pem)
    (folder / "namespace").write_text("default")
    made = await server.served.json(
        "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", 201, json={"spec": {}}
    )
    (folder / "token").write_text(made["status"]["token"])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    api = await kr8s.asyncio.api(serviceaccount=str(folder), kubeconfig=str(tmp_path / "none"))
    server.asked.clear()
    with pytest.raises(kr8s.ServerError) as caught:
        _ = [each async for each in api.get("configmaps", namespace="default")]
    assert 'User "system:serviceaccount:default:default" cannot list resource "configmaps"' in str(
        caught.value
    )
    assert {each.user for each in server.asked.requests} == {"system:serviceaccount:default:default"}
