"""ServiceCIDRs come and go, IPAddresses come back, claims and volumes are let go: over the real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from typing import Any

from support.client_wait import running, until

from controlplane.apiserver.admission import StorageObjectInUseProtection
from controlplane.apiserver.allocation.services import ServiceAllocator
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.union import FirstOf
from controlplane.apiserver.authz.chain import AlwaysAllow
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.local import LocalTransport
from controlplane.controllers.service_cidr import (
    IPAddressRepairController,
    ServiceCidrController,
    networks,
    orphans,
)
from controlplane.controllers.storage_protection import StorageProtectionController
from controlplane.errors import NotFound
from controlplane.meta import conditions
from controlplane.resources.catalog import (
    EVENT,
    IP_ADDRESS,
    KINDS,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    SERVICE_CIDR,
)
from controlplane.store.memory import MemoryStore

ADMIN = UserInfo("admin", groups=("system:masters",))


class World:
    """The client, and informers to wait with."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen = Informers(client)
        for kind in (SERVICE_CIDR, IP_ADDRESS, PERSISTENT_VOLUME_CLAIM, PERSISTENT_VOLUME, EVENT):
            self.seen.of(kind)

    async def make(self, kind: Any, name: str, namespace: str = "", **body: Any) -> Any:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        return await self.client.create(kind, {"metadata": metadata, **body})

    async def until(self, kind: Any, namespace: str, name: str, condition: Callable[[Any], Any]) -> Any:
        def met() -> Any:
            return condition(self.seen.of(kind).get(namespace, name))

        return await until(met)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    store = MemoryStore()
    registry = Registry(
        store,
        KINDS,
        admission=[StorageObjectInUseProtection()],
        allocators=[ServiceAllocator([IPv4Network("10.96.0.0/24")])],
    )
    await registry.start()

    async def no_dial(node: str, port: int) -> Any:
        raise ConnectionError("no kubelets here")

    server = ApiServer(ServerConfig(), registry, Authentication(FirstOf(())), AlwaysAllow(), no_dial)
    client = Client(LocalTransport(server.handle, ADMIN, ApiRequest))
    found, informers = World(client), Informers(client)
    parts: list[Callable[[], Awaitable[None]]] = [
        ServiceCidrController(client, informers).run,
        IPAddressRepairController(client, informers).run,
        StorageProtectionController(client, client, informers).run,
    ]
    try:
        async with running(informers.run(), found.seen.run(), *(part() for part in parts)):  # type: ignore[arg-type]
            yield found
    finally:
        await registry.close()
        await server.close()
        await store.close()


def ready(service_cidr: Any) -> Any:
    return service_cidr and conditions.of(service_cidr, "Ready")


async def test_a_range_is_ready_and_goes_when_nothing_uses_it() -> None:
    async with world() as it:
        await it.make(SERVICE_CIDR, "more", spec={"cidrs": ["10.97.0.0/24"]})
        condition = await it.until(SERVICE_CIDR, "", "more", ready)
        assert (condition["status"], condition["reason"]) == ("True", "")
        assert condition["message"] == "Kubernetes Service CIDR is ready"
        await it.make(SERVICE, "web", "default", spec={"clusterIP": "10.97.0.5", "ports": [{"port": 80}]})
        await it.until(IP_ADDRESS, "", "10.97.0.5", bool)
        await it.client.delete(SERVICE_CIDR, "more")
        condition = await it.until(
            SERVICE_CIDR, "", "more", lambda found: (c := ready(found)) and c["status"] == "False" and c
        )
        assert (condition["reason"], condition["message"]) == (
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        )
        await it.client.delete(SERVICE, "web", "default")
        await it.until(SERVICE_CIDR, "", "more", lambda found: found is None)


async def test_a_range_goes_when_another_one_has_its_addresses() -> None:
    async with world() as it:
        await it.make(SERVICE_CIDR, "small", spec={"cidrs": ["10.97.0.0/24"]})
        await it.make(SERVICE, "web", "default", spec={"clusterIP": "10.97.0.5", "ports": [{"port": 80}]})
        await it.make(SERVICE_CIDR, "large", spec={"cidrs": ["10.97.0.0/16"]})
        await it.until(SERVICE_CIDR, "", "large", ready)
        await it.until(SERVICE_CIDR, "", "small", ready)
        await it.client.delete(SERVICE_CIDR, "small")
        await it.until(SERVICE_CIDR, "", "small", lambda found: found is None)


def test_orphans() -> None:
    small = networks({"spec": {"cidrs": ["10.0.0.0/24", "what"]}})
    assert orphans(small, [], ["10.0.0.1", "10.0.1.1", "fd00::1"]) == ["10.0.0.1"]
    assert orphans(small, networks({"spec": {"cidrs": ["10.0.0.0/8"]}}), ["10.0.0.1"]) == []


async def test_the_address_of_a_service_comes_back() -> None:
    async with world() as it:
        service = await it.make(SERVICE, "web", "default", spec={"ports": [{"port": 80}]})
        address = service["spec"]["clusterIP"]
        first = await it.until(IP_ADDRESS, "", address, lambda found: found)
        await it.client.delete(IP_ADDRESS, address)
        again = await it.until(
            IP_ADDRESS,
            "",
            address,
            lambda found: found and found["metadata"]["uid"] != first["metadata"]["uid"] and found,
        )
        assert again["spec"]["parentRef"]["name"] == "web"
        event = await until(lambda: next(iter(it.seen.of(EVENT).items()), None))
        assert event["reason"] == "ClusterIPNotAllocated"
        await it.client.delete(SERVICE, "web", "default")
        await it.until(IP_ADDRESS, "", address, lambda found: found is None)


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


async def test_a_claim_stays_while_a_pod_uses_it() -> None:
    async with world() as it:
        await it.make(PERSISTENT_VOLUME_CLAIM, "data", "default", spec=CLAIM)
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
        spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}
        await it.make(POD, "p", "default", spec=spec)
        await it.client.delete(PERSISTENT_VOLUME_CLAIM, "data", "default")
        await it.make(PERSISTENT_VOLUME_CLAIM, "idle", "default", spec=CLAIM)
        await it.client.delete(PERSISTENT_VOLUME_CLAIM, "idle", "default")
        await it.until(PERSISTENT_VOLUME_CLAIM, "default", "idle", lambda found: found is None)
        kept = await it.client.get(PERSISTENT_VOLUME_CLAIM, "data", "default")
        assert kept["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        await it.client.delete(POD, "p", "default", grace=0)
        await it.until(PERSISTENT_VOLUME_CLAIM, "default", "data", lambda found: found is None)


async def test_a_bound_volume_stays() -> None:
    async with world() as it:
        spec = {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        made = await it.make(PERSISTENT_VOLUME, "v", spec=spec)
        bound = await it.client.update_status(PERSISTENT_VOLUME, {**made, "status": {"phase": "Bound"}})
        await it.client.delete(PERSISTENT_VOLUME, "v")
        await it.make(PERSISTENT_VOLUME, "w", spec=spec)
        await it.client.delete(PERSISTENT_VOLUME, "w")
        await it.until(PERSISTENT_VOLUME, "", "w", lambda found: found is None)
        going = await it.client.get(PERSISTENT_VOLUME, "v")
        assert going["metadata"]["uid"] == bound["metadata"]["uid"]
        await it.client.update_status(PERSISTENT_VOLUME, {**going, "status": {"phase": "Released"}})
        await it.until(PERSISTENT_VOLUME, "", "v", lambda found: found is None)
        try:
            await it.client.get(PERSISTENT_VOLUME, "v")
        except NotFound:
            return
        raise AssertionError("the volume is still there")
