"""Garbage collector and namespace controller with kinds that come while they run, over the real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.client_wait import running, until
from support.custom import GROUP, definition, widget

from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.union import FirstOf
from controlplane.apiserver.authz.chain import AlwaysAllow
from controlplane.apiserver.custom_resources.definitions import CustomResources
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.user import UserInfo
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.known_kinds import DiscoveredKinds
from controlplane.client.local import LocalTransport
from controlplane.controllers.garbage_collector import GarbageCollector
from controlplane.controllers.namespace import NamespaceController
from controlplane.meta import conditions
from controlplane.resources.catalog import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, KINDS, NAMESPACE
from controlplane.resources.kind import Kind
from controlplane.store.memory import MemoryStore

ADMIN = UserInfo("admin", groups=("system:masters", "system:authenticated"))
WIDGET = Kind(group=GROUP, version="v1", kind="Widget", plural="widgets", singular="widget", namespaced=True)


async def no_dial(address: str, port: int) -> Any:
    raise ConnectionError("nothing to reach here")


class World:
    """`seen` holds what an observer sees of the kinds the tests ask for."""

    def __init__(self, client: Client, seen: Informers) -> None:
        self.client = client
        self.seen = seen

    async def define(self) -> None:
        await self.client.create(CUSTOM_RESOURCE_DEFINITION, definition())
        found = self.seen.of(CUSTOM_RESOURCE_DEFINITION)
        await until(
            lambda: conditions.status_of(found.get("", f"widgets.{GROUP}") or {}, "Established") == "True"
        )


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    store = MemoryStore()
    registry = Registry(store, KINDS, admission=[NamespaceLifecycle()])
    await registry.start()
    custom = CustomResources(registry, WebhookClient(EndpointResolver(registry), no_dial))
    await custom.start()
    config = ServerConfig(kinds=registry.kinds)
    server = ApiServer(config, registry, Authentication(FirstOf(())), AlwaysAllow(), no_dial)
    client = Client(LocalTransport(server.handle, ADMIN, ApiRequest))
    informers, seen = Informers(client), Informers(client)
    kinds = DiscoveredKinds(client, informers, KINDS)
    collector = GarbageCollector(client, informers, kinds)
    namespaces = NamespaceController(client, informers, kinds)
    await client.create(NAMESPACE, {"metadata": {"name": "default"}})
    for kind in (CUSTOM_RESOURCE_DEFINITION, CONFIG_MAP, NAMESPACE):
        seen.of(kind)
    try:
        async with running(seen.run(), informers.run(), kinds.run(), collector.run(), namespaces.run()):
            yield World(client, seen)
    finally:
        await custom.close()
        await registry.close()
        await server.close()
        await store.close()


def child(name: str, owner: dict[str, Any]) -> dict[str, Any]:
    reference = {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True,
    }  # fmt: skip
    return {"metadata": {"name": name, "namespace": "default", "ownerReferences": [reference]}}


async def test_children_of_a_custom_resource_go_with_it() -> None:
    async with world() as it:
        await it.define()
        owner = await it.client.create(WIDGET, widget("owner"), "default")
        await it.client.create(CONFIG_MAP, child("mine", owner))
        grandchild = {**widget("grand"), **child("grand", owner)}
        await it.client.create(WIDGET, grandchild, "default")
        seen, widgets = it.seen.of(CONFIG_MAP), it.seen.of(WIDGET)
        await until(lambda: seen.get("default", "mine") and widgets.get("default", "grand"))
        await it.client.delete(WIDGET, "owner", "default", propagation="Background")
        await until(lambda: not seen.get("default", "mine") and not widgets.get("default", "grand"), 10.0)


async def test_a_custom_resource_waits_for_its_children_in_the_foreground() -> None:
    async with world() as it:
        await it.define()
        owner = await it.client.create(WIDGET, widget("owner"), "default")
        held = child("mine", owner)
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await it.client.create(CONFIG_MAP, held)
        seen, widgets = it.seen.of(CONFIG_MAP), it.seen.of(WIDGET)
        await until(lambda: seen.get("default", "mine") and widgets.get("default", "owner"))
        await it.client.delete(WIDGET, "owner", "default", propagation="Foreground")
        await until(
            lambda: (seen.get("default", "mine") or {}).get("metadata", {}).get("deletionTimestamp"), 10.0
        )
        assert widgets.get("default", "owner")
        await it.client.patch(CONFIG_MAP, "mine", {"metadata": {"finalizers": None}}, "default")
        await until(lambda: not widgets.get("default", "owner"), 10.0)


async def test_children_go_when_the_definition_goes() -> None:
    async with world() as it:
        await it.define()
        seen = it.seen.of(CONFIG_MAP)
        first = await it.client.create(WIDGET, widget("first"), "default")
        owner = await it.client.create(WIDGET, widget("owner"), "default")
        await it.client.create(CONFIG_MAP, child("early", first))
        await it.client.create(CONFIG_MAP, child("mine", owner))
        await until(lambda: seen.get("default", "mine") and seen.get("default", "early"))
        await it.client.delete(WIDGET, "first", "default")
        await until(lambda: not seen.get("default", "early"), 10.0)
        assert seen.get("default", "mine")
        await it.client.delete(CUSTOM_RESOURCE_DEFINITION, f"widgets.{GROUP}")
        await until(lambda: not seen.get("default", "mine"), 10.0)


async def test_a_namespace_takes_its_custom_resources_along() -> None:
    async with world() as it:
        await it.client.create(NAMESPACE, {"metadata": {"name": "team"}})
        await it.define()
        await it.client.create(WIDGET, widget("w"), "team")
        seen = it.seen.of(NAMESPACE)
        await until(lambda: seen.get("", "team"))
        await it.client.delete(NAMESPACE, "team")
        await until(lambda: not seen.get("", "team"), 10.0)
        assert (await it.client.list(WIDGET)).items == []
