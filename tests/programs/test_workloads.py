"""Workloads as kubectl handles them: the real kubectl, the real controllers, kubelets that only report."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.apiserver import Served
from support.client_kubelet import RemoteKubelet
from support.client_wait import running, until
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

from controlplane.apiserver.local_clients import component_clients
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.local import LocalTransport
from controlplane.control_loop import ControllerSettings, run_controllers
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name
from controlplane.meta.owners import controller_of
from controlplane.resources.catalog import (
    CONTROLLER_REVISION,
    DAEMON_SET,
    NODE,
    POD,
    REPLICATION_CONTROLLER,
    STATEFUL_SET,
)

pytestmark = pytest.mark.kubectl

ADMIN = UserInfo("controllers", groups=("system:masters", "system:authenticated"))

TEMPLATE = """
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: "nginx:1", ports: [{containerPort: 80}]}
"""
DAEMON = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
""" + TEMPLATE.replace("NAME", "agent")
STATEFUL = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
""" + TEMPLATE.replace("NAME", "db")
CONTROLLER = """
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
""" + TEMPLATE.replace("NAME", "old")


class World:
    """What the cluster holds, seen through informers."""

    def __init__(self, client: Client, kubelet: RemoteKubelet) -> None:
        self.client = client
        self.kubelet = kubelet
        self.seen = Informers(client)
        for kind in (POD, NODE, DAEMON_SET, STATEFUL_SET, REPLICATION_CONTROLLER, CONTROLLER_REVISION):
            self.seen.of(kind)

    def pods(self, app: str) -> list[Object]:
        return [pod for pod in self.seen.of(POD).items("default") if labels(pod).get("app") == app]

    def get(self, kind: Any, name_: str) -> Object:
        return self.seen.of(kind).get("default", name_) or {}

    def images(self, app: str) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods(app)}


@pytest.fixture
async def world(api: Served) -> AsyncIterator[World]:
    client = Client(LocalTransport(api.server.handle, ADMIN, ApiRequest))
    world = World(client, RemoteKubelet(client, ("node1", "node2", "node3")))
    settings = ControllerSettings(pod_gc_quarantine=0.1)
    async with running(
        world.seen.run(), run_controllers(component_clients(api.server), settings, "PEM"), world.kubelet.run()
    ):
        await until(lambda: len(world.seen.of(NODE)) == 3)
        yield world


@needs_kubectl(27)
async def test_a_daemon_set_from_apply_to_undo(kubectl: Kubectl, world: World) -> None:
    await kubectl("apply", "-f", kubectl.write("agent.yaml", DAEMON))
    assert await kubectl("rollout", "status", "ds/agent", "--timeout=30s") != ""
    assert {dig(pod, "spec", "nodeName") for pod in world.pods("agent")} == {"node1", "node2", "node3"}
    shown = (await kubectl("get", "ds", "-o", "wide")).split("\n")
    assert " ".join(shown[0].split()) == (
        "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE CONTAINERS IMAGES SELECTOR"
    )
    row = shown[1].split()
    assert (row[:7], row[-3:]) == (
        ["agent", "3", "3", "3", "3", "3", "<none>"],
        ["c", "nginx:1", "app=agent"],
    )
    assert await kubectl("set", "image", "ds/agent", "c=nginx:2") == "daemonset.apps/agent image updated\n"
    status = await kubectl("rollout", "status", "ds/agent", "--timeout=30s")
    assert 'daemon set "agent" successfully rolled out' in status
    assert world.images("agent") == {"nginx:2"}
    assert await kubectl("rollout", "history", "ds/agent") == (
        "daemonset.apps/agent \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    )
    detail = await kubectl("rollout", "history", "ds/agent", "--revision=1")
    assert "daemonset.apps/agent with revision #1" in detail
    assert "nginx:1" in detail
    skipped = await kubectl("rollout", "undo", "ds/agent", "--to-revision=2")
    assert "skipped rollback (current template already matches revision 2)" in skipped
    assert await kubectl("rollout", "undo", "ds/agent") == "daemonset.apps/agent rolled back\n"
    await until(lambda: world.images("agent") == {"nginx:1"} and len(world.pods("agent")) == 3, 20)
    assert "3         <none>" in await kubectl("rollout", "history", "ds/agent")
    assert await kubectl("rollout", "restart", "ds/agent") == "daemonset.apps/agent restarted\n"
    await kubectl("rollout", "status", "ds/agent", "--timeout=30s")
    described = await kubectl("describe", "ds", "agent")
    assert "Desired Number of Nodes Scheduled: 3" in described
    assert "Pods Status:  3 Running / 0 Waiting / 0 Succeeded / 0 Failed" in described
    assert "SuccessfulCreate" in described
    refused = await kubectl.fails("rollout", "pause", "ds/agent")
    assert 'daemonsets.apps "agent" pausing is not supported' in refused


@needs_kubectl(27)
async def test_a_stateful_set_from_apply_to_undo(kubectl: Kubectl, world: World) -> None:
    await kubectl("apply", "-f", kubectl.write("db.yaml", STATEFUL))
    await kubectl("rollout", "status", "sts/db", "--timeout=30s")
    assert sorted(name(pod) for pod in world.pods("db")) == ["db-0", "db-1", "db-2"]
    shown = (await kubectl("get", "sts", "-o", "wide")).split("\n")
    assert shown[0].split() == ["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"]
    assert shown[1].split()[:2] == ["db", "3/3"]
    slices = json.loads(await kubectl("get", "endpointslices", "-o", "json"))
    named = {
        endpoint.get("hostname")
        for each in slices["items"]
        if each["metadata"]["labels"].get("kubernetes.io/service-name") == "db"
        for endpoint in each["endpoints"]
    }
    assert named == {"db-0", "db-1", "db-2"}
    assert await kubectl("set", "image", "sts/db", "c=nginx:2") == "statefulset.apps/db image updated\n"
    await kubectl("rollout", "status", "sts/db", "--timeout=30s")
    await until(lambda: world.images("db") == {"nginx:2"}, 20)
    assert await kubectl("rollout", "history", "sts/db") == (
        "statefulset.apps/db \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    )
    assert (
        await kubectl("rollout", "undo", "sts/db", "--to-revision=1") == "statefulset.apps/db rolled back\n"
    )
    await until(lambda: world.images("db") == {"nginx:1"}, 20)
    await kubectl("rollout", "status", "sts/db", "--timeout=30s")
    assert await kubectl("scale", "sts/db", "--replicas=1") == "statefulset.apps/db scaled\n"
    await until(lambda: [name(pod) for pod in world.pods("db")] == ["db-0"], 20)
    described = await kubectl("describe", "sts", "db")
    assert "Update Strategy:    RollingUpdate" in described
    assert "delete Pod db-2 in StatefulSet db successful" in described
    refused = await kubectl.fails("patch", "sts", "db", "-p", '{"spec":{"serviceName":"other"}}')
    assert (
        "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
        "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    ) in refused


@needs_kubectl(27)
async def test_a_replication_controller_keeps_scales_and_is_shown(kubectl: Kubectl, world: World) -> None:
    await kubectl("apply", "-f", kubectl.write("old.yaml", CONTROLLER))
    await until(lambda: dig(world.get(REPLICATION_CONTROLLER, "old"), "status", "readyReplicas") == 2)
    shown = (await kubectl("get", "rc", "-o", "wide")).split("\n")
    assert " ".join(shown[0].split()) == "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR"
    assert shown[1].split()[:4] == ["old", "2", "2", "2"]
    assert await kubectl("scale", "rc/old", "--current-replicas=2", "--replicas=3") == (
        "replicationcontroller/old scaled\n"
    )
    await until(lambda: dig(world.get(REPLICATION_CONTROLLER, "old"), "status", "readyReplicas") == 3)
    assert "3 Running" in await kubectl("describe", "rc", "old")
    everything = await kubectl("get", "all")
    assert "replicationcontroller/old" in everything
    before = {name(pod) for pod in world.pods("old")}
    await kubectl("delete", "rc", "old", "--cascade=orphan")
    await until(lambda: not world.get(REPLICATION_CONTROLLER, "old"))
    await until(lambda: all(controller_of(pod) is None for pod in world.pods("old")))
    assert {name(pod) for pod in world.pods("old")} == before
    await kubectl("create", "-f", kubectl.write("old.yaml", CONTROLLER.replace("replicas: 2", "replicas: 3")))
    await until(lambda: all(controller_of(pod) is not None for pod in world.pods("old")))
    assert {name(pod) for pod in world.pods("old")} == before
    await kubectl("delete", "rc", "old")
    await until(lambda: not world.pods("old"))


@needs_kubectl(27)
async def test_a_replication_controller_leaves_its_pods_to_clients_that_ask_for_nothing_else(
    kubectl: Kubectl, world: World, api: Served
) -> None:
    await kubectl("create", "-f", kubectl.write("old.yaml", CONTROLLER))
    await until(lambda: len(world.pods("old")) == 2)
    await api.json("DELETE", "/api/v1/namespaces/default/replicationcontrollers?labelSelector=app=old")
    await until(lambda: not world.get(REPLICATION_CONTROLLER, "old"))
    assert [controller_of(pod) for pod in world.pods("old")] == [None, None]


@needs_kubectl(27)
async def test_deleting_with_every_cascade(kubectl: Kubectl, world: World) -> None:
    path = kubectl.write("both.yaml", f"{DAEMON}---{STATEFUL}")
    await kubectl("apply", "-f", path)
    for target in ("ds/agent", "sts/db"):
        await kubectl("rollout", "status", target, "--timeout=30s")
    before = {name(pod): pod["metadata"]["uid"] for pod in [*world.pods("agent"), *world.pods("db")]}
    await kubectl("delete", "ds/agent", "sts/db", "--cascade=orphan")
    await until(lambda: all(controller_of(pod) is None for pod in [*world.pods("agent"), *world.pods("db")]))
    await kubectl("apply", "-f", path)
    for target in ("ds/agent", "sts/db"):
        await kubectl("rollout", "status", target, "--timeout=30s")
    after = {name(pod): pod["metadata"]["uid"] for pod in [*world.pods("agent"), *world.pods("db")]}
    assert after == before
    revisions = world.seen.of(CONTROLLER_REVISION)
    await until(lambda: all(controller_of(each) for each in revisions.items("default")))
    assert len(revisions) == 2
    await kubectl("delete", "sts/db", "--cascade=foreground")
    assert not world.pods("db")
    await kubectl("delete", "ds/agent")
    await until(lambda: not world.pods("agent") and not len(revisions))


@needs_kubectl(27)
async def test_claims_of_a_stateful_set_keep_its_pod_waiting_and_say_why(
    kubectl: Kubectl, world: World
) -> None:
    claimed = STATEFUL + (
        "  volumeClaimTemplates:\n  - metadata: {name: www}\n    spec:\n      accessModes: [ReadWriteOnce]\n"
        "      resources: {requests: {storage: 1Gi}}\n"
    )
    await kubectl("apply", "-f", kubectl.write("db.yaml", claimed))
    told = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."

    def reason() -> bool:
        listed = dig(next(iter(world.pods("db")), {}), "status", "conditions", default=[])
        return any(told in each.get("message", "") for each in listed)

    await until(reason)
    assert "www-db-0" in await kubectl("get", "pvc")
    # Claim templates are one value to a patch, so kubectl always sends them; nothing changes by that.
    assert await kubectl("diff", "-f", kubectl.write("db.yaml", claimed)) == ""
    bound = {"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}
    await kubectl("patch", "pvc", "www-db-0", "-p", json.dumps({"spec": {"volumeName": "pv1"}, **bound}))
    await kubectl("create", "-f", kubectl.write("pv.yaml", PV))
    await until(lambda: any(dig(pod, "spec", "nodeName") for pod in world.pods("db")), 20)


PV = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv1}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/pv1}}
"""


@needs_kubectl(27)
async def test_set_changes_templates_of_each_workload(kubectl: Kubectl, world: World) -> None:
    await kubectl("apply", "-f", kubectl.write("all.yaml", f"{DAEMON}---{STATEFUL}---{CONTROLLER}"))
    for target in ("ds/agent", "sts/db"):
        await kubectl("set", "env", target, "COLOUR=red")
        await kubectl("set", "resources", target, "--limits=cpu=200m")
        await kubectl("set", "serviceaccount", target, "default")
        spec = json.loads(await kubectl("get", target, "-o", "json"))["spec"]["template"]["spec"]
        assert spec["containers"][0]["env"] == [{"name": "COLOUR", "value": "red"}]
        assert spec["containers"][0]["resources"] == {"limits": {"cpu": "200m"}}
        assert spec["serviceAccountName"] == "default"
        await kubectl("rollout", "status", target, "--timeout=30s")
    await kubectl("set", "image", "rc/old", "c=nginx:3")
    assert world.images("old") == {"nginx:1"}
