"""All controllers and the scheduler over the real API server in the same process."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import cluster as served_cluster
from support.client_kubelet import RemoteKubelet
from support.client_wait import running, until

from controlplane.apiserver.app import ServerConfig
from controlplane.apiserver.local_clients import component_clients
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.passage import Passage
from controlplane.client.client import Client, PatchType
from controlplane.client.informer import Informers
from controlplane.control_loop import ControllerSettings, run_controllers
from controlplane.errors import NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, labels, name
from controlplane.resources.catalog import (
    CLUSTER_ROLE,
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    KINDS,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
)
from controlplane.store.memory import MemoryStore


class Cluster:
    """A cluster seen through informers, so that waiting needs no polling of the API."""

    def __init__(self, client: Client, kubelet: RemoteKubelet) -> None:
        self.client = client
        self.kubelet = kubelet
        self.seen = Informers(client)
        for kind in KINDS:
            self.seen.of(kind)

    def all(self, kind: Any, namespace: str = "default") -> list[Object]:
        return self.seen.of(kind).items(namespace)

    def get(self, kind: Any, name_: str, namespace: str = "default") -> Object | None:
        return self.seen.of(kind).get(namespace, name_)

    def endpoints(self, service: str = "web") -> set[str]:
        return {
            endpoint["addresses"][0]
            for each in self.all(ENDPOINT_SLICE)
            if labels(each).get("kubernetes.io/service-name") == service
            for endpoint in each["endpoints"]
            if endpoint["conditions"]["ready"]
        }

    def ready_pods(self) -> list[Object]:
        return [pod for pod in self.all(POD) if conditions.status_of(pod, "Ready") == "True"]

    def rolled_out(self, replicas: int) -> bool:
        """kubectl's rule of `rollout status`."""
        found = self.get(DEPLOYMENT, "web")
        if found is None:
            return False
        status = found.get("status", {})
        return (
            status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            and found["spec"]["replicas"] == replicas
            and status.get("updatedReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
            and status.get("availableReplicas", 0) == replicas
        )

    async def until(self, condition: Any, seconds: float = 10.0) -> Any:
        return await until(condition, seconds)


class Refusals:
    """An observer that notes what the authorizers refuse."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def received(self, passage: Passage) -> None: ...

    def begun(self, passage: Passage) -> None: ...

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        if passage.code == 403 and isinstance(response.body, bytes) and b" cannot " in response.body:
            self.seen.add(response.body.decode())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes, all controllers, each as itself."""
    refusals = Refusals()
    config = ServerConfig(observers=(refusals,))
    async with served_cluster(tmp_path, disabled_admission=(), config=config, store=MemoryStore()) as served:
        clients = component_clients(served.server)
        kubelet = RemoteKubelet(clients.api_server, ("node1", "node2", "node3"))
        made = Cluster(clients.api_server, kubelet)
        controllers = run_controllers(clients, ControllerSettings(pod_gc_quarantine=0.1), "PEM")
        async with running(made.seen.run(), controllers, kubelet.run()):
            yield made
    assert refusals.seen == set(), "a controller lacks rights"


def deployment(image: str = "nginx", replicas: int = 3) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "web", "image": image, "ports": [{"name": "http", "containerPort": 80}]}
                    ]
                },
            },
        },
    }


def service(name_: str = "web") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name_, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }


