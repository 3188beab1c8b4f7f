"""The StatefulSet controller against an API in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from support.client_fake import FakeApi
from support.client_kubelet import Kubelet
from support.client_objects import stateful_set
from support.client_wait import running, until

from controlplane import errors
from controlplane.client.informer import Informers
from controlplane.controllers.statefulset.controller import StatefulSetController
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, labels, name, uid
from controlplane.meta.owners import controller_of
from controlplane.meta.timestamps import parse
from controlplane.resources.catalog import (
    CONTROLLER_REVISION,
    EVENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    STATEFUL_SET,
)

REVISION = "controller-revision-hash"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "www", "creationTimestamp": None},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    "status": {"phase": "Pending"},
}


class Diary:
    """The order in which pods of the set came, became ready and went."""

    def __init__(self, api: FakeApi) -> None:
        informers = Informers(api.client())
        informers.of(POD).on_change(self._changed)
        self.run = informers.run
        self.lines: list[str] = []

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is None:
            self.lines.append(f"+{name(new)}")
        elif new is None:
            self.lines.append(f"-{name(old)}")


@asynccontextmanager
async def controller(api: FakeApi, *, kubelet: Kubelet | None = None):
    client = api.client()
    informers = Informers(client)
    subject = StatefulSetController(client, informers)
    diary = Diary(api)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(informers.run(), subject.run(), diary.run()))
        await stack.enter_async_context(running((kubelet or Kubelet(api)).run()))
        yield diary.lines


def status(api: FakeApi) -> Object:
    return dig(api.get(STATEFUL_SET, "web", "default"), "status", default={})


def names(api: FakeApi) -> list[str]:
    return sorted(name(each) for each in api.all(POD))


def image_of(api: FakeApi, pod: str) -> str:
    found = api.get(POD, pod, "default")
    return found["spec"]["containers"][0]["image"] if found else ""


def all_ready(api: FakeApi, count: int) -> bool:
    pods = api.all(POD)
    return len(pods) == count and all(conditions.status_of(pod, "Ready") == "True" for pod in pods)


def edit(api: FakeApi, **spec: Any) -> None:
    api.edit(STATEFUL_SET, "web", "default", lambda obj: obj["spec"].update(spec))


def set_image(api: FakeApi, image: str) -> None:
    def change(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    api.edit(STATEFUL_SET, "web", "default", change)


def said(api: FakeApi) -> list[str]:
    return [f"{each['type']} {each['reason']}: {each['message']}" for each in api.all(EVENT)]


async def test_pods_start_in_order_each_after_the_last_is_ready() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set())
    kubelet = Kubelet(api)
    kubelet.unready_images.add("nginx")
    async with controller(api, kubelet=kubelet) as diary:
        for number in range(3):
            await until(lambda n=number: len(api.all(POD)) == n + 1)
            await until(lambda n=number: status(api).get("replicas") == n + 1)
            assert names(api) == [f"web-{each}" for each in range(number + 1)]
            kubelet.make_ready("default", f"web-{number}")
        await until(lambda: status(api).get("availableReplicas") == 3)
        assert diary == ["+web-0", "+web-1", "+web-2"]
        await until(lambda: len(said(api)) == 3)
    [revision] = api.all(CONTROLLER_REVISION)
    assert status(api) == {
        "replicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "currentReplicas": 3,
        "updatedReplicas": 3,
        "observedGeneration": 1,
        "collisionCount": 0,
        "currentRevision": name(revision),
        "updateRevision": name(revision),
    }
    second = api.get(POD, "web-1", "default")
    assert labels(second) == {
        "app": "web",
        REVISION: name(revision),
        "statefulset.kubernetes.io/pod-name": "web-1",
        "apps.kubernetes.io/pod-index": "1",
    }
    assert (second["spec"]["hostname"], second["spec"]["subdomain"]) == ("web-1", "peers")
    assert second["metadata"]["generateName"] == "web-"
    assert controller_of(second)["kind"] == "StatefulSet"
    assert said(api)[0] == "Normal SuccessfulCreate: create Pod web-0 in StatefulSet web successful"


async def test_scaling_down_takes_the_highest_first_and_halts_at_an_unhealthy_pod() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set())
    kubelet = Kubelet(api)
    async with controller(api, kubelet=kubelet) as diary:
        await until(lambda: status(api).get("readyReplicas") == 3)
        kubelet.make_ready("default", "web-0", "False")
        await until(lambda: status(api).get("readyReplicas") == 2)
        edit(api, replicas=1)
        await until(lambda: status(api).get("observedGeneration") == 2)
        assert names(api) == ["web-0", "web-1", "web-2"]
        kubelet.make_ready("default", "web-0")
        await until(lambda: names(api) == ["web-0"])
        assert diary[3:] == ["-web-2", "-web-1"]
        await until(lambda: status(api).get("replicas") == 1)


async def test_parallel_pods_come_and_go_at_once() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=4, podManagementPolicy="Parallel"))
    kubelet = Kubelet(api)
    kubelet.unready_images.add("nginx")
    async with controller(api, kubelet=kubelet):
        await until(lambda: len(api.all(POD)) == 4)
        edit(api, replicas=1)
        await until(lambda: names(api) == ["web-0"])


async def test_a_rolling_update_goes_from_the_highest_to_the_partition() -> None:
    api = FakeApi()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}
    await api.client().create(STATEFUL_SET, stateful_set(updateStrategy=rolling))
    async with controller(api) as diary:
        await until(lambda: status(api).get("readyReplicas") == 3)
        old = status(api)["currentRevision"]
        set_image(api, "nginx:2")
        await until(lambda: status(api).get("updateRevision") not in ("", old))
        assert "-web-2" not in diary
        # A canary, which stays what it is when it is deleted.
        edit(api, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
        await until(lambda: status(api).get("updatedReplicas") == 1 and status(api).get("readyReplicas") == 3)
        assert status(api)["currentReplicas"] == 2
        assert image_of(api, "web-2") == "nginx:2"
        for each in ("web-0", "web-2"):
            before = uid(api.get(POD, each, "default"))
            api.remove(POD, each, "default")
            await until(
                lambda e=each, b=before: api.get(POD, e, "default") and uid(api.get(POD, e, "default")) != b
            )
            await until(lambda: all_ready(api, 3))
        await until(lambda: len(diary) == 9)
        assert [image_of(api, f"web-{each}") for each in range(3)] == ["nginx", "nginx", "nginx:2"]
        del diary[:]
        edit(api, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        await until(lambda: status(api).get("currentRevision") not in ("", old))
        assert diary == ["-web-1", "+web-1", "-web-0", "+web-0"]
        assert status(api)["currentReplicas"] == status(api)["updatedReplicas"] == 3
        new = status(api)["currentRevision"]
        set_image(api, "nginx")
        await until(lambda: status(api).get("currentRevision") == old)
        assert {name(each): each["revision"] for each in api.all(CONTROLLER_REVISION)} == {new: 2, old: 3}


async def test_a_broken_update_stops_at_its_first_pod_and_needs_a_hand_to_go_back() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set())
    kubelet = Kubelet(api)
    kubelet.unready_images.add("broken")
    async with controller(api, kubelet=kubelet):
        await until(lambda: status(api).get("readyReplicas") == 3)
        set_image(api, "broken")
        await until(lambda: image_of(api, "web-2") == "broken")
        set_image(api, "nginx")
        await until(lambda: status(api).get("observedGeneration") == 3)
        assert [image_of(api, f"web-{each}") for each in range(3)] == ["nginx", "nginx", "broken"]
        api.remove(POD, "web-2", "default")
        await until(lambda: status(api).get("updatedReplicas") == 3 and image_of(api, "web-2") == "nginx")


async def test_on_delete_updates_what_somebody_deletes() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(updateStrategy={"type": "OnDelete"}))
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 3)
        set_image(api, "nginx:2")
        await until(lambda: status(api).get("observedGeneration") == 2)
        api.remove(POD, "web-1", "default")
        await until(lambda: image_of(api, "web-1") == "nginx:2" and status(api).get("readyReplicas") == 3)
        assert [image_of(api, f"web-{each}") for each in (0, 2)] == ["nginx", "nginx"]


async def test_ordinals_may_start_elsewhere_and_move() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=2, ordinals={"start": 5}))
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 2)
        assert names(api) == ["web-5", "web-6"]
        edit(api, ordinals={"start": 6})
        await until(lambda: names(api) == ["web-6", "web-7"])


async def test_failed_and_finished_pods_are_replaced_under_their_name() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=1))
    async with controller(api):
        for phase in ("Failed", "Succeeded"):
            await until(lambda: status(api).get("readyReplicas") == 1)
            before = uid(api.get(POD, "web-0", "default"))
            api.edit(POD, "web-0", "default", lambda obj, p=phase: obj["status"].update(phase=p))
            await until(
                lambda b=before: (
                    api.get(POD, "web-0", "default") and uid(api.get(POD, "web-0", "default")) != b
                )
            )


async def test_claims_are_made_per_pod_kept_and_used_again() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=2, volumeClaimTemplates=[CLAIM]))
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 2)
        claims = api.all(PERSISTENT_VOLUME_CLAIM)
        assert sorted(map(name, claims)) == ["www-web-0", "www-web-1"]
        assert labels(claims[0]) == {"app": "web"}
        assert claims[0]["spec"] == CLAIM["spec"]
        assert not claims[0]["metadata"].get("ownerReferences")
        volume = {"name": "www", "persistentVolumeClaim": {"claimName": "www-web-1"}}
        assert api.get(POD, "web-1", "default")["spec"]["volumes"] == [volume]
        edit(api, replicas=0)
        await until(lambda: not api.all(POD))
        assert len(api.all(PERSISTENT_VOLUME_CLAIM)) == 2
        edit(api, replicas=2)
        await until(lambda: status(api).get("readyReplicas") == 2)
        assert {uid(each) for each in api.all(PERSISTENT_VOLUME_CLAIM)} == {uid(each) for each in claims}
        assert "Normal SuccessfulCreate: create Claim www-web-0 Pod web-0 in StatefulSet web success" in said(
            api
        )


async def test_a_waiting_pods_lost_claim_is_made_again() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=1, volumeClaimTemplates=[CLAIM]))
    kubelet = Kubelet(api)
    kubelet.unready_images.add("nginx")
    async with controller(api, kubelet=kubelet):
        [claim] = await until(lambda: api.all(PERSISTENT_VOLUME_CLAIM))
        await until(lambda: status(api).get("replicas") == 1)
        api.remove(PERSISTENT_VOLUME_CLAIM, name(claim), "default")
        await until(lambda: uid(next(iter(api.all(PERSISTENT_VOLUME_CLAIM)), {})) not in ("", uid(claim)))


async def test_the_retention_policy_says_who_owns_the_claims() -> None:
    api = FakeApi()
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    created = await api.client().create(
        STATEFUL_SET,
        stateful_set(replicas=2, volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy),
    )
    kubelet = Kubelet(api)

    def owner(claim: str) -> tuple[str, str]:
        found = controller_of(api.get(PERSISTENT_VOLUME_CLAIM, claim, "default"))
        return (found["kind"], found["uid"]) if found else ("", "")

    async with controller(api, kubelet=kubelet):
        await until(lambda: status(api).get("readyReplicas") == 2)
        assert owner("www-web-0") == owner("www-web-1") == ("StatefulSet", uid(created))
        pod = uid(api.get(POD, "web-1", "default"))
        kubelet.removes = False
        edit(api, replicas=1)
        await until(lambda: owner("www-web-1") == ("Pod", pod))
        kubelet.removes = True
        api.remove(POD, "web-1", "default")
        # What belongs to the former pod is about to go, so the next one waits for that.
        edit(api, replicas=2)
        await until(lambda: status(api).get("observedGeneration") == 3)
        assert names(api) == ["web-0"]
        api.remove(PERSISTENT_VOLUME_CLAIM, "www-web-1", "default")
        await until(lambda: names(api) == ["web-0", "web-1"])
        assert owner("www-web-1") == ("StatefulSet", uid(created))
        edit(api, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Delete"})
        await until(lambda: owner("www-web-0") == owner("www-web-1") == ("", ""))


async def test_orphans_are_adopted_and_mended() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set())
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 3)
    before = {uid(each) for each in api.all(POD)}

    def orphan(obj: Object) -> None:
        obj["metadata"].pop("ownerReferences")

    for kind in (POD, CONTROLLER_REVISION):
        for each in api.all(kind):
            api.edit(kind, name(each), "default", orphan)
    api.edit(
        POD, "web-1", "default", lambda obj: obj["metadata"]["labels"].pop("apps.kubernetes.io/pod-index")
    )
    api.remove(STATEFUL_SET, "web", "default")
    created = await api.client().create(STATEFUL_SET, stateful_set())
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 3)
        await until(
            lambda: labels(api.get(POD, "web-1", "default")).get("apps.kubernetes.io/pod-index") == "1"
        )
    assert {uid(each) for each in api.all(POD)} == before
    assert {controller_of(each)["uid"] for each in api.all(POD)} == {uid(created)}
    assert len(api.all(CONTROLLER_REVISION)) == 1


async def test_min_ready_seconds_hold_up_the_next_pod() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=2, minReadySeconds=1))
    async with controller(api):
        await until(lambda: names(api) == ["web-0", "web-1"])
        ready = conditions.of(api.get(POD, "web-0", "default"), "Ready")["lastTransitionTime"]
        created = api.get(POD, "web-1", "default")["metadata"]["creationTimestamp"]
        assert (parse(created) - parse(ready)).total_seconds() >= 1
        await until(lambda: status(api).get("availableReplicas") == 2)


async def test_a_refused_pod_is_told_about_and_tried_again() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=1))

    def refuse(method: str, path: str, body: Object | None) -> errors.StatusError | None:
        return errors.Forbidden("no room") if method == "POST" and path.endswith("/pods") else None

    api.reject.append(refuse)
    async with controller(api):
        text = "Warning FailedCreate: create Pod web-0 in StatefulSet web failed error: no room"
        await until(lambda: text in said(api))
        assert status(api)["replicas"] == 0
        api.reject.clear()
        await until(lambda: status(api).get("readyReplicas") == 1)


async def test_a_collision_of_hashes_is_counted() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=1))
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 1)
    taken = name(api.all(CONTROLLER_REVISION)[0])
    api.edit(CONTROLLER_REVISION, taken, "default", lambda obj: obj.update(data={"spec": {}}))
    async with controller(api):
        await until(lambda: status(api).get("collisionCount") == 1)
        await until(lambda: len(api.all(CONTROLLER_REVISION)) == 2)


async def test_history_is_cut_to_its_limit_but_for_what_is_in_use() -> None:
    api = FakeApi()
    await api.client().create(STATEFUL_SET, stateful_set(replicas=1, revisionHistoryLimit=1))
    async with controller(api):
        await until(lambda: status(api).get("readyReplicas") == 1)
        for number in (2, 3, 4):
            set_image(api, f"nginx:{number}")
            await until(
                lambda n=number: (
                    image_of(api, "web-0") == f"nginx:{n}"
                    and status(api).get("currentRevision") == status(api).get("updateRevision")
                )
            )
        await until(lambda: sorted(each["revision"] for each in api.all(CONTROLLER_REVISION)) == [3, 4])
        edit(api, revisionHistoryLimit=-1)
        set_image(api, "nginx:5")
        await until(lambda: image_of(api, "web-0") == "nginx:5" and status(api)["observedGeneration"] == 6)
        assert sorted(each["revision"] for each in api.all(CONTROLLER_REVISION)) == [3, 4, 5]
