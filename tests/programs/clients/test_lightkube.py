"""lightkube: typed and generic resources, apply, watch, wait, exec, both flavours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import pytest
from httpx2 import ConnectError
from lightkube import ApiError, AsyncClient, Client, KubeConfig, codecs
from lightkube.generic_resource import get_generic_resource, load_in_cluster_generic_resources
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod
from lightkube.types import CascadeType, OnErrorAction, OnErrorResult, PatchType
from support.client_wait import until
from support.client_world import DEPLOYMENT, POD, WIDGET, WIDGETS
from support.live import Live, established

pytestmark = pytest.mark.filterwarnings("ignore")

T = TypeVar("T")
LIMIT = 20
PATH = "/api/v1/namespaces/default/configmaps"


MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: default, labels: {app: x}}
data: {k: "1"}
"""


async def play(server: Live, story: Callable[[Client], T], field_manager: str = "lightkube") -> T:
    def run() -> T:
        config = KubeConfig.from_file(server.kubeconfig())
        with Client(config, field_manager=field_manager) as client:
            return story(client)

    return await asyncio.wait_for(asyncio.to_thread(run), 3 * LIMIT)


def config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels={"app": "x"}), data=data)


async def test_every_verb(server: Live) -> None:
    def story(client: Client) -> None:
        made = client.create(config_map("a", k="1"))
        assert client.get(ConfigMap, "a").metadata.uid == made.metadata.uid
        made.data["k"] = "2"
        assert client.replace(made).data == {"k": "2"}
        with pytest.raises(ApiError) as caught:
            client.replace(made)
        assert (caught.value.status.code, caught.value.status.reason) == (409, "Conflict")
        assert client.patch(ConfigMap, "a", {"data": {"l": "1"}}).data == {"k": "2", "l": "1"}
        merged = client.patch(ConfigMap, "a", {"data": {"k": None}}, patch_type=PatchType.MERGE)
        assert merged.data == {"l": "1"}
        steps = [{"op": "add", "path": "/data/m", "value": "2"}]
        assert client.patch(ConfigMap, "a", steps, patch_type=PatchType.JSON).data == {"l": "1", "m": "2"}
        assert client.set(ConfigMap, "a", labels={"by": "test"}).metadata.labels == {"app": "x", "by": "test"}
        with pytest.raises(ApiError) as caught:
            client.create(config_map("a"))
        assert caught.value.status.reason == "AlreadyExists"
        for number in range(4):
            client.create(config_map(f"b{number}"))
        listed = client.list(ConfigMap, chunk_size=2, labels={"app": "x"})
        assert [each.metadata.name for each in listed] == ["a", "b0", "b1", "b2", "b3"]
        assert listed.resourceVersion
        assert [each.metadata.name for each in client.list(Node)] == ["node1", "node2"]
        assert len(list(client.list(ConfigMap, fields={"metadata.name": "a"}, namespace="*"))) == 1
        client.delete(ConfigMap, "a", cascade=CascadeType.BACKGROUND)
        client.deletecollection(ConfigMap, namespace="default")
        with pytest.raises(ApiError) as caught:
            client.get(ConfigMap, "a")
        assert caught.value.status.code == 404

    await play(server, story)
    asked = server.asked
    pages = [each for each in asked.of("GET", PATH) if each.value("limit")]
    assert [bool(each.value("continue")) for each in pages] == [False, True, True]
    assert asked.lines()[0] == f"POST {PATH}?fieldManager=lightkube 201"
    assert asked.types("PATCH") == {
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
        "application/json-patch+json",
    }


async def test_apply_with_owners_and_conflicts(server: Live) -> None:
    def first(client: Client) -> None:
        for obj in codecs.load_all_yaml(MANIFEST):
            assert client.apply(obj).data == {"k": "1"}
        assert client.apply(config_map("a", k="1", l="1")).data == {"k": "1", "l": "1"}
        # What the manager no longer names goes.
        assert client.apply(config_map("a", k="1")).data == {"k": "1"}

    def second(client: Client) -> None:
        with pytest.raises(ApiError) as caught:
            client.apply(config_map("a", k="2"))
        assert caught.value.status.code == 409
        assert [cause.field for cause in caught.value.status.details.causes] == [".data.k"]
        assert 'conflict with "lightkube"' in caught.value.status.details.causes[0].message
        forced = client.apply(config_map("a", k="2"), force=True)
        assert {entry.manager for entry in forced.metadata.managedFields} == {"lightkube", "other"}

    await play(server, first)
    await play(server, second, "other")
    assert server.asked.types("PATCH") == {"application/apply-patch+yaml"}
    managers = [each.value("fieldManager") for each in server.asked.requests]
    assert managers == ["lightkube"] * 3 + ["other"] * 2