async def test_from_deployment_to_endpoints_and_back(world: Cluster) -> None:
    await world.client.create(SERVICE, service())
    await world.client.create(DEPLOYMENT, deployment())
    await world.until(lambda: world.rolled_out(3) and len(world.endpoints()) == 3)
    assert Counter(pod["spec"]["nodeName"] for pod in world.all(POD)) == {
        "node1": 1,
        "node2": 1,
        "node3": 1,
    }
    assert all(pod["spec"]["serviceAccountName"] == "default" for pod in world.all(POD))
    subsets = world.get(ENDPOINTS, "web")["subsets"]
    assert len(subsets[0]["addresses"]) == 3
    assert {dig(each, "spec", "podCIDR") for each in world.all(NODE, "")} == {
        f"10.244.{number}.0/24" for number in range(3)
    }
    assert world.get(CONFIG_MAP, "kube-root-ca.crt")["data"]["ca.crt"] == "PEM"
    assert world.get(SERVICE_ACCOUNT, "default", "kube-system")
    reasons = {event["reason"] for event in world.all(EVENT)}
    assert {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "RegisteredNode"} <= reasons

    await world.client.patch(DEPLOYMENT, "web", {"spec": {"replicas": 5}}, "default", subresource="scale")
    await world.until(lambda: world.rolled_out(5) and len(world.endpoints()) == 5)

    image = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:2"}]}}}}
    await world.client.patch(DEPLOYMENT, "web", image, "default", PatchType.STRATEGIC)
    await world.until(
        lambda: (
            world.rolled_out(5)
            and {pod["spec"]["containers"][0]["image"] for pod in world.all(POD)} == {"nginx:2"}
        )
    )
    await world.until(lambda: len(world.endpoints()) == 5)

    old = next(each for each in world.all(REPLICA_SET) if not each["spec"]["replicas"])
    template = old["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    undo = [{"op": "replace", "path": "/spec/template", "value": template}]
    await world.client.patch(DEPLOYMENT, "web", undo, "default", PatchType.JSON)
    await world.until(
        lambda: (
            world.rolled_out(5)
            and {pod["spec"]["containers"][0]["image"] for pod in world.all(POD)} == {"nginx"}
        )
    )
    assert len(world.all(REPLICA_SET)) == 2
    assert annotations_of(world.get(DEPLOYMENT, "web"))["deployment.kubernetes.io/revision"] == "3"

    await world.client.delete(DEPLOYMENT, "web", "default", propagation="Background")
    await world.client.delete(SERVICE, "web", "default")
    await world.until(lambda: not world.all(POD) and not world.all(REPLICA_SET))
    await world.until(lambda: not world.endpoints() and world.get(ENDPOINTS, "web") is None)
    assert [name(each) for each in world.all(ENDPOINT_SLICE)] == ["kubernetes"]


async def test_a_quiet_cluster_writes_nothing(world: Cluster) -> None:
    await world.client.create(SERVICE, service())
    await world.client.create(DEPLOYMENT, deployment())
    await world.until(lambda: world.rolled_out(3) and len(world.endpoints()) == 3)
    await world.until(lambda: "RegisteredNode" in {event["reason"] for event in world.all(EVENT)})

    async def settled() -> None:
        """No write while a dummy object goes through the server a few dozen times."""
        for _ in range(50):
            before = int((await world.client.list(POD)).revision)
            for _ in range(20):
                await world.client.get(NAMESPACE, "default")
            if int((await world.client.list(POD)).revision) == before:
                return
        raise AssertionError("the controllers keep writing")

    await settled()
    revisions = {
        (kind.plural, name(obj)): obj["metadata"]["resourceVersion"]
        for kind in (DEPLOYMENT, REPLICA_SET, POD, ENDPOINT_SLICE, ENDPOINTS)
        for obj in world.all(kind)
    }
    # An unrelated Service makes everything near it be looked at again.
    await world.client.create(SERVICE, service("other"))
    await world.until(lambda: len(world.endpoints("other")) == 3)
    await settled()
    after = {
        (kind.plural, name(obj)): obj["metadata"]["resourceVersion"]
        for kind in (DEPLOYMENT, REPLICA_SET, POD, ENDPOINT_SLICE, ENDPOINTS)
        for obj in world.all(kind)
    }
    assert {key: after[key] for key in revisions} == revisions


async def test_foreground_and_orphan(world: Cluster) -> None:
    await world.client.create(DEPLOYMENT, deployment())
    await world.until(lambda: world.rolled_out(3))
    await world.client.delete(DEPLOYMENT, "web", "default", propagation="Orphan")
    await world.until(lambda: not world.all(DEPLOYMENT))
    [left] = world.all(REPLICA_SET)
    assert "ownerReferences" not in left["metadata"]
    assert len(world.ready_pods()) == 3
    await world.client.delete(REPLICA_SET, name(left), "default", propagation="Foreground")
    await world.until(lambda: not world.all(REPLICA_SET))
    assert not world.all(POD)


async def test_namespaces_come_with_their_furniture_and_go_with_their_content(world: Cluster) -> None:
    await world.client.create(NAMESPACE, {"metadata": {"name": "team"}})
    await world.until(lambda: world.get(SERVICE_ACCOUNT, "default", "team"))
    web = deployment()
    web["metadata"]["namespace"] = "team"
    await world.client.create(DEPLOYMENT, web)
    await world.until(
        lambda: [dig(each, "status", "phase") for each in world.all(POD, "team")] == ["Running"] * 3
    )
    await world.client.delete(NAMESPACE, "team")
    await world.until(lambda: world.get(NAMESPACE, "team", "") is None)
    for kind in KINDS:
        if kind.namespaced:
            assert (await world.client.list(kind, "team")).items == []
    try:
        await world.client.get(NAMESPACE, "team")
    except NotFound:
        return
    raise AssertionError("the namespace is still there")


async def test_a_removed_node_s_pods_are_replaced_elsewhere(world: Cluster) -> None:
    await world.client.create(DEPLOYMENT, deployment(replicas=6))
    await world.until(lambda: world.rolled_out(6))
    await world.client.delete(NODE, "node3")
    await world.until(
        lambda: (
            world.rolled_out(6)
            and {pod["spec"]["nodeName"] for pod in world.ready_pods()} == {"node1", "node2"}
            and len(world.ready_pods()) == 6
        )
    )


async def test_a_hundred_pods(world: Cluster) -> None:
    await world.client.create(SERVICE, service())
    await world.client.create(DEPLOYMENT, deployment(replicas=100))
    await world.until(lambda: world.rolled_out(100) and len(world.endpoints()) == 100, 20)
    counts = Counter(pod["spec"]["nodeName"] for pod in world.all(POD))
    assert max(counts.values()) - min(counts.values()) <= 1


async def test_cluster_roles_aggregate_others(world: Cluster) -> None:
    def role(name_: str, rules: list[Object] | None, label: str = "", **more: Any) -> Object:
        metadata = {"name": name_, "labels": {label: "true"} if label else {}}
        return {"metadata": metadata, "rules": rules, **more}

    selector = {"clusterRoleSelectors": [{"matchLabels": {"to-all": "true"}}]}
    await world.client.create(CLUSTER_ROLE, role("all", None, aggregationRule=selector))
    pods = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    await world.client.create(CLUSTER_ROLE, role("part", [pods], "to-all"))

    def rules(name_: str = "all") -> Any:
        return (world.seen.of(CLUSTER_ROLE).get("", name_) or {}).get("rules")

    await world.until(lambda: rules() == [pods])
    # The default roles take what is labelled for them.
    things = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}
    label = "rbac.authorization.k8s.io/aggregate-to-view"
    await world.client.create(CLUSTER_ROLE, role("crd", [things], label))
    await world.until(lambda: all(things in (rules(n) or ()) for n in ("view", "edit", "admin")))
    await world.client.delete(CLUSTER_ROLE, "part")
    await world.until(lambda: rules() == [])
