"""A real API server in this process for tests of batch, quota and disruption controllers, with a clock to be moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from support.client_wait import running, until

from controlplane.apiserver.admission.limit_ranger import LimitRanger
from controlplane.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.apiserver.admission.resource_quota import ResourceQuotaAdmission
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.allocation.services import ServiceAllocator
from controlplane.apiserver.app import ApiServer, ServerConfig
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.union import FirstOf
from controlplane.apiserver.authz.chain import AlwaysAllow
from controlplane.apiserver.bootstrap import bootstrap
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.client.local import LocalTransport
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.timestamps import format_time
from controlplane.resources.catalog import EVENT, KINDS, POD
from controlplane.resources.kind import Kind
from controlplane.store.memory import MemoryStore

ADMIN = UserInfo("admin", groups=("system:masters", "system:authenticated"))
Outcome = Callable[[Object], Object | None]
"""The status a pod gets, None to leave it running."""


class Clock:
    """The real time, moved by whoever tests."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


class World:
    """`informers` see the server; `clock` is the controllers' and the registry's. Pods end as `outcome` says."""

    def __init__(self, client: Client, registry: Registry | None, clock: Clock) -> None:
        self.client = client
        self.registry = registry
        self.clock = clock
        self.informers = Informers(client)
        self._pods = self.informers.of(POD)
        self.outcome: Outcome = lambda pod: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pods.on_change(self._pod_changed)

    def all(self, kind: Kind, namespace: str = "default") -> list[Object]:
        return self.informers.of(kind).items(namespace)

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object | None:
        return self.informers.of(kind).get(namespace, name)

    def events(self) -> list[str]:
        return [event["reason"] for event in self.all(EVENT)]

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        return await until(condition, seconds)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new.get("status", {}).get("phase") in (None, "Pending", "Running"):
            self._spawn(new)

    def look_again(self) -> None:
        """After `outcome` was changed."""
        for pod in self._pods.items():
            self._pod_changed(None, pod)

    def _spawn(self, pod: Object) -> None:
        task = asyncio.get_running_loop().create_task(self._play(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, pod: Object) -> None:
        """A kubelet in one step."""
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            return
        status = self.outcome(pod)
        try:
            if not pod["spec"].get("nodeName"):
                target = {"target": {"kind": "Node", "name": "node1"}}
                await self.client.create(POD, target, space, name, "binding")
            if status is not None:
                await self.client.patch(POD, name, {"status": status}, space, subresource="status")
        except (NotFound, Conflict):
            return


def succeeded(pod: Object) -> Object:
    return {"phase": "Succeeded"}


def failed(pod: Object, code: int = 1) -> Object:
    ended = {"exitCode": code, "finishedAt": format_time(datetime.now(UTC)), "reason": "Error"}
    state = {"name": pod["spec"]["containers"][0]["name"], "state": {"terminated": ended}}
    state |= {"ready": False, "restartCount": 0, "image": "x", "imageID": ""}
    return {"phase": "Failed", "containerStatuses": [state]}


def ready(pod: Object) -> Object | None:
    if conditions.status_of(pod, "Ready") == "True":
        return None
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": format_time(datetime.now(UTC))}
    return {"phase": "Running", "conditions": [condition]}


@asynccontextmanager
async def world(
    *controllers: Callable[[Client, Informers, Clock], Any], watch: tuple[Kind, ...] = ()
) -> AsyncIterator[World]:
    """A server with quota and limits in admission, and the controllers made by `controllers`."""
    clock = Clock()
    objects = StoredObjects()
    limits = LimitRanger(objects)
    registry = Registry(
        MemoryStore(),
        KINDS,
        admission=[NamespaceLifecycle(), limits],
        validation=[limits, ResourceQuotaAdmission(objects, clock)],
        allocators=[ServiceAllocator((IPv4Network("10.96.0.0/16"),), 30000, 32767)],
        clock=clock,
    )
    objects.attach(registry)
    await registry.start()
    await bootstrap(registry, IPv4Address("10.96.0.1"), [IPv4Address("172.18.0.2")], 6443)

    async def no_dial(node: str, port: int) -> Any:
        raise ConnectionError("no kubelets here")

    config = ServerConfig(kinds=registry.kinds)
    server = ApiServer(config, registry, Authentication(FirstOf(())), AlwaysAllow(), no_dial)
    client = Client(LocalTransport(server.handle, ADMIN, ApiRequest), "test")
    made = World(client, registry, clock)
    for kind in (EVENT, *watch):
        made.informers.of(kind)
    runs = [make(client, made.informers, clock).run() for make in controllers]
    try:
        async with running(made.informers.run(), *runs):
            await made.informers.synced()
            yield made
    finally:
        await registry.close()
        await server.close()


def job(name: str = "work", **spec: Any) -> Object:
    template = spec.pop("template", {})
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}], **template}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": pod}, **spec},
    }
