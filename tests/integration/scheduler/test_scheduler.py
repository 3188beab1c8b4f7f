"""The scheduler's loop against an API in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.client_fake import FakeApi
from support.client_objects import node, pod, replica_set
from support.client_wait import running, until

from controlplane import errors
from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.meta.owners import owner_reference
from controlplane.resources.catalog import EVENT, NODE, POD, REPLICA_SET
from controlplane.scheduler.queue import SchedulingQueue
from controlplane.scheduler.scheduler import Scheduler


@asynccontextmanager
async def scheduler(api: FakeApi, nodes: int = 3) -> AsyncIterator[None]:
    for number in range(nodes):
        await api.client().create(NODE, node(f"node{number + 1}"))
    client = api.client()
    informers = Informers(client)
    subject = Scheduler(client, informers)
    async with running(informers.run(), subject.run()):
        yield


def places(api: FakeApi) -> Counter[str]:
    return Counter(dig(each, "spec", "nodeName", default="") for each in api.all(POD))


async def test_binds_and_tells() -> None:
    api = FakeApi()
    async with scheduler(api, nodes=1):
        await api.client().create(POD, pod("web-1"))
        await until(lambda: places(api) == {"node1": 1})
        event = await until(lambda: next(iter(api.all(EVENT)), None))
    assert event["reason"] == "Scheduled"
    assert event["message"] == "Successfully assigned default/web-1 to node1"
    assert event["source"] == {"component": "default-scheduler"}


async def test_a_hundred_siblings_are_spread_evenly() -> None:
    api = FakeApi()
    owner = await api.client().create(REPLICA_SET, replica_set())
    async with scheduler(api):
        for number in range(99):
            one = pod(f"web-{number}", {"app": "web"})
            one["metadata"]["ownerReferences"] = [owner_reference("apps/v1", "ReplicaSet", owner)]
            await api.client().create(POD, one)
        await until(lambda: "" not in places(api))
    assert sorted(places(api).values()) == [33, 33, 33]


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_room_appears() -> None:
    api = FakeApi()
    async with scheduler(api):
        await api.client().create(POD, pod("big", nodeSelector={"size": "big"}))
        await until(lambda: conditions.of(api.get(POD, "big", "default"), "PodScheduled"))
        condition = conditions.of(api.get(POD, "big", "default"), "PodScheduled")
        expected = (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        )
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert condition["message"] == expected
        event = await until(lambda: next(iter(api.all(EVENT)), None))
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "FailedScheduling", expected)
        started = asyncio.get_running_loop().time()
        api.edit(NODE, "node2", "", lambda obj: obj["metadata"]["labels"].update(size="big"))
        await until(lambda: places(api) == {"node2": 1})
        assert asyncio.get_running_loop().time() - started < 0.9, (
            "a changed node must not wait for a back-off"
        )


async def test_the_first_node_gets_waiting_pods_at_once() -> None:
    api = FakeApi()
    async with scheduler(api, nodes=0):
        await api.client().create(POD, pod("early"))
        event = await until(lambda: next(iter(api.all(EVENT)), None))
        assert event["message"] == "no nodes available to schedule pods"
        started = asyncio.get_running_loop().time()
        await api.client().create(NODE, node("node1"))
        await until(lambda: places(api) == {"node1": 1})
        assert asyncio.get_running_loop().time() - started < 0.9


async def test_a_deleted_pod_makes_room() -> None:
    api = FakeApi()
    asking = [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]
    async with scheduler(api, nodes=1):
        await api.client().create(POD, pod("first", containers=asking))
        await until(lambda: places(api) == {"node1": 1})
        await api.client().create(POD, pod("second", containers=asking))
        await until(lambda: conditions.of(api.get(POD, "second", "default"), "PodScheduled"))
        api.remove(POD, "first", "default")
        await until(lambda: places(api) == {"node1": 1})
        assert [name(each) for each in api.all(POD)] == ["second"]


async def test_decisions_count_before_they_are_stored() -> None:
    api = FakeApi()
    asking = [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]
    async with scheduler(api, nodes=2):
        for number in range(4):
            await api.client().create(POD, pod(f"p{number}", containers=asking))
        await until(lambda: places(api) == {"node1": 1, "node2": 1, "": 2})
        await until(lambda: sum(bool(conditions.of(each, "PodScheduled")) for each in api.all(POD)) == 2)
    assert places(api) == {"node1": 1, "node2": 1, "": 2}


async def test_a_refused_binding_is_taken_back_and_tried_again() -> None:
    api = FakeApi()
    refused = []

    def refuse(method: str, path: str, body: Object | None) -> errors.StatusError | None:
        if path.endswith("/binding") and not refused:
            refused.append(path)
            return errors.InternalError("not now")
        return None

    api.reject.append(refuse)
    asking = [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]
    async with scheduler(api, nodes=1):
        await api.client().create(POD, pod("p", containers=asking))
        await until(lambda: places(api) == {"node1": 1})
    assert refused


async def test_leaves_alone_what_is_not_its_own() -> None:
    api = FakeApi()
    async with scheduler(api, nodes=1):
        await api.client().create(POD, pod("other", schedulerName="mine"))
        await api.client().create(POD, pod("gated", schedulingGates=[{"name": "g"}]))
        await api.client().create(POD, pod("last"))
        await until(lambda: dig(api.get(POD, "last", "default"), "spec", "nodeName"))
    assert places(api) == {"node1": 1, "": 2}


async def test_the_more_important_pod_comes_first() -> None:
    queue = SchedulingQueue()
    for number, priority in enumerate((0, 1000, None, 2000000000, 1000)):
        waiting = pod(f"p{number}")
        waiting["metadata"]["uid"] = f"uid{number}"
        if priority is not None:
            waiting["spec"]["priority"] = priority
        queue.put(waiting)
    assert [name((await queue.pop()).pod) for _ in range(5)] == ["p3", "p1", "p4", "p0", "p2"]
    queue.close()
