"""Deletion of namespaces, and what every namespace gets, against an API in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.client_fake import FakeApi
from support.client_objects import pod
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.namespace import NamespaceController
from controlplane.controllers.root_ca import RootCaController
from controlplane.controllers.service_account import ServiceAccountController
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.resources.catalog import (
    CONFIG_MAP,
    EVENT,
    KINDS,
    NAMESPACE,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
)


@asynccontextmanager
async def controllers(api: FakeApi) -> AsyncIterator[None]:
    client = api.client()
    informers = Informers(client)
    parts = (
        NamespaceController(client, informers, KINDS),
        ServiceAccountController(client, informers),
        RootCaController(client, informers, "PEM"),
    )
    async with running(informers.run(), *(part.run() for part in parts)):
        yield


async def create_namespace(api: FakeApi, name: str) -> None:
    body = {"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}}
    await api.client().create(NAMESPACE, body)


def status(api: FakeApi, name: str, type_: str) -> Object:
    found = api.get(NAMESPACE, name)
    return (conditions.of(found, type_) if found is not None else None) or {}


async def test_every_namespace_gets_account_and_ca_and_keeps_them() -> None:
    api = FakeApi()
    async with controllers(api):
        await create_namespace(api, "a")
        await until(lambda: api.get(SERVICE_ACCOUNT, "default", "a"))
        found = await until(lambda: api.get(CONFIG_MAP, "kube-root-ca.crt", "a"))
        assert found["data"] == {"ca.crt": "PEM"}
        api.remove(SERVICE_ACCOUNT, "default", "a")
        api.edit(CONFIG_MAP, "kube-root-ca.crt", "a", lambda obj: obj["data"].clear())
        await until(lambda: api.get(SERVICE_ACCOUNT, "default", "a"))
        await until(lambda: api.get(CONFIG_MAP, "kube-root-ca.crt", "a")["data"])
        api.remove(CONFIG_MAP, "kube-root-ca.crt", "a")
        await until(lambda: api.get(CONFIG_MAP, "kube-root-ca.crt", "a"))


async def test_a_deleted_namespace_takes_its_content_along_and_no_other() -> None:
    api = FakeApi()
    client = api.client()
    async with controllers(api):
        for space in ("gone", "kept"):
            await create_namespace(api, space)
            await client.create(SECRET, {"metadata": {"name": "s", "namespace": space}})
            await client.create(EVENT, {"metadata": {"name": "e", "namespace": space}})
            body = pod("p")
            body["metadata"]["namespace"] = space
            await client.create(POD, body)
        await client.delete(NAMESPACE, "gone")
        await until(lambda: api.get(NAMESPACE, "gone") is None)
        assert not any(api.all(kind, "gone") for kind in KINDS if kind.namespaced)
        assert api.get(SECRET, "s", "kept")
        assert api.get(POD, "p", "kept")
        assert api.get(SERVICE_ACCOUNT, "default", "kept")


async def test_what_holds_a_namespace_back_is_said_and_waited_for() -> None:
    api = FakeApi()
    client = api.client()
    async with controllers(api):
        await create_namespace(api, "a")
        held = {"metadata": {"name": "held", "namespace": "a", "finalizers": ["example.com/wait"]}}
        await client.create(CONFIG_MAP, held)
        await client.delete(NAMESPACE, "a")
        await until(lambda: status(api, "a", "NamespaceFinalizersRemaining").get("status") == "True")
        assert status(api, "a", "NamespaceContentRemaining")["message"] == (
            "Some resources are remaining: configmaps. has 1 resource instances"
        )
        assert status(api, "a", "NamespaceFinalizersRemaining")["message"] == (
            "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances"
        )
        assert status(api, "a", "NamespaceDeletionContentFailure")["status"] == "False"
        assert api.get(NAMESPACE, "a")["status"]["phase"] == "Terminating"
        await client.patch(CONFIG_MAP, "held", {"metadata": {"finalizers": None}}, "a")
        await until(lambda: api.get(NAMESPACE, "a") is None)
