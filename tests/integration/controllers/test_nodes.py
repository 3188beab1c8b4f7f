"""Node life cycle, taint eviction, pod clean-up and node address ranges against an API in memory."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from support.client_fake import FakeApi
from support.client_objects import node, pod
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.client.leases import NodeLease
from controlplane.controllers.node_ipam import NodeIpamController
from controlplane.controllers.node_lifecycle.controller import NodeLifecycleController
from controlplane.controllers.node_lifecycle.taints import with_taints
from controlplane.controllers.pod_gc import PodGarbageController
from controlplane.controllers.taint_eviction import TaintEvictionController
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import format_time, now
from controlplane.resources.catalog import EVENT, NODE, POD

GRACE = 0.4


class Nodes:
    """Nodes whose agents renew their leases until they are silenced."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name_: str) -> None:
        created = node(name_)
        created["status"]["conditions"][0].update(
            lastHeartbeatTime=now(), lastTransitionTime=now(), reason="KubeletReady"
        )
        await self.api.client().create(NODE, created)
        lease = NodeLease(self.api.client(), name_)
        await lease.renew()

        async def beat() -> None:
            while True:
                await asyncio.sleep(GRACE / 8)
                await lease.renew()

        self.tasks[name_] = asyncio.ensure_future(beat())

    def silence(self, name_: str) -> None:
        self.tasks[name_].cancel()

    def revive(self, name_: str) -> None:
        def ready(obj: Object) -> None:
            obj["status"]["conditions"] = [{"type": "Ready", "status": "True", "lastHeartbeatTime": now()}]

        self.api.edit(NODE, name_, "", ready)

    def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()


@asynccontextmanager
async def lifecycle(api: FakeApi, count: int = 2) -> AsyncIterator[Nodes]:
    nodes = Nodes(api)
    for number in range(count):
        await nodes.add(f"node{number + 1}")
    client = api.client()
    informers = Informers(client)
    parts = (
        NodeLifecycleController(client, informers, GRACE),
        TaintEvictionController(client, informers),
        PodGarbageController(client, informers, 0.1),
    )
    try:
        async with running(informers.run(), *(part.run() for part in parts)):
            await informers.synced()
            yield nodes
    finally:
        nodes.close()


def ready(api: FakeApi, name_: str) -> Object:
    return conditions.of(api.get(NODE, name_), "Ready") or {}


def taints(api: FakeApi, name_: str) -> list[tuple[str, str]]:
    return [(each["key"], each["effect"]) for each in dig(api.get(NODE, name_), "spec", "taints", default=())]


async def add_pod(api: FakeApi, name_: str, node_name: str, seconds: int | None) -> None:
    tolerations = []
    if seconds is not None:
        tolerations = [
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": seconds,
            }
            for key in ("unreachable", "not-ready")
        ]
    await api.client().create(POD, pod(name_, nodeName=node_name, tolerations=tolerations))
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
    api.edit(
        POD, name_, "default", lambda obj: obj.update(status={"phase": "Running", "conditions": [condition]})
    )


def reasons(api: FakeApi, object_: str) -> set[str]:
    return {event["reason"] for event in api.all(EVENT) if event["involvedObject"]["name"] == object_}


async def test_a_silent_node_becomes_unreachable_and_loses_its_pods() -> None:
    api = FakeApi()
    async with lifecycle(api) as nodes:
        await add_pod(api, "patient", "node1", 300)
        await add_pod(api, "brief", "node1", 1)
        await add_pod(api, "forever", "node2", 0)
        await until(lambda: "RegisteredNode" in reasons(api, "node1"))
        nodes.silence("node1")
        await until(lambda: ready(api, "node1").get("status") == "Unknown")
        assert ready(api, "node1")["reason"] == "NodeStatusUnknown"
        assert ready(api, "node1")["message"] == "Kubelet stopped posting node status."
        await until(
            lambda: (
                taints(api, "node1")
                == [
                    ("node.kubernetes.io/unreachable", "NoSchedule"),
                    ("node.kubernetes.io/unreachable", "NoExecute"),
                ]
            )
        )
        await until(lambda: conditions.status_of(api.get(POD, "patient", "default"), "Ready") == "False")
        await until(lambda: "NodeNotReady" in reasons(api, "patient"))
        await until(lambda: "NodeNotReady" in reasons(api, "node1"))
        await until(lambda: dig(api.get(POD, "brief", "default"), "metadata", "deletionTimestamp"))
        await until(lambda: "TaintManagerEviction" in reasons(api, "brief"))
        assert (
            conditions.of(api.get(POD, "brief", "default"), "DisruptionTarget")["reason"]
            == "DeletionByTaintManager"
        )
        assert not dig(api.get(POD, "patient", "default"), "metadata", "deletionTimestamp")
        assert conditions.status_of(api.get(POD, "forever", "default"), "Ready") == "True"
        assert ready(api, "node2")["status"] == "True"
        nodes.revive("node1")
        await until(lambda: taints(api, "node1") == [])
        await until(lambda: "TaintManagerEviction" in reasons(api, "patient"))
        assert not dig(api.get(POD, "patient", "default"), "metadata", "deletionTimestamp")


async def test_nobody_is_evicted_when_all_nodes_are_silent() -> None:
    api = FakeApi()
    async with lifecycle(api) as nodes:
        await add_pod(api, "p", "node1", None)
        nodes.silence("node1")
        nodes.silence("node2")
        await until(lambda: all(ready(api, each)["status"] == "Unknown" for each in ("node1", "node2")))
        await until(lambda: all(taints(api, each) for each in ("node1", "node2")))
        # The first one found silent may have been tainted before the second; that is taken back.
        await until(
            lambda: all(
                taints(api, each) == [("node.kubernetes.io/unreachable", "NoSchedule")]
                for each in ("node1", "node2")
            )
        )


