"""The Endpoints controller's loop: one Endpoints object per Service that selects pods."""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.membership import HEADLESS_LABEL, has_endpoints, is_headless
from controlplane.controllers.endpoints.subsets import subsets
from controlplane.controllers.endpoints.trigger_times import ANNOTATION, TriggerTimes
from controlplane.controllers.endpoints.triggers import ServicePods
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import is_being_deleted, labels, name, namespace, uid
from controlplane.resources.catalog import ENDPOINTS, POD, SERVICE

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"


class EndpointsController:
    """Keys are (namespace, name) of Services and of their Endpoints, which are the same."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._services = informers.of(SERVICE)
        self._pods = informers.of(POD)
        self._endpoints = informers.of(ENDPOINTS)
        self._loop = Controller("endpoints", self._reconcile)
        self._members = ServicePods(self._services, self._pods, self._loop.queue.add)
        self._times = TriggerTimes()
        self._owned: set[NamespacedName] = set()
        self._endpoints.on_change(self._endpoints_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._services, self._pods, self._endpoints)

    def _endpoints_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            self._loop.queue.add((namespace(obj), name(obj)))

    async def _reconcile(self, key: NamespacedName) -> None:
        service = self._services.get(*key)
        if service is None:
            await self._remove(key)
            return
        self._owned.add(key)
        if not has_endpoints(service) or is_being_deleted(service):
            return
        pods = self._members.of(service)
        wanted, truncated = subsets(service, pods)
        wanted_labels = {**labels(service), **({HEADLESS_LABEL: ""} if is_headless(service) else {})}
        if not is_headless(service):
            wanted_labels.pop(HEADLESS_LABEL, None)
        current = self._endpoints.get(*key)
        if current is not None:
            same = (current.get("subsets") or []) == wanted and labels(current) == wanted_labels
            if same and (OVER_CAPACITY in annotations_of(current)) == truncated:
                return
        annotations = dict(annotations_of(current)) if current is not None else dict(annotations_of(service))
        annotations.pop(ANNOTATION, None)
        annotations.pop(OVER_CAPACITY, None)
        trigger = self._times.oldest_change(key, service, pods)
        if trigger:
            annotations[ANNOTATION] = trigger
        if truncated:
            annotations[OVER_CAPACITY] = "truncated"
        await self._write(key, current, wanted, wanted_labels, annotations)

    async def _write(
        self,
        key: NamespacedName,
        current: Object | None,
        wanted: list[Object],
        wanted_labels: dict[str, str],
        annotations: dict[str, str],
    ) -> None:
        metadata: Object = {"name": key[1], "namespace": key[0]}
        if current is not None:
            metadata = dict(current["metadata"])
        metadata["labels"] = wanted_labels
        metadata["annotations"] = annotations
        obj: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": wanted}
        if current is not None:
            await self._client.update(ENDPOINTS, obj)
            return
        try:
            await self._client.create(ENDPOINTS, obj)
        except AlreadyExists as error:
            raise Conflict(f"{error}; the cache lags behind") from error

    async def _remove(self, key: NamespacedName) -> None:
        """The Service is gone: so go its Endpoints, unless somebody else made them for a Service without
        pods.
        """
        self._times.forget(key)
        current = self._endpoints.get(*key)
        if current is None or is_being_deleted(current):
            self._owned.discard(key)
            return
        if key not in self._owned and not _made_here(current):
            return
        try:
            await self._client.delete(ENDPOINTS, key[1], key[0], uid=uid(current))
        except NotFound:
            self._owned.discard(key)


def _made_here(endpoints: Object) -> bool:
    """After a restart: only this controller dates its objects."""
    return ANNOTATION in annotations_of(endpoints)
