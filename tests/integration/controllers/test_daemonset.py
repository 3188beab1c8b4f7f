"""The DaemonSet controller against an API in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

from support.client_fake import FakeApi
from support.client_kubelet import Kubelet
from support.client_objects import daemon_set, node, pod
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.daemonset.controller import DaemonSetController
from controlplane.controllers.daemonset.placement import node_of
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, uid
from controlplane.meta.owners import controller_of
from controlplane.resources.catalog import CONTROLLER_REVISION, DAEMON_SET, EVENT, NODE, POD

HASH = "controller-revision-hash"


@asynccontextmanager
async def controller(api: FakeApi, *, kubelet: Kubelet | None = None):
    client = api.client()
    informers = Informers(client)
    subject = DaemonSetController(client, informers)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(informers.run(), subject.run()))
        if kubelet is not None:
            await stack.enter_async_context(running(kubelet.run()))
        yield


async def cluster(*nodes: Object) -> FakeApi:
    api = FakeApi()
    for each in nodes or tuple(node(f"node{number}") for number in (1, 2, 3)):
        await api.client().create(NODE, each)
    return api


def kubelet(api: FakeApi) -> Kubelet:
    """Binds daemons to the node they are meant for."""
    found = Kubelet(api)
    found.place = node_of
    return found


def status(api: FakeApi) -> Object:
    return dig(api.get(DAEMON_SET, "agent", "default"), "status", default={})


def places(api: FakeApi) -> list[str]:
    return sorted(node_of(each) for each in api.all(POD) if not each["metadata"].get("deletionTimestamp"))


def images(api: FakeApi) -> set[str]:
    return {each["spec"]["containers"][0]["image"] for each in api.all(POD)}


def set_image(api: FakeApi, image: str) -> None:
    def change(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        marks = obj["metadata"]["annotations"]
        marks["deprecated.daemonset.template.generation"] = str(
            int(marks["deprecated.daemonset.template.generation"]) + 1
        )

    api.edit(DAEMON_SET, "agent", "default", change)


async def test_one_pod_on_every_node_and_the_status_and_events_that_say_so() -> None:
    api = await cluster()
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 3)
        await until(lambda: len(api.all(EVENT)) == 3)
    assert status(api) == {
        "currentNumberScheduled": 3,
        "desiredNumberScheduled": 3,
        "numberMisscheduled": 0,
        "numberReady": 3,
        "numberAvailable": 3,
        "updatedNumberScheduled": 3,
        "observedGeneration": 1,
    }
    assert places(api) == ["node1", "node2", "node3"]
    [revision] = api.all(CONTROLLER_REVISION)
    assert revision["revision"] == 1
    assert name(revision) == f"agent-{labels(revision)[HASH]}"
    assert revision["data"]["spec"]["template"]["$patch"] == "replace"
    for each in api.all(POD):
        assert labels(each) == {"app": "web", HASH: labels(revision)[HASH], "pod-template-generation": "1"}
        assert name(each).startswith("agent-")
        keys = [(each["key"], each["effect"]) for each in each["spec"]["tolerations"]]
        assert ("node.kubernetes.io/unschedulable", "NoSchedule") in keys
        assert ("node.kubernetes.io/network-unavailable", "NoSchedule") not in keys
    event = api.all(EVENT)[0]
    assert (event["reason"], event["source"]) == ("SuccessfulCreate", {"component": "daemonset-controller"})


async def test_nodes_come_are_relabelled_tainted_and_go() -> None:
    api = await cluster(node("node1", labels={"disk": "fast"}), node("node2"))
    spec = daemon_set()
    spec["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    await api.client().create(DAEMON_SET, spec)
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: places(api) == ["node1"])
        await api.client().create(NODE, node("node3", labels={"disk": "fast"}))
        await until(lambda: places(api) == ["node1", "node3"])
        api.edit(NODE, "node2", "", lambda obj: obj["metadata"]["labels"].update(disk="fast"))
        await until(lambda: places(api) == ["node1", "node2", "node3"])
        api.edit(NODE, "node1", "", lambda obj: obj["metadata"]["labels"].pop("disk"))
        await until(lambda: places(api) == ["node2", "node3"])
        # A pod that is there stays under NoSchedule and counts as misplaced, not under NoExecute.
        taint = {"key": "mine", "effect": "NoSchedule"}
        api.edit(NODE, "node2", "", lambda obj: obj["spec"].update(taints=[taint]))
        await until(lambda: status(api).get("numberMisscheduled") == 1)
        assert places(api) == ["node2", "node3"]
        api.edit(NODE, "node2", "", lambda obj: obj["spec"].update(taints=[{**taint, "effect": "NoExecute"}]))
        await until(lambda: places(api) == ["node3"])
        api.remove(NODE, "node3")
        await until(lambda: status(api).get("desiredNumberScheduled") == 0)


async def test_a_rolling_update_replaces_one_pod_after_the_other_and_undo_brings_the_old_revision_back() -> (
    None
):
    api = await cluster()
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 3)
        old = {uid(each) for each in api.all(POD)}
        least: list[int] = []
        set_image(api, "nginx:2")

        def done() -> bool:
            least.append(status(api).get("numberAvailable", 0))
            state = status(api)
            return state.get("observedGeneration") == 2 and state.get("updatedNumberScheduled") == 3

        await until(done)
        await until(lambda: status(api).get("numberAvailable") == 3)
        assert min(least) >= 2
        assert images(api) == {"nginx:2"}
        assert not old & {uid(each) for each in api.all(POD)}
        assert sorted(each["revision"] for each in api.all(CONTROLLER_REVISION)) == [1, 2]
        set_image(api, "nginx")
        await until(lambda: images(api) == {"nginx"} and status(api).get("updatedNumberScheduled") == 3)
        assert sorted(each["revision"] for each in api.all(CONTROLLER_REVISION)) == [2, 3]


async def test_a_broken_update_stops_at_max_unavailable_and_a_rollback_restarts_no_good_pod() -> None:
    api = await cluster()
    await api.client().create(DAEMON_SET, daemon_set())
    agents = kubelet(api)
    agents.unready_images.add("broken")
    async with controller(api, kubelet=agents):
        await until(lambda: status(api).get("numberAvailable") == 3)
        set_image(api, "broken")
        await until(lambda: status(api).get("updatedNumberScheduled") == 1)
        await until(lambda: status(api).get("numberUnavailable") == 1)
        good = {uid(each) for each in api.all(POD) if each["status"]["phase"] == "Running"}
        assert len(good) == 2
        set_image(api, "nginx")
        await until(lambda: status(api).get("numberAvailable") == 3)
        assert good < {uid(each) for each in api.all(POD)}


async def test_a_surge_makes_the_new_pod_before_the_old_one_goes() -> None:
    api = await cluster()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    await api.client().create(DAEMON_SET, daemon_set(updateStrategy=rolling))
    agents = kubelet(api)
    async with controller(api, kubelet=agents):
        await until(lambda: status(api).get("numberAvailable") == 3)
        ready: list[int] = []
        set_image(api, "nginx:2")

        def done() -> bool:
            ready.append(status(api)["numberReady"])
            return images(api) == {"nginx:2"} and len(api.all(POD)) == 3

        await until(done)
        await until(lambda: status(api).get("updatedNumberScheduled") == 3)
    assert min(ready) == 3
    assert agents.most == 4


async def test_on_delete_waits_for_somebody_to_delete() -> None:
    api = await cluster()
    await api.client().create(DAEMON_SET, daemon_set(updateStrategy={"type": "OnDelete"}))
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 3)
        set_image(api, "nginx:2")
        await until(lambda: status(api).get("observedGeneration") == 2)
        assert images(api) == {"nginx"}
        api.remove(POD, name(api.all(POD)[0]), "default")
        await until(lambda: status(api).get("updatedNumberScheduled") == 1)
        assert images(api) == {"nginx", "nginx:2"}


async def test_a_failed_pod_is_deleted_told_about_and_made_again() -> None:
    api = await cluster()
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 3)
        victim = api.all(POD)[0]
        api.edit(POD, name(victim), "default", lambda obj: obj["status"].update(phase="Failed"))
        await until(lambda: api.get(POD, name(victim), "default") is None)
        await until(lambda: status(api).get("numberAvailable") == 3)
        await until(lambda: any(each["reason"] == "FailedDaemonPod" for each in api.all(EVENT)))
    [event] = [each for each in api.all(EVENT) if each["reason"] == "FailedDaemonPod"]
    where = f"{name(victim)} on node {node_of(victim)}"
    assert event["message"] == f"Found failed daemon pod default/{where}, will try to kill it"


async def test_orphans_are_adopted_with_their_history_and_strangers_are_released() -> None:
    api = await cluster(node("node1"))
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 1)
    before = uid(api.all(POD)[0])
    for kind in (POD, CONTROLLER_REVISION):
        for each in api.all(kind):
            api.edit(kind, name(each), "default", lambda obj: obj["metadata"].pop("ownerReferences"))
    api.remove(DAEMON_SET, "agent", "default")
    created = await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 1)
        [only] = api.all(POD)
        assert uid(only) == before
        assert controller_of(only)["uid"] == uid(created)
        [revision] = api.all(CONTROLLER_REVISION)
        assert controller_of(revision)["uid"] == uid(created)
        api.edit(POD, name(only), "default", lambda obj: obj["metadata"].update(labels={"app": "debug"}))
        await until(lambda: len(api.all(POD)) == 2)
        assert controller_of(api.get(POD, name(only), "default")) is None


async def test_of_two_revisions_of_one_template_the_newer_stays() -> None:
    api = await cluster(node("node1"))
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 1)
        [first] = api.all(CONTROLLER_REVISION)
        await api.client().create(
            CONTROLLER_REVISION,
            {
                **first,
                "metadata": {
                    "name": "agent-copy",
                    "namespace": "default",
                    "labels": {"app": "web"},
                    "ownerReferences": first["metadata"]["ownerReferences"],
                },
                "revision": 5,
            },
        )
        # It is noticed when the set is looked at next.
        api.edit(DAEMON_SET, "agent", "default", lambda obj: obj["metadata"].update(labels={"a": "b"}))
        await until(lambda: [name(each) for each in api.all(CONTROLLER_REVISION)] == ["agent-copy"])
        await until(lambda: labels(api.all(POD)[0])[HASH] == "agent-copy")
    assert len(api.all(POD)) == 1


async def test_a_taken_revision_name_is_a_collision_and_leads_to_the_next_hash() -> None:
    api = await cluster(node("node1"))
    await api.client().create(DAEMON_SET, daemon_set())
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 1)
    [first] = api.all(CONTROLLER_REVISION)
    api.edit(CONTROLLER_REVISION, name(first), "default", lambda obj: obj.update(data={"spec": {}}))
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("collisionCount") == 1)
        await until(lambda: len(api.all(CONTROLLER_REVISION)) == 2)
        await until(lambda: status(api).get("updatedNumberScheduled") == 1)


async def test_history_is_cut_to_its_limit() -> None:
    api = await cluster(node("node1"))
    await api.client().create(DAEMON_SET, daemon_set(revisionHistoryLimit=1))
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("numberAvailable") == 1)
        for number in (2, 3, 4):
            set_image(api, f"nginx:{number}")
            await until(lambda n=number: images(api) == {f"nginx:{n}"} and status(api)["numberReady"] == 1)
        await until(lambda: sorted(each["revision"] for each in api.all(CONTROLLER_REVISION)) == [3, 4])


async def test_a_pod_somebody_made_for_the_node_is_not_doubled_and_selecting_all_is_refused() -> None:
    api = await cluster(node("node1"))
    await api.client().create(POD, pod("mine", {"app": "web"}, nodeName="node1"))
    await api.client().create(DAEMON_SET, daemon_set())
    all_ = daemon_set(name="all", selector={})
    await api.client().create(DAEMON_SET, all_)
    async with controller(api, kubelet=kubelet(api)):
        await until(lambda: status(api).get("currentNumberScheduled") == 1)
        await until(lambda: any(each["reason"] == "SelectingAll" for each in api.all(EVENT)))
        # It is of no known template, so the update replaces it.
        await until(lambda: status(api).get("updatedNumberScheduled") == 1)
    assert [controller_of(each)["name"] for each in api.all(POD)] == ["agent"]