async def test_a_node_that_never_reported() -> None:
    api = FakeApi()
    async with lifecycle(api):
        await api.client().create(NODE, {"metadata": {"name": "mute"}, "spec": {}, "status": {}})
        await until(lambda: ready(api, "mute").get("reason") == "NodeStatusNeverUpdated")


async def test_pods_of_a_deleted_node_go() -> None:
    api = FakeApi()
    async with lifecycle(api):
        await add_pod(api, "stays", "node2", 300)
        await add_pod(api, "goes", "node1", 300)
        api.remove(NODE, "node1")
        await until(lambda: [name(each) for each in api.all(POD)] == ["stays"])
        await until(lambda: "RemovingNode" in reasons(api, "node1"))


async def test_a_node_that_comes_back_in_time_keeps_its_pods() -> None:
    api = FakeApi()
    async with lifecycle(api) as nodes:
        await add_pod(api, "stays", "node1", 300)
        api.remove(NODE, "node1")
        nodes.silence("node1")
        await nodes.add("node1")
        api.remove(NODE, "node2")
        await add_pod(api, "goes", "node2", 300)
        await until(lambda: [name(each) for each in api.all(POD)] == ["stays"])


def test_taints_follow_conditions_and_keep_what_others_set() -> None:
    one = node("n")
    custom = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    since = format_time(datetime.now(UTC) - timedelta(hours=1))
    old = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": since}
    gone = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": since}
    one["spec"] = {"unschedulable": True, "taints": [custom, gone, old]}
    one["status"]["conditions"] = [
        {"type": "Ready", "status": "False"},
        {"type": "DiskPressure", "status": "True"},
    ]
    found = with_taints(one, evict=True)
    assert found[:2] == [custom, old]
    assert {(each["key"], each["effect"]) for each in found[2:]} == {
        ("node.kubernetes.io/not-ready", "NoSchedule"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    }
    one["spec"]["taints"] = found
    assert with_taints(one, evict=True) == found


@asynccontextmanager
async def ipam(api: FakeApi, cidr: str, mask: int) -> AsyncIterator[None]:
    client = api.client()
    informers = Informers(client)
    subject = NodeIpamController(client, informers, ipaddress.ip_network(cidr), mask)
    async with running(informers.run(), subject.run()):
        yield


def ranges(api: FakeApi) -> dict[str, str]:
    return {name(each): dig(each, "spec", "podCIDR", default="") for each in api.all(NODE)}


async def test_ranges_are_given_once_run_out_and_come_free() -> None:
    api = FakeApi()
    client = api.client()
    taken = node("old", spec={"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]})
    await client.create(NODE, taken)
    async with ipam(api, "10.244.0.0/22", 24):
        for number in range(3):
            await client.create(NODE, node(f"n{number}"))
        await until(lambda: all(ranges(api).values()))
        assert sorted(ranges(api).values()) == [f"10.244.{number}.0/24" for number in range(4)]
        await client.create(NODE, node("late"))
        event = await until(lambda: next(iter(api.all(EVENT)), None))
        assert event["reason"] == "CIDRNotAvailable"
        assert event["message"] == "Node late status is now: CIDRNotAvailable"
        freed = ranges(api)["n1"]
        api.remove(NODE, "n1")
        await until(lambda: ranges(api)["late"] == freed)


async def test_a_returned_range_rests_and_nothing_leaks() -> None:
    api = FakeApi()
    client = api.client()
    async with ipam(api, "10.0.0.0/16", 24):
        seen = []
        for _ in range(5):
            await client.create(NODE, node("n"))
            await until(lambda: ranges(api).get("n"))
            seen.append(ranges(api)["n"])
            api.remove(NODE, "n")
        assert len(set(seen)) == 5


async def test_fifty_nodes_come_and_go_in_a_small_range_and_every_range_comes_back() -> None:
    """Four ranges: one node stays, one is always too many, and has its range as soon as one is removed."""
    api = FakeApi()
    client = api.client()
    async with ipam(api, "10.244.0.0/22", 24):
        for name_ in ("kept", "n0", "n1", "n2"):
            await client.create(NODE, node(name_))
        await until(lambda: all(ranges(api).values()))
        kept = ranges(api)["kept"]
        for number in range(3, 53):
            late = f"n{number}"
            await client.create(NODE, node(late))
            await until(lambda late=late: late in refused(api))
            assert ranges(api)[late] == ""
            freed = ranges(api)[f"n{number - 3}"]
            api.remove(NODE, f"n{number - 3}")
            await until(lambda late=late, freed=freed: ranges(api)[late] == freed)
            assert sorted(ranges(api).values()) == [f"10.244.{third}.0/24" for third in range(4)]
        assert ranges(api)["kept"] == kept


def refused(api: FakeApi) -> set[str]:
    """The nodes of which an event says that there was no range."""
    return {each["involvedObject"]["name"] for each in api.all(EVENT) if each["reason"] == "CIDRNotAvailable"}


async def test_a_controller_that_comes_anew_gives_nothing_twice() -> None:
    api = FakeApi()
    client = api.client()
    for round_ in range(3):
        async with ipam(api, "10.244.0.0/21", 24):
            for number in range(2):
                await client.create(NODE, node(f"n{round_}-{number}"))
            await until(lambda: all(ranges(api).values()))
        assert len(set(ranges(api).values())) == len(ranges(api)) == 2 * (round_ + 1)
