"""The Deployment controller together with the ReplicaSet controller against an API in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.client_fake import FakeApi
from support.client_kubelet import Kubelet
from support.client_objects import deployment, replica_set, template
from support.client_wait import running, until

from controlplane.client.client import PatchType
from controlplane.client.informer import Informer, Informers
from controlplane.controllers.deployment.controller import DeploymentController
from controlplane.controllers.replicaset.controller import ReplicaSetController
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, labels, name
from controlplane.resources.catalog import DEPLOYMENT, EVENT, POD, REPLICA_SET

REVISION = "deployment.kubernetes.io/revision"


class Cluster:
    def __init__(self, api: FakeApi, kubelet: Kubelet) -> None:
        self.api = api
        self.kubelet = kubelet

    def deployment(self) -> Object:
        found = self.api.get(DEPLOYMENT, "web", "default")
        assert found is not None
        return found

    def status(self, field: str) -> int:
        return int(dig(self.deployment(), "status", field, default=0))

    def condition(self, type_: str) -> tuple[str, str]:
        found = conditions.of(self.deployment(), type_) or {}
        return found.get("status", ""), found.get("reason", "")

    def edit(self, **spec: object) -> None:
        self.api.edit(DEPLOYMENT, "web", "default", lambda obj: obj["spec"].update(spec))

    def sets(self) -> dict[str, int]:
        """Image to size."""
        return {
            each["spec"]["template"]["spec"]["containers"][0]["image"]: each["spec"]["replicas"]
            for each in self.api.all(REPLICA_SET)
        }

    def revisions(self) -> dict[str, str]:
        return {
            each["spec"]["template"]["spec"]["containers"][0]["image"]: annotations_of(each)[REVISION]
            for each in self.api.all(REPLICA_SET)
        }

    def messages(self) -> list[str]:
        return [event["message"] for event in self.api.all(EVENT) if event["reason"] == "ScalingReplicaSet"]

    async def complete(self, image: str, replicas: int) -> None:
        def done() -> bool:
            state = self.deployment().get("status", {})
            return (
                self.sets().get(image) == replicas
                and all(size == 0 for key, size in self.sets().items() if key != image)
                and state.get("observedGeneration") == self.deployment()["metadata"]["generation"]
                and state.get("replicas") == state.get("updatedReplicas") == replicas
                and state.get("availableReplicas") == replicas
                and self.condition("Progressing")[1] in ("NewReplicaSetAvailable", "DeploymentResumed")
            )

        await until(done)


@asynccontextmanager
async def cluster(*objects: Object) -> AsyncIterator[Cluster]:
    api = FakeApi()
    client = api.client()
    for obj in objects:
        await client.create(DEPLOYMENT if obj["kind"] == "Deployment" else REPLICA_SET, obj)
    informers = Informers(client)
    controllers = (DeploymentController(client, informers), ReplicaSetController(client, informers))
    kubelet = Kubelet(api)
    async with running(informers.run(), kubelet.run(), *(each.run() for each in controllers)):
        yield Cluster(api, kubelet)


async def test_first_rollout() -> None:
    async with cluster(deployment()) as world:
        await world.complete("nginx", 3)
        [created] = world.api.all(REPLICA_SET)
        hash_ = labels(created)["pod-template-hash"]
        assert re.fullmatch("[bcdfghjklmnpqrstvwxz2456789]{8,10}", hash_)
        assert name(created) == f"web-{hash_}"
        assert created["spec"]["selector"] == {"matchLabels": {"app": "web", "pod-template-hash": hash_}}
        assert annotations_of(created) == {
            REVISION: "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        }
        assert annotations_of(world.deployment())[REVISION] == "1"
        assert world.condition("Available") == ("True", "MinimumReplicasAvailable")
        assert world.condition("Progressing") == ("True", "NewReplicaSetAvailable")
        progressing = conditions.of(world.deployment(), "Progressing")
        assert progressing["message"] == f'ReplicaSet "web-{hash_}" has successfully progressed.'
        await until(lambda: world.messages() == [f"Scaled up replica set web-{hash_} from 0 to 3"])
        state = world.deployment()["status"]
        assert "unavailableReplicas" not in state
        assert state["readyReplicas"] == 3


async def test_rolling_update_keeps_its_fenceposts() -> None:
    async with cluster(deployment(replicas=4)) as world:
        await world.complete("nginx", 4)
        seen: list[tuple[int, int]] = []
        watcher = Informer(world.api.client(), POD)

        def count(old: Object | None, new: Object | None) -> None:
            alive = [pod for pod in watcher.items() if not pod["metadata"].get("deletionTimestamp")]
            ready = [pod for pod in alive if conditions.status_of(pod, "Ready") == "True"]
            seen.append((len(alive), len(ready)))

        async with running(watcher.run()):
            await watcher.synced()
            watcher.on_change(count)
            seen.clear()
            world.edit(template=template("nginx:2"))
            await world.complete("nginx:2", 4)
        assert max(total for total, _ in seen) <= 5
        assert min(ready for _, ready in seen) >= 3
        assert world.revisions() == {"nginx": "1", "nginx:2": "2"}
        assert annotations_of(world.deployment())[REVISION] == "2"


async def test_undo_reuses_the_old_set_with_a_new_revision() -> None:
    async with cluster(deployment()) as world:
        await world.complete("nginx", 3)
        world.edit(template=template("nginx:2"))
        await world.complete("nginx:2", 3)
        world.edit(template=template("nginx"))
        await world.complete("nginx", 3)
        assert len(world.api.all(REPLICA_SET)) == 2
        assert world.revisions() == {"nginx": "3", "nginx:2": "2"}
        [back] = [each for each in world.api.all(REPLICA_SET) if each["spec"]["replicas"]]
        assert annotations_of(back)["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_removes_all_old_pods_first() -> None:
    start = deployment(strategy={"type": "Recreate"})
    async with cluster(start) as world:
        await world.complete("nginx", 3)
        world.kubelet.removes = False
        world.edit(template=template("nginx:2"))
        await until(lambda: all(pod["metadata"].get("deletionTimestamp") for pod in world.api.all(POD)))
        await until(lambda: world.status("observedGeneration") == 2 and world.status("replicas") == 0)
        assert len(world.api.all(REPLICA_SET)) == 1
        world.kubelet.removes = True
        for pod in world.api.all(POD):
            world.api.remove(POD, name(pod), "default")
        await world.complete("nginx:2", 3)


async def test_scaling_follows_at_once_and_in_proportion_during_a_rollout() -> None:
    async with cluster(deployment(replicas=10)) as world:
        await world.complete("nginx", 10)
        world.edit(replicas=5)
        await world.complete("nginx", 5)
        world.edit(replicas=10)
        await world.complete("nginx", 10)
        world.kubelet.unready_images.add("broken")
        world.edit(template=template("broken"))
        await until(lambda: world.sets() == {"nginx": 8, "broken": 5})
        world.edit(replicas=20)
        # 25 pods at most: 12 more, shared 8 : 5 as upstream rounds, and the rest to the larger set.
        await until(lambda: sum(world.sets().values()) == 25)
        assert world.sets()["broken"] in (9, 10)


async def test_pause_and_resume() -> None:
    async with cluster(deployment()) as world:
        await world.complete("nginx", 3)
        world.edit(paused=True)
        await until(lambda: world.condition("Progressing") == ("Unknown", "DeploymentPaused"))
        world.edit(template=template("nginx:2"))
        await until(lambda: world.status("observedGeneration") == 3)
        assert world.sets() == {"nginx": 3}
        world.edit(replicas=4)
        await until(lambda: world.sets() == {"nginx": 4})
        world.edit(paused=False)
        await world.complete("nginx:2", 4)


async def test_deadline_is_reported_without_any_other_change() -> None:
    async with cluster() as world:
        world.kubelet.unready_images.add("broken")
        await world.api.client().create(DEPLOYMENT, deployment(image="broken", progressDeadlineSeconds=1))
        await until(lambda: world.condition("Progressing") == ("False", "ProgressDeadlineExceeded"), 8)
        message = conditions.of(world.deployment(), "Progressing")["message"]
        assert re.fullmatch(r'ReplicaSet "web-\w+" has timed out progressing\.', message)
        assert world.condition("Available") == ("False", "MinimumReplicasUnavailable")


async def test_history_is_cleaned_up() -> None:
    async with cluster(deployment(revisionHistoryLimit=1)) as world:
        for image in ("nginx", "nginx:2", "nginx:3", "nginx:4"):
            world.edit(template=template(image))
            await world.complete(image, 3)
        await until(lambda: sorted(world.sets()) == ["nginx:3", "nginx:4"])


async def test_change_cause_and_other_annotations_reach_the_set() -> None:
    async with cluster(deployment()) as world:
        await world.complete("nginx", 3)
        patch = {
            "metadata": {
                "annotations": {
                    "kubernetes.io/change-cause": "first",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                }
            }
        }
        await world.api.client().patch(DEPLOYMENT, "web", patch, "default", PatchType.MERGE)
        await until(
            lambda: annotations_of(world.api.all(REPLICA_SET)[0]).get("kubernetes.io/change-cause") == "first"
        )
        assert "kubectl.kubernetes.io/last-applied-configuration" not in annotations_of(
            world.api.all(REPLICA_SET)[0]
        )


async def test_adopts_a_matching_set_with_the_same_template() -> None:
    existing = replica_set("earlier", 2)
    existing["metadata"]["labels"] = {"app": "web"}
    async with cluster(existing) as world:
        await until(lambda: len(world.api.all(POD)) == 2)
        await world.api.client().create(DEPLOYMENT, deployment())
        await world.complete("nginx", 3)
        assert [name(each) for each in world.api.all(REPLICA_SET)] == ["earlier"]


async def test_a_foreign_set_of_the_same_name_leads_to_another_hash() -> None:
    async with cluster(deployment()) as world:
        await world.complete("nginx", 3)
        taken = name(world.api.all(REPLICA_SET)[0])
        other = replica_set(taken, 0)
    async with cluster(other, deployment()) as world:
        await until(lambda: world.status("availableReplicas") == 3)
        assert world.status("collisionCount") == 1
        assert len(world.api.all(REPLICA_SET)) == 2


async def test_conflicting_writers_do_not_stop_it() -> None:
    async with cluster(deployment()) as world:
        stop = asyncio.Event()

        async def disturb() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                for kind in (DEPLOYMENT, REPLICA_SET):
                    for each in world.api.all(kind):
                        world.api.edit(
                            kind,
                            name(each),
                            "default",
                            lambda obj, n=str(number): obj["metadata"].setdefault("labels", {}).update(n=n),
                        )
                await asyncio.sleep(0.003)

        async with running(disturb()):
            for image in ("nginx:2", "nginx:3"):
                world.edit(template=template(image))
                await until(
                    lambda image=image: (
                        world.sets().get(image) == 3 and world.status("availableReplicas") == 3
                    )
                )
            stop.set()
        await world.complete("nginx:3", 3)
