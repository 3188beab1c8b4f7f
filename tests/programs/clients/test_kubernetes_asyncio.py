"""kubernetes_asyncio, the community's asynchronous client: in this loop, on WebSockets, over restarts, in a pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes_asyncio import client as api
from kubernetes_asyncio import config, watch
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.dynamic import DynamicClient
from kubernetes_asyncio.stream import WsApiClient
from support.client_wait import until
from support.client_world import POD, WIDGET, WIDGETS
from support.live import Live, established

pytestmark = pytest.mark.filterwarnings("ignore")

LIMIT = 20
PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def configuration(server: Live) -> api.Configuration:
    made = api.Configuration()
    await config.load_kube_config(server.kubeconfig(), client_configuration=made)
    return made


@pytest.fixture
async def client(configuration: api.Configuration) -> AsyncIterator[api.ApiClient]:
    async with api.ApiClient(configuration) as made:
        yield made


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "data": data}


async def test_every_verb(server: Live, client: api.ApiClient) -> None:
    core = api.CoreV1Api(client)
    made = await core.create_namespaced_config_map("default", config_map("a", k="1"))
    made.data["k"] = "2"
    await core.replace_namespaced_config_map("a", "default", made)
    with pytest.raises(ApiException) as caught:
        await core.replace_namespaced_config_map("a", "default", made)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "Conflict")
    patched = await core.patch_namespaced_config_map("a", "default", {"data": {"l": "1"}})
    assert patched.data == {"k": "2", "l": "1"}
    steps = [{"op": "remove", "path": "/data/k"}]
    patched = await core.patch_namespaced_config_map("a", "default", steps)
    assert patched.data == {"l": "1"}
    await core.create_namespaced_config_map("default", config_map("b"))
    page = await core.list_namespaced_config_map("default", limit=1, label_selector="app=x")
    rest = await core.list_namespaced_config_map(
        "default", limit=1, label_selector="app=x", _continue=page.metadata._continue
    )
    assert [each.metadata.name for each in (*page.items, *rest.items)] == ["a", "b"]
    await core.delete_collection_namespaced_config_map("default", label_selector="app=x")
    with pytest.raises(ApiException) as caught:
        await core.read_namespaced_config_map("a", "default")
    assert caught.value.status == 404
    assert (await api.VersionApi(client).get_code()).major == "1"
    asked = server.asked
    assert asked.lines()[0] == f"POST {PATH} 201"
    assert len(asked.agents()) == 1
    assert asked.types("PATCH") <= {
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
        "application/json-patch+json",
    }


async def test_watches_over_restarts(server: Live, client: api.ApiClient) -> None:
    """The watch goes on from the last resourceVersion; when that is gone, the client is told 410."""
    core = api.CoreV1Api(client)
    told: list[tuple[str, str]] = []
    ends: list[int] = []

    async def follow() -> None:
        version = (await core.list_namespaced_config_map("default")).metadata.resource_version
        watching = watch.Watch()
        while True:
            try:
                async for event in watching.stream(
                    core.list_namespaced_config_map,
                    "default",
                    resource_version=version,
                    timeout_seconds=LIMIT,
                ):
                    told.append((event["type"], event["object"].metadata.name))
            except (ApiException, OSError) as error:
                ends.append(getattr(error, "status", 0))
                if ends[-1] == 410:
                    return
            version = watching.resource_version or version

    following = asyncio.create_task(follow())
    await until(lambda: any(each.verb == "watch" for each in server.asked.requests), LIMIT)
    await core.create_namespaced_config_map("default", config_map("a"))
    await until(lambda: ("ADDED", "a") in told, LIMIT)
    await server.restart()
    await core.create_namespaced_config_map("default", config_map("b"))
    await until(lambda: ("ADDED", "b") in told, LIMIT)
    assert told.count(("ADDED", "a")) == 1
    await server.stop()
    await server.lose("/registry/configmaps/default/a")
    await server.start()
    await asyncio.wait_for(following, LIMIT)
    assert ends[-1] == 410


async def test_commands_over_websockets(
    server: Live, client: api.ApiClient, configuration: api.Configuration
) -> None:
    core = api.CoreV1Api(client)
    await core.create_namespaced_pod("default", POD)
    async with watch.Watch() as watching:
        async for event in watching.stream(core.list_namespaced_pod, "default", timeout_seconds=LIMIT):
            if event["object"].status.phase == "Running":
                break
    async with WsApiClient(configuration) as sockets:
        run = api.CoreV1Api(sockets).connect_get_namespaced_pod_exec
        said = await run(
            "p", "default", command=["echo", "hi"], stdout=True, stderr=True, stdin=False, tty=False
        )
        assert said == "hi\n"
        session = await run(
            "p", "default", command=["sh", "-c", "exit 3"], stdout=True, stderr=True, stdin=False, tty=False,
            _preload_content=False,
        )  # fmt: skip
        async with session as channel:
            frames = [message.data async for message in channel]
        assert sockets.parse_error_data(frames[-1][1:].decode()) == 3


async def test_the_dynamic_client(server: Live, client: api.ApiClient) -> None:
    await established(server.client, WIDGETS)
    dynamic = await DynamicClient(client)
    widgets = await dynamic.resources.get(api_version="example.com/v1", kind="Widget")
    await widgets.create(body=WIDGET, namespace="default")
    applied = await widgets.server_side_apply(
        body={**WIDGET, "spec": {"size": 4}}, namespace="default", field_manager="robot", force_conflicts=True
    )
    assert applied.spec.size == 4
    found = await widgets.get(namespace="default")
    assert [each.metadata.name for each in found.items] == ["w"]
    await widgets.delete(name="w", namespace="default")
    assert "GET /apis/example.com/v1 200" in server.asked.lines()


async def test_in_a_pod(server: Live, client: api.ApiClient, tmp_path: Any) -> None:
    core = api.CoreV1Api(client)
    token = await core.create_namespaced_service_account_token("default", "default", {"spec": {}})
    (tmp_path / "token").write_text(token.status.token)
    (tmp_path / "ca.crt").write_bytes(server.served.authority.certificate_pem)
    loader = config.incluster_config.InClusterConfigLoader(
        str(tmp_path / "token"),
        str(tmp_path / "ca.crt"),
        environ={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)},
    )
    inside = api.Configuration()
    loader.load_and_set(inside)
    async with api.ApiClient(inside) as pod:
        with pytest.raises(ApiException) as caught:
            await api.CoreV1Api(pod).list_namespaced_secret("default")
    assert caught.value.status == 403
    assert (
        'User "system:serviceaccount:default:default" cannot list' in json.loads(caught.value.body)["message"]
    )
