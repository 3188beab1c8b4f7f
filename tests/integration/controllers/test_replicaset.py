"""The ReplicaSet controller against an API in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from support.client_fake import FakeApi
from support.client_kubelet import Kubelet
from support.client_objects import pod, replica_set
from support.client_wait import running, until

from controlplane import errors
from controlplane.client.informer import Informers
from controlplane.controllers.replicaset.controller import ReplicaSetController
from controlplane.controllers.replicaset.flavours import REPLICATION_CONTROLLERS
from controlplane.controllers.replicaset.ranking import pods_to_delete
from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, labels, name
from controlplane.meta.owners import controller_of
from controlplane.resources.catalog import EVENT, POD, REPLICA_SET, REPLICATION_CONTROLLER


@asynccontextmanager
async def controller(api: FakeApi, *, kubelet: Kubelet | None = None):
    client = api.client()
    informers = Informers(client)
    subject = ReplicaSetController(client, informers)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(informers.run(), subject.run()))
        if kubelet is not None:
            await stack.enter_async_context(running(kubelet.run()))
        yield


def status(api: FakeApi, field: str) -> int:
    return dig(api.get(REPLICA_SET, "web", "default"), "status", field, default=0)


async def test_creates_pods_and_reports_status_and_events() -> None:
    api = FakeApi()
    created = await api.client().create(REPLICA_SET, replica_set())
    async with controller(api, kubelet=Kubelet(api)):
        await until(lambda: status(api, "availableReplicas") == 3)
        await until(lambda: len(api.all(EVENT)) == 3)
    pods = api.all(POD)
    assert len(pods) == 3
    for each in pods:
        assert name(each).startswith("web-")
        assert len(name(each)) == len("web-") + 5
        assert controller_of(each) == {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "web",
            "uid": created["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    state = api.get(REPLICA_SET, "web", "default")["status"]
    assert state == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "observedGeneration": 1,
    }
    event = api.all(EVENT)[0]
    assert (event["type"], event["reason"]) == ("Normal", "SuccessfulCreate")
    assert event["message"].startswith("Created pod: web-")
    assert event["source"] == {"component": "replicaset-controller"}


async def test_a_lagging_cache_never_leads_to_too_many_pods() -> None:
    api = FakeApi()
    async with controller(api, kubelet=(kubelet := Kubelet(api))):
        await until(lambda: api.watches == 3)
        api.hold(POD)
        await api.client().create(REPLICA_SET, replica_set(replicas=20))
        await until(lambda: len(api.all(POD)) == 20)
        for step in range(1, 6):
            api.edit(REPLICA_SET, "web", "default", lambda obj, n=step: obj["spec"].update(minReadySeconds=n))
            await until(lambda n=step: status(api, "observedGeneration") == n + 1)
        api.edit(REPLICA_SET, "web", "default", lambda obj: obj["spec"].update(minReadySeconds=0))
        api.release()
        await until(lambda: status(api, "availableReplicas") == 20)
    assert kubelet.most == 20


async def test_a_lagging_cache_never_leads_to_too_few_pods() -> None:
    api = FakeApi()
    await api.client().create(REPLICA_SET, replica_set(replicas=10))
    kubelet = Kubelet(api)
    async with controller(api, kubelet=kubelet):
        await until(lambda: status(api, "readyReplicas") == 10)
        kubelet.removes = False
        api.hold(POD)
        for size in (8, 7, 6, 5):
            api.edit(REPLICA_SET, "web", "default", lambda obj, n=size: obj["spec"].update(replicas=n))
            generation = api.get(REPLICA_SET, "web", "default")["metadata"]["generation"]
            await until(lambda n=generation: status(api, "observedGeneration") == n)
        api.release()
        await until(lambda: status(api, "replicas") == 5)
        leaving = [each for each in api.all(POD) if each["metadata"].get("deletionTimestamp")]
        assert len(leaving) == 5


async def test_relabelled_pod_is_released_and_replaced_then_adopted_again() -> None:
    api = FakeApi()
    await api.client().create(REPLICA_SET, replica_set(replicas=2))
    async with controller(api, kubelet=Kubelet(api)):
        await until(lambda: status(api, "readyReplicas") == 2)
        lost = name(api.all(POD)[0])
        api.edit(POD, lost, "default", lambda obj: obj["metadata"].update(labels={"app": "debug"}))
        await until(lambda: len(api.all(POD)) == 3)
        await until(lambda: controller_of(api.get(POD, lost, "default")) is None)
        assert labels(api.get(POD, lost, "default")) == {"app": "debug"}
        api.edit(POD, lost, "default", lambda obj: obj["metadata"].update(labels={"app": "web"}))
        await until(lambda: len(api.all(POD)) == 2)
        assert all(controller_of(each) for each in api.all(POD))


async def test_adopts_a_matching_orphan_instead_of_creating() -> None:
    api = FakeApi()
    await api.client().create(POD, pod("orphan", {"app": "web"}))
    await api.client().create(REPLICA_SET, replica_set(replicas=1))
    async with controller(api, kubelet=Kubelet(api)):
        await until(lambda: status(api, "readyReplicas") == 1)
    assert [name(each) for each in api.all(POD)] == ["orphan"]


async def test_scaling_down_and_a_killed_pod() -> None:
    api = FakeApi()
    await api.client().create(REPLICA_SET, replica_set(replicas=4))
    async with controller(api, kubelet=Kubelet(api)):
        await until(lambda: status(api, "readyReplicas") == 4)
        await api.client().delete(POD, name(api.all(POD)[0]), "default")
        await until(lambda: status(api, "readyReplicas") == 4 and len(api.all(POD)) == 4)
        api.edit(REPLICA_SET, "web", "default", lambda obj: obj["spec"].update(replicas=1))
        await until(lambda: len(api.all(POD)) == 1 and status(api, "replicas") == 1)
        await until(lambda: any(e["reason"] == "SuccessfulDelete" for e in api.all(EVENT)))


async def test_a_refused_creation_is_reported_and_tried_again_slowly() -> None:
    api = FakeApi()
    await api.client().create(REPLICA_SET, replica_set(replicas=100))

    def refuse(method: str, path: str, body: Object | None) -> errors.StatusError | None:
        if (method, path.rsplit("/", 1)[-1]) == ("POST", "pods"):
            return errors.Forbidden("pods is forbidden: no service account")
        return None

    api.reject.append(refuse)
    async with controller(api, kubelet=Kubelet(api)):
        conditions = await until(lambda: dig(api.get(REPLICA_SET, "web", "default"), "status", "conditions"))
        assert conditions[0]["type"] == "ReplicaFailure"
        assert conditions[0]["reason"] == "FailedCreate"
        event = await until(lambda: next(iter(api.all(EVENT)), None))
        assert event["reason"] == "FailedCreate"
        assert event["message"] == "Error creating: pods is forbidden: no service account"
        attempts = [call for call in api.calls if call[0] == "POST" and call[1].endswith("/pods")]
        assert len(attempts) < 20, "one call per try, not one per missing pod"
        api.reject.clear()
        await until(lambda: status(api, "readyReplicas") == 100)
        await until(lambda: "conditions" not in api.get(REPLICA_SET, "web", "default")["status"])


async def test_a_terminating_namespace_is_no_failure() -> None:
    api = FakeApi()
    await api.client().create(REPLICA_SET, replica_set(replicas=1))
    tried = []

    def refuse(method: str, path: str, body: Object | None) -> errors.StatusError | None:
        if (method, path.rsplit("/", 1)[-1]) == ("POST", "pods"):
            tried.append(path)
            cause = Cause(
                "NamespaceTerminating", "namespace default is being terminated", "metadata.namespace"
            )
            return errors.Forbidden("being terminated", causes=[cause])
        return None

    api.reject.append(refuse)
    async with controller(api):
        await until(lambda: tried)
        await until(lambda: status(api, "observedGeneration") == 1)
    assert api.all(EVENT) == []


async def test_min_ready_seconds_delays_availability() -> None:
    api = FakeApi()
    # Timestamps are cut to seconds: one second might be over at once.
    await api.client().create(REPLICA_SET, replica_set(replicas=1, minReadySeconds=2))
    async with controller(api, kubelet=Kubelet(api)):
        await until(lambda: status(api, "readyReplicas") == 1)
        assert status(api, "availableReplicas") == 0
        await until(lambda: status(api, "availableReplicas") == 1)


def test_order_of_deletion() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def one(
        name_: str, node: str = "n1", phase: str = "Running", ready: str = "11:00", restarts: int = 0
    ) -> Object:
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": f"2026-01-01T{ready or '11:00'}:00Z",
        }
        return {
            "metadata": {"name": name_, "uid": name_, "creationTimestamp": "2026-01-01T10:00:00Z"},
            "spec": {"nodeName": node} if node else {},
            "status": {
                "phase": phase,
                "conditions": [condition],
                "containerStatuses": [{"restartCount": restarts}],
            },
        }

    unassigned = one("unassigned", node="", phase="Pending", ready="")
    pending = one("pending", phase="Pending", ready="")
    unready = one("unready", ready="")
    cheap = one("cheap")
    cheap["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "-5"}
    crowded = one("crowded", node="full")
    crowded2 = one("crowded2", node="full", ready="08:00")
    fresh = one("fresh", ready="11:59")
    restarted = one("restarted", ready="09:00", restarts=3)
    old = one("old", ready="09:00")
    pods = [old, restarted, fresh, crowded2, crowded, cheap, unready, pending, unassigned]
    elsewhere = [one(f"other{i}", node="full") for i in range(6)]
    chosen = pods_to_delete(pods, [*pods, *elsewhere], 8, moment)
    assert [name(each) for each in chosen] == [
        "unassigned",
        "pending",
        "unready",
        "cheap",
        "crowded",
        "crowded2",
        "fresh",
        "restarted",
    ]


async def test_a_replication_controller_is_driven_by_the_same_engine() -> None:
    api = FakeApi()
    spec = {"replicas": 2, "selector": {"app": "web"}, "template": replica_set()["spec"]["template"]}
    owner = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    }
    await api.client().create(REPLICATION_CONTROLLER, owner)
    await api.client().create(POD, pod("mine", {"app": "web"}))
    client = api.client()
    informers = Informers(client)
    subject = ReplicaSetController(client, informers, REPLICATION_CONTROLLERS)

    def state() -> Object:
        return dig(api.get(REPLICATION_CONTROLLER, "web", "default"), "status", default={})

    def refuse(method: str, path: str, body: Object | None) -> errors.StatusError | None:
        return errors.Forbidden("exceeded quota") if method == "POST" and path.endswith("/pods") else None

    async with running(informers.run(), subject.run(), Kubelet(api).run()):
        await until(lambda: state().get("availableReplicas") == 2)
        assert {controller_of(each)["kind"] for each in api.all(POD)} == {"ReplicationController"}
        assert "mine" in {name(each) for each in api.all(POD)}
        await until(lambda: api.all(EVENT))
        assert api.all(EVENT)[0]["source"] == {"component": "replication-controller"}
        api.reject.append(refuse)
        api.edit(REPLICATION_CONTROLLER, "web", "default", lambda obj: obj["spec"].update(replicas=3))
        await until(lambda: state().get("conditions"))
        [condition] = state()["conditions"]
        assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert condition["message"] == "exceeded quota"
        api.edit(REPLICATION_CONTROLLER, "web", "default", lambda obj: obj["spec"].update(replicas=2))
        await until(lambda: not state().get("conditions"))
