"""When a node counts as Ready, what drains it, and what is deleted with it; against an API in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.client_objects import node, pod
from support.client_wait import until

from controlplane.client.client import Client
from controlplane.client.leases import LEASE_NAMESPACE
from controlplane.errors import NotFound, Object, TooManyRequests
from controlplane.meta.timestamps import micro_now
from controlplane.resources.catalog import EVENT, LEASE, NODE, POD
from controlplane.resources.kind import Kind
from netkit.cluster.errors import ClusterError
from netkit.cluster.node_api import NoPodRange, forget, is_registered, set_unschedulable, until_ready
from netkit.cluster.node_draining import empty

NOW = datetime.now(UTC)
ADDRESS = "172.18.0.14"


class Evicting(Client):
    """A client whose API knows evictions: `busy` counts how often a budget still says no."""

    def __init__(self, api: FakeApi) -> None:
        super().__init__(api)
        self.busy: dict[str, int] = {}
        self.evicted: list[str] = []

    async def create(
        self, kind: Kind, obj: Object, namespace: str = "", name: str = "", subresource: str = ""
    ) -> Object:
        if subresource != "eviction":
            return await super().create(kind, obj, namespace, name, subresource)
        assert (obj["kind"], obj["metadata"]["name"]) == ("Eviction", name)
        found = await self.get(POD, name, namespace)
        assert obj["deleteOptions"]["preconditions"] == {"uid": found["metadata"]["uid"]}
        if self.busy.get(name, 0) > 0:
            self.busy[name] -= 1
            raise TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.")
        self.evicted.append(name)
        return await self.delete(POD, name, namespace, grace=0)


def on(node_name: str, name: str, owner: str = "ReplicaSet") -> Object:
    """A pod there, made by a controller of that kind ("": by nobody)."""
    made = pod(name)
    made["spec"]["nodeName"] = node_name
    if owner:
        made["metadata"]["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": True}
        ]
    return made


async def joined(api: FakeApi, *, ready: str = "True", pod_range: str = "10.244.3.0/24") -> Object:
    made = node("node4", spec={"podCIDR": pod_range} if pod_range else {})
    made["status"] = {
        "addresses": [{"type": "InternalIP", "address": ADDRESS}],
        "conditions": [{"type": "Ready", "status": ready}, {"type": "NetworkUnavailable", "status": "False"}],
    }
    return await api.client().create(NODE, made)


async def renewed(api: FakeApi, at: str) -> None:
    lease: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "node4", "namespace": LEASE_NAMESPACE}, "spec": {"renewTime": at},
    }  # fmt: skip
    await api.client().create(LEASE, lease)


async def test_a_node_is_ready_when_it_says_so_itself_and_now() -> None:
    api = FakeApi()
    await joined(api)
    await renewed(api, "2020-01-01T00:00:00.000000Z")
    waiting = asyncio.create_task(until_ready(api.client(), "node4", NOW, ADDRESS))
    await until(lambda: api.watches >= 2)
    assert not waiting.done()
    api.edit(LEASE, "node4", LEASE_NAMESPACE, lambda lease: lease["spec"].update(renewTime=micro_now()))
    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("what", ["not ready", "no range", "other address"])
async def test_all_of_it_has_to_be_there(what: str) -> None:
    api = FakeApi()
    await joined(
        api, ready="False" if what == "not ready" else "True", pod_range="" if what == "no range" else "10/8"
    )
    await renewed(api, micro_now())
    wanted = "172.18.0.99" if what == "other address" else ADDRESS
    waiting = asyncio.create_task(until_ready(api.client(), "node4", NOW - timedelta(1), wanted))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)

    def complete(found: dict[str, Any]) -> None:
        found["spec"]["podCIDR"] = "10.244.3.0/24"
        found["status"]["addresses"][0]["address"] = wanted
        found["status"]["conditions"][0]["status"] = "True"

    api.edit(NODE, "node4", "", complete)
    await asyncio.wait_for(waiting, 5)


async def test_a_node_without_a_range_is_not_waited_for() -> None:
    api = FakeApi()
    made = await joined(api, pod_range="")
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "reason": "CIDRNotAvailable", "involvedObject": {"kind": "Node", "name": "node4", "uid": "another"},
    }  # fmt: skip
    await api.client().create(EVENT, event)
    waiting = asyncio.create_task(until_ready(api.client(), "node4", NOW))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    event["metadata"] = {"name": "f", "namespace": "default"}
    event["involvedObject"] = {"kind": "Node", "name": "node4", "uid": made["metadata"]["uid"]}
    await api.client().create(EVENT, event)
    with pytest.raises(NoPodRange, match="there is no range of pod addresses left for node4"):
        await asyncio.wait_for(waiting, 5)


async def test_cordoning_says_whether_it_changed_anything() -> None:
    api = FakeApi()
    await joined(api)
    client = api.client()
    assert [await set_unschedulable(client, "node4", value) for value in (True, True, False, False)] == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(NotFound):
        await set_unschedulable(client, "node9", True)


async def test_a_node_that_is_forgotten_takes_its_pods_with_it() -> None:
    api = FakeApi()
    await joined(api)
    client = api.client()
    for made in (on("node4", "here"), on("node1", "there")):
        await client.create(POD, made)
    assert await is_registered(client, "node4")
    for _ in range(2):
        await forget(client, "node4")
    assert not await is_registered(client, "node4")
    assert [each["metadata"]["name"] for each in api.all(POD)] == ["there"]


async def test_pods_are_evicted_as_their_budgets_allow_and_daemons_stay() -> None:
    api = FakeApi()
    await joined(api)
    client, gone = Evicting(api), list[str]()
    for made in (
        on("node4", "web"),
        on("node4", "slow"),
        on("node4", "daemon", "DaemonSet"),
        on("node1", "far"),
    ):
        await client.create(POD, made)
    client.busy["slow"] = 2
    drained = await empty(client, "node4", force=False, seconds=30, report=gone.append)
    assert drained.evicted == ("default/slow", "default/web")
    assert gone == ["default/web", "default/slow"]
    assert sorted(each["metadata"]["name"] for each in api.all(POD)) == ["daemon", "far"]
    found = api.get(NODE, "node4")
    assert found is not None
    assert found["spec"]["unschedulable"] is True


@pytest.mark.parametrize("cordoned", [True, False])
async def test_what_nobody_would_make_anew_is_kept_without_force(cordoned: bool) -> None:
    api = FakeApi()
    await joined(api)
    client = Evicting(api)
    for made in (on("node4", "web"), *(on("node4", f"lone-{number}", "") for number in range(5))):
        await client.create(POD, made)
    if cordoned:
        await set_unschedulable(client, "node4", True)
    with pytest.raises(ClusterError) as refused:
        await empty(client, "node4", force=False, seconds=1, report=lambda pod: None)
    assert refused.value.message == (
        "node4 has pods that nobody would make anew: default/lone-0, default/lone-1, default/lone-2 and 2 more"
    )
    assert client.evicted == []
    found = api.get(NODE, "node4")
    assert found is not None
    assert bool(found["spec"].get("unschedulable")) is cordoned
    await empty(client, "node4", force=True, seconds=30, report=lambda pod: None)
    assert api.all(POD) == []


async def test_who_does_not_leave_in_time_is_named_with_the_reason() -> None:
    api = FakeApi()
    await joined(api)
    client = Evicting(api)
    for made in (on("node4", "web"), on("node4", "stuck")):
        await client.create(POD, made)
    client.busy["stuck"] = 1_000_000
    with pytest.raises(ClusterError) as refused:
        await empty(client, "node4", force=False, seconds=1, report=lambda pod: None)
    assert refused.value.message == "node4 still has pods after 1 s: default/stuck"
    assert "disruption budget" in refused.value.hint
    found = api.get(NODE, "node4")
    assert found is not None
    assert not found["spec"].get("unschedulable")
