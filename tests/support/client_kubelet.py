"""Stands in for scheduler and kubelets in tests of controllers: binds pods, makes them ready, lets them go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

from support.client_fake import FakeApi
from support.client_objects import node

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informer
from controlplane.client.leases import NodeLease
from controlplane.errors import AlreadyExists, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name, namespace
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import NODE, POD


class Kubelet:
    """`removes` says whether deleted pods go; `place` which node a pod is bound to (None: the next one)."""

    def __init__(self, api: FakeApi, nodes: tuple[str, ...] = ("node1",)) -> None:
        self.api = api
        self.nodes = nodes
        self.removes = True
        self.unready_images: set[str] = set()
        self.place: Callable[[Object], str] | None = None
        self.most = 0
        self._pods = Informer(api.client(), POD)
        self._pods.on_change(self._changed)
        self._count = 0

    async def run(self) -> None:
        await self._pods.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self.most = max(self.most, len(self._pods))
        if new is not None:
            asyncio.get_running_loop().call_soon(self._act, namespace(new), name(new))

    def _act(self, space: str, pod: str) -> None:
        current = self.api.get(POD, pod, space)
        if current is None:
            return
        if current["metadata"].get("deletionTimestamp"):
            if self.removes:
                self.api.remove(POD, pod, space)
            return
        image = dig(current, "spec", "containers", default=[{}])[0].get("image", "")
        if dig(current, "status", "phase") == "Pending" and image not in self.unready_images:
            self.make_ready(space, pod)

    def make_ready(self, space: str, pod: str, status: str = "True") -> None:
        self._count += 1
        number = self._count

        def change(obj: Object) -> None:
            chosen = self.place(obj) if self.place is not None else self.nodes[number % len(self.nodes)]
            obj["spec"].setdefault("nodeName", chosen)
            state = obj["status"]
            state["phase"] = "Running"
            state.setdefault("podIP", f"10.244.{number // 250}.{number % 250 + 2}")
            state.setdefault("podIPs", [{"ip": state["podIP"]}])
            ready = {"type": "Ready", "status": status, "lastTransitionTime": now()}
            state["conditions"] = conditions.with_condition(state.get("conditions"), ready)

        self.api.edit(POD, pod, space, change)


class RemoteKubelet:
    """Agents of several nodes that know nothing but the API: register, run what is bound, remove what is
    deleted.
    """

    def __init__(self, client: Client, nodes: tuple[str, ...]) -> None:
        self.client = client
        self.nodes = nodes
        self.broken_images: set[str] = set()
        self._pods = Informer(client, POD)
        self._loop = Controller("kubelet", self._sync)
        self._pods.on_change(lambda old, new: self._loop.queue.add((namespace(new or old), name(new or old))))
        self._addresses = itertools.count(2)

    async def run(self) -> None:
        for each in self.nodes:
            # After a restart of the server it is there already.
            with contextlib.suppress(AlreadyExists):
                await self.client.create(NODE, {**node(each), "status": {}})
            status = node(each)["status"]
            status["addresses"] = [{"type": "Hostname", "address": each}]
            ready = status["conditions"][0]
            ready.update(
                lastHeartbeatTime=now(), lastTransitionTime=now(), reason="KubeletReady", message="x"
            )
            # A patch: controllers write to a new node at the same time.
            await self.client.patch(NODE, each, {"status": status}, subresource="status")
        async with asyncio.TaskGroup() as group:
            for each in self.nodes:
                group.create_task(NodeLease(self.client, each).run())
            group.create_task(self._pods.run())
            group.create_task(self._loop.run(self._pods))

    async def _sync(self, key: tuple[str, str]) -> None:
        pod = self._pods.get(*key)
        if pod is None or not dig(pod, "spec", "nodeName"):
            return
        if pod["metadata"].get("deletionTimestamp"):
            await self.client.delete(POD, key[1], key[0], grace=0)
        elif dig(pod, "status", "phase") == "Pending" and pod["spec"]["containers"][0]["image"] not in (
            self.broken_images
        ):
            number = next(self._addresses)
            status = {
                **pod["status"],
                "phase": "Running",
                "podIP": f"10.244.{number // 250}.{number % 250 + 1}",
            }
            status["podIPs"] = [{"ip": status["podIP"]}]
            for each in ("ContainersReady", "Ready"):
                ready = {"type": each, "status": "True", "lastTransitionTime": now()}
                status["conditions"] = conditions.with_condition(status.get("conditions"), ready)
            status["startTime"] = now()
            status["containerStatuses"] = [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "containerID": f"test://{number}-{container['name']}",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": now()}},
                    "lastState": {},
                }
                for container in pod["spec"]["containers"]
            ]
            await self.client.update_status(POD, {**pod, "status": status})
