"""IPAddress objects and ServiceCIDRs: what Services hold is there to be seen, and what they say is obeyed."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.apiserver.allocation import ServiceAllocator
from controlplane.apiserver.registry import (
    DeleteOptions,
    ListOptions,
    PatchType,
    Registry,
    Seed,
    WriteOptions,
)
from controlplane.errors import AlreadyExists, InternalError, Invalid
from controlplane.meta.objects import clone
from controlplane.resources.catalog import IP_ADDRESS, KINDS, SERVICE, SERVICE_CIDR
from controlplane.store.memory import MemoryStore

RANGE = ipaddress.ip_network("10.0.0.0/28")
WRITE = WriteOptions()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    made = await start(store)
    yield made
    await made.close()


async def start(store: MemoryStore, *networks: Any) -> Registry:
    registry = Registry(store, KINDS, allocators=[ServiceAllocator(networks or [RANGE])])
    await registry.start()
    return registry


async def service(registry: Registry, name: str, **spec: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
    return clone((await registry.create(SERVICE, "default", clone(body), WRITE)).object)


async def addresses(registry: Registry) -> dict[str, str]:
    """The names of all IPAddresses and whose they are."""
    found = (await registry.list(IP_ADDRESS, "", ListOptions())).items
    return {stored.object["metadata"]["name"]: stored.object["spec"]["parentRef"]["name"] for stored in found}


async def by_hand(registry: Registry, address: str, **options: Any) -> None:
    parent = {"group": "example.com", "resource": "gateways", "name": "mine"}
    body = {"metadata": {"name": address}, "spec": {"parentRef": parent}}
    await registry.create(IP_ADDRESS, "", body, WriteOptions(**options))


async def cidr(registry: Registry, name: str, *cidrs: str) -> None:
    await registry.create(
        SERVICE_CIDR, "", {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}, WRITE
    )


async def test_an_address_is_an_object_as_long_as_its_service_has_it(registry: Registry) -> None:
    made = await service(registry, "a")
    address = made["spec"]["clusterIP"]
    obj = (await registry.get(IP_ADDRESS, "", address)).object
    assert obj["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert obj["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}
    await service(registry, "headless", clusterIP="None")
    assert await addresses(registry) == {address: "a"}
    await registry.delete(SERVICE, "default", "a", DeleteOptions())
    assert await addresses(registry) == {}


async def test_service_and_address_are_one_commit(registry: Registry, store: MemoryStore) -> None:
    before = await store.revision()
    made = await service(registry, "a")
    assert int(made["metadata"]["resourceVersion"]) == before + 1
    assert await store.revision() == before + 2
    with pytest.raises(AlreadyExists):
        await service(registry, "a")
    assert len(await addresses(registry)) == 1
    await registry.create(
        SERVICE,
        "default",
        {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 1}]}},
        WriteOptions(dry_run=True),
    )
    assert len(await addresses(registry)) == 1


async def test_changes_of_type_take_and_give_back_the_object(registry: Registry) -> None:
    made = await service(registry, "a")
    external = {"spec": {"type": "ExternalName", "externalName": "a.b"}}
    await registry.patch(SERVICE, "default", "a", PatchType.MERGE, external, WRITE)
    assert await addresses(registry) == {}
    back = {"spec": {"type": "ClusterIP", "externalName": None, "clusterIP": made["spec"]["clusterIP"]}}
    await registry.patch(SERVICE, "default", "a", PatchType.MERGE, back, WRITE)
    assert await addresses(registry) == {made["spec"]["clusterIP"]: "a"}


async def test_addresses_made_by_hand_are_not_given_out(registry: Registry) -> None:
    for last in range(1, 14):
        await by_hand(registry, f"10.0.0.{last}")
    await by_hand(registry, "192.168.0.1")
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await service(registry, "a", clusterIP="10.0.0.3")
    assert (await service(registry, "a"))["spec"]["clusterIP"] == "10.0.0.14"
    with pytest.raises(InternalError, match="range is full"):
        await service(registry, "b")
    with pytest.raises(AlreadyExists):
        await by_hand(registry, "10.0.0.14")
    await registry.delete(IP_ADDRESS, "", "10.0.0.3", DeleteOptions())
    assert (await service(registry, "b"))["spec"]["clusterIP"] == "10.0.0.3"


async def test_a_dry_run_by_hand_takes_nothing(registry: Registry) -> None:
    await by_hand(registry, "10.0.0.3", dry_run=True)
    await service(registry, "a", clusterIP="10.0.0.3")


async def test_an_object_deleted_by_hand_does_not_free_a_services_address(registry: Registry) -> None:
    address = (await service(registry, "a"))["spec"]["clusterIP"]
    await registry.delete(IP_ADDRESS, "", address, DeleteOptions())
    with pytest.raises(Invalid, match="already allocated"):
        await service(registry, "b", clusterIP=address)
    await registry.delete(SERVICE, "default", "a", DeleteOptions())
    await service(registry, "b", clusterIP=address)


async def test_a_start_repairs_what_is_missing_or_left_over(registry: Registry, store: MemoryStore) -> None:
    kept = (await service(registry, "kept", clusterIP="10.0.0.5"))["spec"]["clusterIP"]
    await registry.delete(IP_ADDRESS, "", kept, DeleteOptions())
    lost = {
        "metadata": {
            "name": "10.0.0.9",
            "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}},
    }
    await registry.create(IP_ADDRESS, "", lost, WRITE)
    await by_hand(registry, "10.0.0.10")
    await registry.close()
    again = await start(store)
    assert await addresses(again) == {kept: "kept", "10.0.0.10": "mine"}
    with pytest.raises(Invalid, match="already allocated"):
        await service(again, "x", clusterIP="10.0.0.10")
    await service(again, "y", clusterIP="10.0.0.9")
    await again.close()


async def test_further_ranges_are_used_and_given_up(registry: Registry, store: MemoryStore) -> None:
    with pytest.raises(
        Invalid, match=r"is not in the valid range\. The range of valid IPs is 10\.0\.0\.0/28"
    ):
        await service(registry, "a", clusterIP="10.1.0.5")
    await cidr(registry, "more", "10.1.0.0/28")
    await service(registry, "a", clusterIP="10.1.0.5")
    with pytest.raises(Invalid, match="the provided network does not match the current range"):
        await service(registry, "b", clusterIP="10.2.0.5")
    await asyncio.gather(*(service(registry, f"s{number}") for number in range(14 + 13)))
    with pytest.raises(InternalError, match="range is full"):
        await service(registry, "b")
    assert len(set(await addresses(registry))) == 28
    await registry.close()
    again = await start(store)
    with pytest.raises(InternalError, match="range is full"):
        await service(again, "b")
    await again.delete(SERVICE, "default", "a", DeleteOptions())
    await again.delete(SERVICE_CIDR, "", "more", DeleteOptions())
    with pytest.raises(Invalid, match="not in the valid range"):
        await service(again, "b", clusterIP="10.1.0.5")
    await again.close()


async def test_ranges_may_overlap_and_wait_until_they_are_ready(registry: Registry) -> None:
    await cidr(registry, "inside", "10.0.0.0/29")
    made = await asyncio.gather(*(service(registry, f"s{number}") for number in range(14)))
    assert len({each["spec"]["clusterIP"] for each in made}) == 14
    await cidr(registry, "later", "10.3.0.0/28")
    waiting = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    await registry.patch(SERVICE_CIDR, "", "later", PatchType.MERGE, waiting, WRITE, "status")
    with pytest.raises(InternalError, match="range is full"):
        await service(registry, "x")


async def test_seeds_are_planted_once_in_one_commit_and_renewed(
    registry: Registry, store: MemoryStore
) -> None:
    before = await store.revision()
    wanted = [
        Seed(
            SERVICE_CIDR,
            {"metadata": {"name": name}, "spec": {"cidrs": [f"10.9.{name}.0/24"]}},
            renew=name == "1",
        )
        for name in ("1", "2")
    ]
    assert await registry.plant(wanted) == 2
    assert await store.revision() == before + 2
    assert await registry.plant(wanted) == 0
    made = (await registry.get(SERVICE_CIDR, "", "1")).object
    assert made["metadata"]["uid"]
    for name in ("1", "2"):
        await registry.patch(
            SERVICE_CIDR,
            "",
            name,
            PatchType.MERGE,
            {"spec": {"cidrs": [f"10.9.{name}.0/24", "fd00::/64"]}},
            WRITE,
        )
    assert await registry.plant(wanted) == 1
    assert (await registry.get(SERVICE_CIDR, "", "1")).object["spec"] == {"cidrs": ["10.9.1.0/24"]}
    assert len((await registry.get(SERVICE_CIDR, "", "2")).object["spec"]["cidrs"]) == 2
