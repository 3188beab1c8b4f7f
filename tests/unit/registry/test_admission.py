"""The admission plug-ins on a registry with real kinds, and what every cluster starts with."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.apiserver.admission import (
    AdmissionRequest,
    DefaultTolerations,
    NamespaceLifecycle,
    Operation,
    ServiceAccountAdmission,
)
from controlplane.apiserver.allocation import ServiceAllocator
from controlplane.apiserver.bootstrap import bootstrap
from controlplane.apiserver.registry import (
    DeleteOptions,
    ListOptions,
    PatchType,
    Registry,
    UserInfo,
    WriteOptions,
)
from controlplane.errors import Forbidden, NotFound
from controlplane.resources.catalog import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    ENDPOINTS,
    KINDS,
    NAMESPACE,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
)
from controlplane.store.memory import MemoryStore

WRITE = WriteOptions()
SERVICE_IP = ipaddress.IPv4Address("10.96.0.1")
API_SERVER = ipaddress.IPv4Address("172.18.0.2")


class Recorder:
    """Notes what it is asked, changes nothing."""

    def __init__(self) -> None:
        self.seen: list[AdmissionRequest] = []

    async def admit(self, request: AdmissionRequest) -> None:
        self.seen.append(request)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def registry(recorder: Recorder) -> AsyncIterator[Registry]:
    store = MemoryStore()
    registry = Registry(
        store,
        KINDS,
        admission=[
            NamespaceLifecycle(), ServiceAccountAdmission(pause=0.001), DefaultTolerations(300, 200), recorder,
        ],
        allocators=[ServiceAllocator([ipaddress.ip_network("10.96.0.0/12")])],
    )  # fmt: skip
    await registry.start()
    await bootstrap(registry, SERVICE_IP, [API_SERVER], 6443)
    yield registry
    await registry.close()
    await store.close()


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec}}


async def account(registry: Registry, namespace: str = "default", name: str = "default") -> None:
    await registry.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": name}}, WRITE)


async def test_what_every_cluster_has(registry: Registry) -> None:
    namespaces = (await registry.list(NAMESPACE, "", ListOptions())).items
    assert [stored.object["metadata"]["name"] for stored in namespaces] == [
        "default", "kube-node-lease", "kube-public", "kube-system",
    ]  # fmt: skip
    service = (await registry.get(SERVICE, "default", "kubernetes")).object["spec"]
    assert service["clusterIPs"] == ["10.96.0.1"]
    assert (service["ports"][0]["port"], service["ports"][0]["targetPort"]) == (443, 6443)
    subsets = (await registry.get(ENDPOINTS, "default", "kubernetes")).object["subsets"]
    assert subsets[0]["addresses"][0]["ip"] == "172.18.0.2"
    piece = (await registry.get(ENDPOINT_SLICE, "default", "kubernetes")).object
    assert piece["endpoints"][0]["addresses"] == ["172.18.0.2"]
    assert piece["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}


async def test_bootstrap_again_changes_only_what_is_new(registry: Registry) -> None:
    before = await registry.revision()
    await bootstrap(registry, SERVICE_IP, [API_SERVER], 6443)
    assert await registry.revision() == before
    await bootstrap(registry, SERVICE_IP, [ipaddress.IPv4Address("172.18.0.9")], 7443)
    subsets = (await registry.get(ENDPOINTS, "default", "kubernetes")).object["subsets"]
    assert subsets[0]["addresses"][0]["ip"] == "172.18.0.9"
    assert subsets[0]["ports"][0]["port"] == 7443
    await bootstrap(registry, SERVICE_IP, [], 7443)
    assert not (await registry.get(ENDPOINTS, "default", "kubernetes")).object.get("subsets")


async def test_nothing_is_created_where_no_namespace_is(registry: Registry) -> None:
    with pytest.raises(NotFound, match=r'^namespaces "nowhere" not found$'):
        await registry.create(CONFIG_MAP, "nowhere", {"metadata": {"name": "a"}}, WRITE)


async def test_nothing_is_created_in_a_namespace_that_goes(registry: Registry) -> None:
    await registry.create(NAMESPACE, "", {"metadata": {"name": "shop"}}, WRITE)
    await registry.delete(NAMESPACE, "", "shop", DeleteOptions())
    with pytest.raises(Forbidden) as caught:
        await registry.create(CONFIG_MAP, "shop", {"metadata": {"name": "a"}}, WRITE)
    assert str(caught.value) == (
        'configmaps "a" is forbidden: unable to create new content in namespace shop because it is being '
        "terminated"
    )
    assert [cause.reason for cause in caught.value.causes] == ["NamespaceTerminating"]


async def test_a_real_namespace_goes_in_two_phases(registry: Registry) -> None:
    await registry.create(NAMESPACE, "", {"metadata": {"name": "shop"}}, WRITE)
    stored, gone = await registry.delete(NAMESPACE, "", "shop", DeleteOptions())
    assert (stored.object["status"]["phase"], gone) == ("Terminating", False)
    body = {**stored.object, "spec": {"finalizers": []}}
    await registry.update(NAMESPACE, "", "shop", body, WRITE, "finalize")
    with pytest.raises(NotFound):
        await registry.get(NAMESPACE, "", "shop")


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_some_namespaces_stay(registry: Registry, name: str) -> None:
    with pytest.raises(
        Forbidden, match=f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    ):
        await registry.delete(NAMESPACE, "", name, DeleteOptions())


async def test_a_pod_gets_the_default_account(registry: Registry) -> None:
    await account(registry)
    spec = (await registry.create(POD, "default", pod("a"), WRITE)).object["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")


async def test_a_pod_waits_a_moment_for_the_account_of_a_new_namespace(registry: Registry) -> None:
    creating = asyncio.create_task(registry.create(POD, "default", pod("a"), WRITE))
    await asyncio.sleep(0)
    await account(registry)
    assert (await creating).object["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize("name", ["default", "robot"])
async def test_a_pod_without_its_account_is_forbidden(registry: Registry, name: str) -> None:
    with pytest.raises(Forbidden) as caught:
        await registry.create(POD, "default", pod("a", serviceAccountName=name), WRITE)
    assert str(caught.value) == (
        f'pods "a" is forbidden: error looking up service account default/{name}: '
        f'serviceaccount "{name}" not found'
    )


async def test_pods_tolerate_lost_nodes_for_a_while(registry: Registry) -> None:
    await account(registry)
    spec = (await registry.create(POD, "default", pod("a"), WRITE)).object["spec"]
    assert [(item["key"], item["tolerationSeconds"]) for item in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 200),
    ]
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
    spec = (await registry.create(POD, "default", pod("b", tolerations=[own]), WRITE)).object["spec"]
    assert [item["key"] for item in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert "tolerationSeconds" not in spec["tolerations"][0]
    everything = {"operator": "Exists"}
    spec = (await registry.create(POD, "default", pod("c", tolerations=[everything]), WRITE)).object["spec"]
    assert spec["tolerations"] == [everything]


async def test_plug_ins_see_every_write_with_what_was_there(registry: Registry, recorder: Recorder) -> None:
    recorder.seen.clear()
    user = UserInfo("anna")
    write = WriteOptions(user=user, dry_run=True)
    await registry.create(CONFIG_MAP, "default", {"metadata": {"name": "a"}}, WriteOptions(user=user))
    await registry.patch(CONFIG_MAP, "default", "a", PatchType.MERGE, {"data": {"x": "1"}}, write)
    await registry.delete(CONFIG_MAP, "default", "a", DeleteOptions(user=user))
    seen = [(request.operation, request.old is None, request.obj is None) for request in recorder.seen]
    assert seen == [
        (Operation.CREATE, True, False),
        (Operation.UPDATE, False, False),
        (Operation.DELETE, False, True),
    ]
    assert [request.dry_run for request in recorder.seen] == [False, True, False]
    assert {(request.name, request.namespace, request.user.name) for request in recorder.seen} == {
        ("a", "default", "anna")
    }
