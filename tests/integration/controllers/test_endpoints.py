"""The Endpoints and EndpointSlice controllers against an API in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.client_fake import FakeApi
from support.client_objects import node
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.endpoints_controller import EndpointsController
from controlplane.controllers.endpoints.slice_controller import EndpointSliceController
from controlplane.controllers.endpoints.subsets import subsets
from controlplane.errors import Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import labels, uid
from controlplane.resources.catalog import ENDPOINT_SLICE, ENDPOINTS, NODE, POD, SERVICE

TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": "10.96.0.9",
            "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "web"}],
            **spec,
        },
    }


@asynccontextmanager
async def controllers(api: FakeApi) -> AsyncIterator[None]:
    client = api.client()
    await client.create(NODE, node("node1", labels={"topology.kubernetes.io/zone": "east"}))
    informers = Informers(client)
    parts = (EndpointsController(client, informers), EndpointSliceController(client, informers))
    async with running(informers.run(), *(part.run() for part in parts)):
        yield


async def add_pod(api: FakeApi, number: int, *, ready: bool = True, port: int = 80, **spec: Any) -> Object:
    created = await api.client().create(
        POD,
        {
            "metadata": {"name": f"web-{number}", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "node1",
                "containers": [{"ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}],
                **spec,
            },
        },
    )
    set_ready(api, number, ready, f"2026-01-01T00:00:0{number % 10}Z")
    return created


def set_ready(api: FakeApi, number: int, ready: bool, since: str = "2026-01-01T00:00:00Z") -> None:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}
    address = f"10.244.{number // 250}.{number % 250 + 1}"
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
    api.edit(POD, f"web-{number}", "default", lambda obj: obj.update(status=status))


def slices(api: FakeApi) -> list[Object]:
    return api.all(ENDPOINT_SLICE)


def listed(api: FakeApi) -> dict[str, Object]:
    return {endpoint["addresses"][0]: endpoint for each in slices(api) for endpoint in each["endpoints"]}


def subset(api: FakeApi, key: str = "addresses") -> list[str]:
    found = api.get(ENDPOINTS, "web", "default")
    return [entry["ip"] for each in (found or {}).get("subsets", ()) for entry in each.get(key, ())]


async def test_both_forms_of_a_ready_pod() -> None:
    api = FakeApi()
    async with controllers(api):
        created = await api.client().create(SERVICE, service())
        pod = await add_pod(api, 1)
        await until(lambda: listed(api) and subset(api))
        [only] = slices(api)
    assert only["endpoints"] == [
        {
            "addresses": ["10.244.0.2"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-1", "uid": uid(pod)},
            "nodeName": "node1",
            "zone": "east",
        }
    ]
    assert only["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
    assert only["addressType"] == "IPv4"
    assert only["metadata"]["ownerReferences"][0]["uid"] == uid(created)
    assert only["metadata"]["name"].startswith("web-")
    assert annotations_of(only)[TRIGGER] == "2026-01-01T00:00:01Z"
    endpoints = api.get(ENDPOINTS, "web", "default")
    assert endpoints["subsets"] == [
        {
            "addresses": [
                {
                    "ip": "10.244.0.2",
                    "nodeName": "node1",
                    "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-1", "uid": uid(pod)},
                }
            ],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }
    ]


async def test_readiness_termination_and_relabelling() -> None:
    api = FakeApi()
    async with controllers(api):
        await api.client().create(SERVICE, service())
        for number in (1, 2, 3):
            await add_pod(api, number)
        await until(lambda: len(listed(api)) == 3 and len(subset(api)) == 3)
        set_ready(api, 1, False)
        await until(lambda: not listed(api)["10.244.0.2"]["conditions"]["ready"])
        await until(lambda: subset(api, "notReadyAddresses") == ["10.244.0.2"])
        await api.client().delete(POD, "web-2", "default")
        await until(lambda: listed(api)["10.244.0.3"]["conditions"]["terminating"])
        assert listed(api)["10.244.0.3"]["conditions"] == {
            "ready": False,
            "serving": True,
            "terminating": True,
        }
        await until(lambda: subset(api) == ["10.244.0.4"])
        api.edit(POD, "web-3", "default", lambda obj: obj["metadata"].update(labels={"app": "debug"}))
        await until(lambda: "10.244.0.4" not in listed(api) and subset(api) == [])
        api.edit(POD, "web-1", "default", lambda obj: obj["status"].update(phase="Failed"))
        await until(lambda: "10.244.0.2" not in listed(api))


async def test_named_target_ports_are_looked_up_in_each_pod() -> None:
    api = FakeApi()
    async with controllers(api):
        await api.client().create(SERVICE, service())
        await add_pod(api, 1, port=80)
        await add_pod(api, 2, port=8081)
        await until(lambda: len(listed(api)) == 2)
        assert sorted(each["ports"][0]["port"] for each in slices(api)) == [80, 8081]
        await until(lambda: len(subset(api)) == 2)
        assert len(api.get(ENDPOINTS, "web", "default")["subsets"]) == 2


async def test_hundred_and_one_endpoints_take_two_slices_and_one_change_one_write() -> None:
    api = FakeApi()
    async with controllers(api):
        await api.client().create(SERVICE, service())
        for number in range(101):
            await add_pod(api, number)
        await until(lambda: len(listed(api)) == 101 and len(slices(api)) == 2)
        before = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in slices(api)}
        set_ready(api, 5, False)
        await until(lambda: not listed(api)["10.244.0.6"]["conditions"]["ready"])
        after = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in slices(api)}
        assert sum(before[key] != after[key] for key in before) == 1


async def test_headless_with_host_names_and_unready_addresses() -> None:
    api = FakeApi()
    async with controllers(api):
        headless = service(clusterIP="None", publishNotReadyAddresses=True, ports=[])
        await api.client().create(SERVICE, headless)
        await add_pod(api, 1, ready=False, hostname="first", subdomain="web")
        await until(lambda: listed(api) and subset(api))
        [only] = slices(api)
    assert labels(only)["service.kubernetes.io/headless"] == ""
    assert only["ports"] == []
    assert only["endpoints"][0]["hostname"] == "first"
    assert only["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}
    assert labels(api.get(ENDPOINTS, "web", "default")) == {"service.kubernetes.io/headless": ""}


async def test_without_selector_or_as_alias_nothing_is_made_and_foreign_endpoints_stay() -> None:
    api = FakeApi()
    async with controllers(api):
        manual = {
            "metadata": {"name": "manual", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": "1.2.3.4"}]}],
        }
        await api.client().create(ENDPOINTS, manual)
        await api.client().create(SERVICE, service("manual", selector=None))
        await api.client().create(SERVICE, service("alias", type="ExternalName"))
        await api.client().create(SERVICE, service("web"))
        await until(lambda: len(slices(api)) == 1 and api.get(ENDPOINTS, "web", "default"))
        assert labels(slices(api)[0])["kubernetes.io/service-name"] == "web"
        assert api.get(ENDPOINTS, "manual", "default")["subsets"] == manual["subsets"]
        assert api.get(ENDPOINTS, "alias", "default") is None
        await api.client().delete(SERVICE, "web", "default")
        await until(lambda: api.get(ENDPOINTS, "web", "default") is None)


async def test_lagging_cache_makes_no_second_slice() -> None:
    api = FakeApi()
    async with controllers(api):
        await until(lambda: api.watches == 5)
        api.hold(ENDPOINT_SLICE)
        await api.client().create(SERVICE, service())
        await until(lambda: len(slices(api)) == 1)
        for number in range(5):
            await add_pod(api, number)
            await until(lambda n=number: len(subset(api)) == n + 1)
        assert len(slices(api)) == 1
        api.release()
        await until(lambda: len(listed(api)) == 5)
        assert len(slices(api)) == 1


async def test_a_pod_on_an_unknown_node_waits_for_the_node() -> None:
    api = FakeApi()
    async with controllers(api):
        await api.client().create(SERVICE, service())
        await add_pod(api, 1, nodeName="node2")
        await until(lambda: slices(api))
        assert listed(api) == {}
        await api.client().create(NODE, node("node2"))
        await until(lambda: listed(api))


async def test_prefer_close_hints() -> None:
    api = FakeApi()
    async with controllers(api):
        await api.client().create(SERVICE, service(trafficDistribution="PreferClose"))
        await add_pod(api, 1)
        await until(lambda: listed(api))
        assert listed(api)["10.244.0.2"]["hints"] == {"forZones": [{"name": "east"}]}


def test_over_capacity_keeps_ready_addresses() -> None:
    def pod(number: int, ready: bool) -> Object:
        return {
            "metadata": {"name": f"p{number}", "namespace": "default", "uid": str(number)},
            "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 80, "protocol": "TCP"}]}]},
            "status": {
                "podIP": f"10.0.0.{number}",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }

    pods = [pod(number, number % 2 == 0) for number in range(6)]
    found, truncated = subsets(service(), pods, capacity=4)
    assert truncated
    assert len(found[0]["addresses"]) == 3
    assert len(found[0]["notReadyAddresses"]) == 1
    assert not subsets(service(), pods, capacity=6)[1]