async def test_workloads_waits_and_scale(server: Live) -> None:
    server.kubelet.log = ["one", "two"]

    def story(client: Client) -> None:
        client.create(Deployment.from_dict(DEPLOYMENT))
        ready = client.wait(Deployment, "web", for_conditions=["Available"])
        assert ready.status.availableReplicas == 2
        scale = Deployment.Scale(
            metadata=ObjectMeta(name="web", namespace="default"), spec=ScaleSpec(replicas=1)
        )
        assert client.replace(scale).spec.replicas == 1
        for _, found in client.watch(Deployment, fields={"metadata.name": "web"}, server_timeout=LIMIT):
            if found.status.replicas == 1 and found.status.observedGeneration == found.metadata.generation:
                break
        else:
            raise AssertionError("never scaled")
        client.create(Pod.from_dict(POD))
        client.wait(Pod, "p", for_conditions=["Ready"])
        assert list(client.log("p")) == ["one\n", "two\n"]
        assert list(client.log("p", tail_lines=1)) == ["two\n"]
        status = client.patch(
            Pod.Status, "p", {"status": {"conditions": [{"type": "example.com/x", "status": "True"}]}}
        )
        assert "example.com/x" in {each.type for each in status.status.conditions}
        done = client.exec(
            "p", command=["sh", "-c", "cat; echo bad >&2"], stdin="hello", stdout=True, stderr=True
        )
        assert (done.stdout, done.stderr) == ("hello", "bad\n")
        assert (
            client.exec("p", command=["sh", "-c", "exit 4"], stdout=True, raise_on_error=False).exit_code == 4
        )
        client.delete(Pod, "p", grace_period=0)

    await play(server, story)
    waits = [each for each in server.asked.requests if each.verb == "watch" and each.value("fieldSelector")]
    assert waits[0].value("fieldSelector") == "metadata.name=web"


async def test_generic_resources(server: Live) -> None:
    await established(server.client, WIDGETS)

    def story(client: Client) -> None:
        load_in_cluster_generic_resources(client)
        widgets = get_generic_resource("example.com/v1", "Widget")
        made = client.create(widgets.from_dict(WIDGET))
        assert made["spec"] == {"size": 1}
        assert client.apply(widgets.from_dict({**WIDGET, "spec": {"size": 2}}), force=True)["spec"] == {
            "size": 2
        }
        status = client.patch(widgets.Status, "w", {"status": {"ready": 1}}, patch_type=PatchType.MERGE)
        assert status["status"] == {"ready": 1}
        assert client.get(widgets.Scale, "w").spec.replicas == 2
        with pytest.raises(ApiError) as caught:
            client.patch(widgets, "w", {"spec": {"size": 3}})
        assert caught.value.status.code == 415
        assert [each.metadata.name for each in client.list(widgets)] == ["w"]
        client.delete(widgets, "w")

    await play(server, story)


async def test_watches_over_restarts(server: Live) -> None:
    """The asynchronous client, in this loop. It goes on by itself when a watch breaks or its history is gone."""
    told: list[tuple[str, str]] = []

    def on_error(error: Exception, count: int) -> OnErrorResult:
        return OnErrorResult(OnErrorAction.RETRY, sleep=0.01)

    async with AsyncClient(KubeConfig.from_file(server.kubeconfig())) as client:

        async def follow() -> None:
            while True:
                # A refused connection is all that it leaves to the caller.
                with contextlib.suppress(ConnectError):
                    async for sort, obj in client.watch(ConfigMap, labels={"app": "x"}, on_error=on_error):
                        told.append((sort, obj.metadata.name))

        async def followed() -> None:
            await until(
                lambda: any(each.verb == "watch" and not each.code for each in server.asked.requests), LIMIT
            )

        following = asyncio.create_task(follow())
        await client.create(config_map("a"))
        await until(lambda: ("ADDED", "a") in told, LIMIT)
        await server.restart()
        await followed()
        await client.create(config_map("b"))
        await until(lambda: ("ADDED", "b") in told, LIMIT)
        await server.restart(forget=True)
        await followed()
        await client.delete(ConfigMap, "a")
        await until(lambda: ("DELETED", "a") in told, LIMIT)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
