"""Quotas and limit ranges end to end: admission charges, the controller counts, deletion frees."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.batch import World, succeeded, world

from controlplane.apiserver.registry import WriteOptions
from controlplane.client.client import PatchType
from controlplane.controllers.resource_quota import ResourceQuotaController
from controlplane.errors import AlreadyExists, Forbidden, Object
from controlplane.meta.objects import dig
from controlplane.resources.catalog import (
    CONFIG_MAP,
    DEPLOYMENT,
    KINDS,
    LIMIT_RANGE,
    POD,
    RESOURCE_QUOTA,
    SERVICE,
)


def quotas(client: Any, informers: Any, clock: Any) -> ResourceQuotaController:
    return ResourceQuotaController(client, informers, KINDS, clock, settle=0.01)


def quota(name: str = "q", **spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "namespace": "default"},
            "spec": spec}  # fmt: skip


def pod(name: str, cpu: str = "", limit: str = "", **spec: Any) -> Object:
    resources: Object = {}
    if cpu:
        resources["requests"] = {"cpu": cpu}
    if limit:
        resources["limits"] = {"cpu": limit}
    container = {"name": "main", "image": "busybox", "resources": resources}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], **spec}}  # fmt: skip


async def made(there: World, **spec: Any) -> None:
    """A quota whose status is known."""
    await there.client.create(RESOURCE_QUOTA, quota(**spec))
    await there.until(lambda: dig(there.get(RESOURCE_QUOTA, "q"), "status", "used") is not None)


def used(there: World) -> Object:
    found: Object = dig(there.get(RESOURCE_QUOTA, "q"), "status", "used", default={})
    return found


async def refused(there: World, kind: Any, obj: Object) -> str:
    with pytest.raises(Forbidden) as refusal:
        await there.client.create(kind, obj)
    return refusal.value.message


async def test_pods_are_charged_and_freed() -> None:
    async with world(quotas) as there:
        await made(there, hard={"pods": "2", "requests.cpu": "1", "limits.cpu": "4"})
        await there.client.create(POD, pod("one", "600m", "2"))
        await there.until(lambda: used(there) == {"limits.cpu": "2", "pods": "1", "requests.cpu": "600m"})
        assert await refused(there, POD, pod("two", "500m", "1")) == (
            'pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, '
            "limited: requests.cpu=1"
        )
        assert await refused(there, POD, pod("two", "100m")) == (
            'pods "two" is forbidden: failed quota: q: must specify limits.cpu for: main'
        )
        assert await refused(there, POD, pod("two")) == (
            'pods "two" is forbidden: failed quota: q: must specify limits.cpu for: main; requests.cpu for: main'
        )
        await there.client.create(POD, pod("two", "400m", "1"))
        assert "pods=1, used: pods=2, limited: pods=2" in await refused(there, POD, pod("three", "0", "0"))
        await there.client.delete(POD, "one", "default", grace=0)
        await there.until(lambda: used(there) == {"limits.cpu": "1", "pods": "1", "requests.cpu": "400m"})
        # A pod that has ended uses nothing.
        there.outcome = succeeded
        there.look_again()
        await there.until(lambda: used(there) == {"limits.cpu": "0", "pods": "0", "requests.cpu": "0"})


async def test_a_quota_without_numbers_refuses() -> None:
    async with world(watch=(RESOURCE_QUOTA,)) as there:
        created = await there.client.create(RESOURCE_QUOTA, quota(hard={"pods": "2"}))
        # Nobody has set the limits: nothing is limited yet.
        await there.client.create(POD, pod("one"))
        await there.client.update_status(RESOURCE_QUOTA, {**created, "status": {"hard": {"pods": "2"}}})
        assert "status unknown for quota: q, resources: pods" in await refused(there, POD, pod("two"))


@pytest.mark.parametrize(
    ("scope", "in_scope", "outside"),
    [
        ("Terminating", {"activeDeadlineSeconds": 5}, {}),
        ("NotTerminating", {}, {"activeDeadlineSeconds": 5}),
        ("PriorityClass", {"priorityClassName": "high"}, {}),
        (
            "CrossNamespacePodAffinity",
            {
                "affinity": {
                    "podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"topologyKey": "zone", "namespaceSelector": {}}
                        ]
                    }
                }
            },
            {},
        ),
    ],
)
async def test_scopes(scope: str, in_scope: Object, outside: Object) -> None:
    async with world(quotas) as there:
        await made(there, hard={"pods": "0"}, scopes=[scope])
        await there.client.create(POD, pod("outside", **outside))
        assert "exceeded quota" in await refused(there, POD, pod("inside", **in_scope))


async def test_the_scope_selector_asks_for_priority_classes() -> None:
    terms = [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
    async with world(quotas) as there:
        await made(there, hard={"pods": "0"}, scopeSelector={"matchExpressions": terms})
        await there.client.create(POD, pod("low", priorityClassName="low"))
        assert "exceeded quota" in await refused(there, POD, pod("high", priorityClassName="high"))


async def test_services_and_their_ports() -> None:
    async with world(quotas) as there:
        await made(there, hard={"services": "3", "services.nodeports": "2", "services.loadbalancers": "1"})

        def service(name: str, type_: str, ports: int = 1) -> Object:
            listed = [{"name": f"p{n}", "port": 80 + n} for n in range(ports)]
            return {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": type_, "ports": listed},
            }

        await there.client.create(SERVICE, service("a", "NodePort"))
        # `kubernetes` counts, too.
        await there.until(
            lambda: used(there) == {"services": "2", "services.loadbalancers": "0", "services.nodeports": "1"}
        )
        assert "services.nodeports=2" in await refused(there, SERVICE, service("b", "LoadBalancer", 2))
        await there.client.create(SERVICE, service("b", "LoadBalancer"))
        assert "exceeded quota" in await refused(there, SERVICE, service("c", "ClusterIP"))
        # What an update adds is charged as well, and what it gives back is freed.
        await there.client.delete(SERVICE, "b", "default")
        await there.until(lambda: used(there)["services"] == "2")
        await there.client.patch(SERVICE, "a", {"spec": {"type": "ClusterIP"}}, "default", PatchType.MERGE)
        await there.until(lambda: used(there)["services.nodeports"] == "0")


async def test_objects_of_every_kind_are_counted() -> None:
    async with world(quotas) as there:
        await made(there, hard={"count/deployments.apps": "1", "configmaps": "2", "count/configmaps": "2"})

        def web(name: str) -> Object:
            template = {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            }
            return {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
            }

        await there.client.create(DEPLOYMENT, web("one"))
        message = await refused(there, DEPLOYMENT, web("two"))
        assert message == (
            'deployments.apps "two" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, '
            "used: count/deployments.apps=1, limited: count/deployments.apps=1"
        )
        await there.client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}})
        await there.until(lambda: used(there)["configmaps"] == used(there)["count/configmaps"] == "1")


async def test_concurrent_creates_never_take_more_than_there_is() -> None:
    async with world(quotas) as there:
        await made(there, hard={"pods": "7", "requests.cpu": "2"})
        random_order = random.Random(1)

        async def attempt(number: int) -> bool:
            try:
                await there.client.create(POD, pod(f"p{number}", "250m"))
            except Forbidden:
                return False
            if random_order.random() < 0.2:
                await there.client.delete(POD, f"p{number}", "default", grace=0)
            return True

        results = await asyncio.gather(*(attempt(number) for number in range(40)))
        assert any(results)
        assert not all(results)
        assert len(there.all(POD)) <= 7
        await there.until(lambda: used(there)["pods"] == str(len(there.all(POD))))


async def test_a_dry_run_charges_nothing_and_a_lost_create_is_counted_anew() -> None:
    async with world(quotas) as there:
        await made(there, hard={"pods": "3"})
        assert there.registry is not None
        await there.registry.create(POD, "default", pod("one"), WriteOptions(dry_run=True))
        assert used(there) == {"pods": "0"}
        await there.client.create(POD, pod("one"))
        with pytest.raises(AlreadyExists):
            await there.client.create(POD, pod("one"))
        await there.until(lambda: used(there) == {"pods": "2"})
        await there.client.create(POD, pod("two"))
        await there.client.delete(POD, "two", "default", grace=0)
        await there.until(lambda: used(there) == {"pods": "1"})


async def test_changed_limits_and_a_raised_quota() -> None:
    async with world(quotas) as there:
        await made(there, hard={"pods": "0"})
        await refused(there, POD, pod("one"))
        await there.client.patch(RESOURCE_QUOTA, "q", {"spec": {"hard": {"pods": "1"}}}, "default")
        await there.until(lambda: there.get(RESOURCE_QUOTA, "q")["status"]["hard"] == {"pods": "1"})
        await there.client.create(POD, pod("one"))


# Limit ranges.


def limit_range(*limits: Object) -> Object:
    return {"metadata": {"name": "limits", "namespace": "default"}, "spec": {"limits": list(limits)}}


async def test_containers_get_their_defaults() -> None:
    async with world() as there:
        await there.client.create(
            LIMIT_RANGE,
            limit_range(
                {
                    "type": "Container",
                    "default": {"cpu": "1"},
                    "defaultRequest": {"cpu": "500m", "memory": "1Gi"},
                }
            ),
        )
        made_pod = await there.client.create(POD, pod("one"))
        assert made_pod["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1"},
        }  # fmt: skip
        assert made_pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu, memory request for container main; cpu limit for container main"
        )
        assert made_pod["status"]["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("limit", "container", "message"),
    [
        (
            {"type": "Container", "min": {"cpu": "100m"}},
            ("50m", "1"),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            {"type": "Container", "max": {"cpu": "1"}},
            ("500m", "2"),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}},
            ("500m", ""),
            "maximum cpu usage per Pod is 1.  No limit is specified",
        ),
        (
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            ("100m", "400m"),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
        (
            {"type": "Pod", "min": {"memory": "1Gi"}},
            ("100m", "400m"),
            "minimum memory usage per Pod is 1Gi.  No request is specified",
        ),
    ],
)
async def test_out_of_bounds(limit: Object, container: tuple[str, str], message: str) -> None:
    async with world() as there:
        await there.client.create(LIMIT_RANGE, limit_range(limit))
        assert await refused(there, POD, pod("one", *container)) == f'pods "one" is forbidden: {message}'
