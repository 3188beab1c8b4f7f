"""Disruption budgets: their status, and evictions that ask them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from support.batch import World, ready, world

from controlplane.controllers.disruption.budget import expected_and_desired
from controlplane.controllers.disruption.controller import DisruptionController
from controlplane.controllers.replicaset.controller import ReplicaSetController
from controlplane.errors import NotFound, Object, StatusError, TooManyRequests, from_status
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.resources.catalog import POD, POD_DISRUPTION_BUDGET, REPLICA_SET

REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


def disruption(client: Any, informers: Any, clock: Any) -> DisruptionController:
    return DisruptionController(client, informers, clock)


def replica_sets(client: Any, informers: Any, clock: Any) -> ReplicaSetController:
    return ReplicaSetController(client, informers)


def budget(name: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }


def pod(name: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 30},
    }


def replica_set(replicas: int) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


def status(there: World) -> Object:
    found: Object = (there.get(POD_DISRUPTION_BUDGET, "web") or {}).get("status") or {}
    return found


async def evict(there: World, pod_name: str, **options: Any) -> Object:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod_name, "namespace": "default"},
    }
    if options:
        body["deleteOptions"] = options
    # Not through the client's retries of 429: what the server says first is what counts.
    answer = await there.client._transport.request(
        "POST",
        POD.path("default", pod_name, "eviction"),
        (),
        {"content-type": "application/json", "accept": "application/json"},
        orjson.dumps(body),
    )
    parsed: Object = orjson.loads(answer.body)
    if answer.status >= 400:
        raise from_status(parsed, answer.status)
    return parsed


async def pods_ready(there: World, count: int) -> None:
    there.outcome = ready
    for number in range(count):
        await there.client.create(POD, pod(f"p{number}"))
    await there.until(
        lambda: sum(conditions.status_of(each, "Ready") == "True" for each in there.all(POD)) == count
    )


async def test_the_status_follows_the_pods() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=2))
        await there.until(lambda: status(there).get("conditions"))
        assert status(there)["conditions"][0]["reason"] == "InsufficientPods"
        await pods_ready(there, 3)
        await there.until(lambda: status(there)["disruptionsAllowed"] == 1)
        state = {key: value for key, value in status(there).items() if key != "conditions"}
        assert state == {
            "currentHealthy": 3, "desiredHealthy": 2, "disruptionsAllowed": 1, "expectedPods": 3,
            "observedGeneration": 1,
        }  # fmt: skip
        [condition] = status(there)["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "DisruptionAllowed", "True", "SufficientPods",
        )  # fmt: skip


async def test_an_eviction_within_the_budget_and_one_beyond_it() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=1))
        await pods_ready(there, 2)
        await there.until(lambda: status(there).get("disruptionsAllowed") == 1)
        await evict(there, "p0", dryRun=["All"])
        assert status(there)["disruptionsAllowed"] == 1
        answer = await evict(there, "p0")
        assert (answer["kind"], answer["status"]) == ("Status", "Success")
        await there.until(lambda: there.get(POD, "p0")["metadata"].get("deletionTimestamp"))
        target = conditions.of(there.get(POD, "p0"), "DisruptionTarget")
        assert (target["reason"], target["message"]) == ("EvictionByEvictionAPI", "Eviction API: evicting")
        with pytest.raises(TooManyRequests) as refusal:
            await evict(there, "p1")
        assert refusal.value.message == REFUSED
        [cause] = refusal.value.causes
        assert cause.reason == "DisruptionBudget"
        assert cause.message == "The disruption budget web needs 1 healthy pods and has 1 currently"
        # A pod that is on its way out already may be evicted again.
        await evict(there, "p0")


async def test_concurrent_evictions_take_no_more_than_allowed() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(maxUnavailable="40%"))
        await pods_ready(there, 0)
        runs = ReplicaSetController(there.client, there.informers)
        task = asyncio.ensure_future(runs.run())
        try:
            await there.client.create(REPLICA_SET, replica_set(10))
            await there.until(lambda: status(there).get("disruptionsAllowed") == 4)
            there.outcome = lambda _: None
            results = await asyncio.gather(
                *(evict(there, name(each)) for each in there.all(POD)[:10]), return_exceptions=True
            )
            done = [result for result in results if not isinstance(result, BaseException)]
            assert len(done) == 4
            assert {type(result) for result in results if isinstance(result, BaseException)} == {
                TooManyRequests
            }
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_pods_that_are_not_ready() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=2))
        await pods_ready(there, 1)
        there.outcome = lambda _: {"phase": "Running"}
        await there.client.create(POD, pod("late"))
        await there.until(lambda: dig(there.get(POD, "late"), "status", "phase") == "Running")
        await there.until(lambda: status(there).get("expectedPods") == 2)
        with pytest.raises(TooManyRequests):
            await evict(there, "late")
        found = await there.client.get(POD_DISRUPTION_BUDGET, "web", "default")
        found["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
        await there.client.update(POD_DISRUPTION_BUDGET, found)
        await evict(there, "late")
        await there.until(lambda: there.get(POD, "late")["metadata"].get("deletionTimestamp"))


async def test_pending_pods_need_no_budget() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=5))
        await there.client.create(POD, pod("waiting"))
        await there.until(lambda: dig(there.get(POD, "waiting"), "spec", "nodeName"))
        await evict(there, "waiting")
        with pytest.raises(NotFound):
            await evict(there, "nobody")


async def test_evictions_of_the_first_version() -> None:
    async with world() as there:
        await there.client.create(POD, pod("old"))
        body = {
            "apiVersion": "policy/v1beta1",
            "kind": "Eviction",
            "metadata": {"name": "old", "namespace": "default"},
        }
        await there.client.create(POD, body, "default", "old", "eviction")
        await there.until(lambda: there.get(POD, "old") is None or is_being_deleted(there.get(POD, "old")))


async def test_two_budgets_are_too_many() -> None:
    async with world(disruption) as there:
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=0))
        await there.client.create(POD_DISRUPTION_BUDGET, budget("other", minAvailable=0))
        await pods_ready(there, 1)
        with pytest.raises(StatusError) as refusal:
            await evict(there, "p0")
        assert refusal.value.message.startswith("This pod has more than one PodDisruptionBudget")


async def test_a_budget_nobody_has_looked_at_yet() -> None:
    async with world() as there:
        await pods_ready(there, 1)
        await there.client.create(POD_DISRUPTION_BUDGET, budget(minAvailable=0))
        with pytest.raises(TooManyRequests) as refusal:
            await evict(there, "p0")
        assert refusal.value.retry_after == 10
        assert refusal.value.causes[0].message == (
            "The disruption budget web is still being processed by the server."
        )


async def test_owners_without_a_scale_block_evictions() -> None:
    async with world(disruption) as there:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u", "controller": True}
        orphan = pod("p")
        orphan["metadata"]["ownerReferences"] = [owner]
        await there.client.create(POD, orphan)
        await there.client.create(POD_DISRUPTION_BUDGET, budget(maxUnavailable=1))
        await there.until(lambda: status(there).get("conditions"))
        [condition] = status(there)["conditions"]
        assert condition["reason"] == "SyncFailed"
        assert condition["message"] == "jobs.batch does not implement the scale subresource"
        await there.until(lambda: "CalculateExpectedPodCountFailed" in there.events())


async def test_a_disruption_that_does_not_come_is_taken_back() -> None:
    async with world(disruption) as there:
        await pods_ready(there, 1)
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "PreemptionByScheduler",
        }
        current = there.get(POD, "p0")
        listed = [*current["status"]["conditions"], condition]
        await there.client.patch(
            POD, "p0", {"status": {"conditions": listed}}, "default", subresource="status"
        )
        await there.until(lambda: conditions.status_of(there.get(POD, "p0"), "DisruptionTarget") == "False")


@pytest.mark.parametrize(
    ("spec", "pods", "scale", "expected", "desired"),
    [
        ({"minAvailable": 3}, 5, 0, 5, 3),
        ({"minAvailable": "50%"}, 5, 7, 7, 4),
        ({"maxUnavailable": 1}, 5, 7, 7, 6),
        ({"maxUnavailable": "30%"}, 5, 7, 7, 4),
        ({"maxUnavailable": 9}, 5, 7, 7, 0),
        ({"maxUnavailable": "0%"}, 5, 7, 7, 7),
        ({}, 5, 7, 5, 0),
    ],
)
def test_how_many_must_stay(spec: Object, pods: int, scale: int, expected: int, desired: int) -> None:
    assert expected_and_desired({"spec": spec}, pods, scale) == (expected, desired)
