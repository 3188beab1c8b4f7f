"""The EndpointSlice controller's loop: keeps the slices of every Service that selects pods."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.membership import families, has_endpoints
from controlplane.controllers.endpoints.packing import Packing, is_ours, pack
from controlplane.controllers.endpoints.slices import (
    MANAGER,
    SERVICE_LABEL,
    ZONE_LABEL,
    desired,
    service_template,
)
from controlplane.controllers.endpoints.trigger_times import ANNOTATION, TriggerTimes
from controlplane.controllers.endpoints.triggers import ServicePods
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import is_being_deleted, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE

log = logging.getLogger(__name__)

_RECHECK_SECONDS = 1.0
_BY_SERVICE = "service"


def _service_of(endpoint_slice: Object) -> Iterable[str]:
    service = labels(endpoint_slice).get(SERVICE_LABEL, "")
    return (f"{namespace(endpoint_slice)}/{service}",) if service else ()


class EndpointSliceController:
    """Keys are (namespace, name) of Services."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._services = informers.of(SERVICE)
        self._pods = informers.of(POD)
        self._nodes = informers.of(NODE)
        self._slices = informers.of(ENDPOINT_SLICE)
        self._slices.index_by(_BY_SERVICE, _service_of)
        self._loop = Controller("endpointslice", self._reconcile)
        self._members = ServicePods(self._services, self._pods, self._loop.queue.add)
        self._expectations: Expectations[NamespacedName] = Expectations(self._slices)
        self._times = TriggerTimes()
        self._slices.on_change(self._slice_changed)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._services, self._pods, self._nodes, self._slices)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            service = labels(each).get(SERVICE_LABEL, "") if each is not None else ""
            if each is not None and service and is_ours(each, MANAGER):
                self._loop.queue.add((namespace(each), service))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """Endpoints carry the node's zone, and wait for a node that is not there yet."""
        if old is not None and new is not None and labels(old).get(ZONE_LABEL) == labels(new).get(ZONE_LABEL):
            return
        for service in self._services.items():
            self._loop.queue.add((namespace(service), name(service)))

    async def _reconcile(self, key: NamespacedName) -> None:
        service = self._services.get(*key)
        if service is None:
            self._times.forget(key)
            self._expectations.forget(key)
            return
        if not has_endpoints(service) or is_being_deleted(service):
            return
        if not self._expectations.satisfied(key):
            # The event of the own write wakes this key; the timer is for the case that it never comes.
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        started = time.perf_counter()
        pods = self._members.of(service)
        ours = [
            each
            for each in self._slices.lookup(_BY_SERVICE, "/".join(key))
            if is_ours(each, MANAGER) and not is_being_deleted(each)
        ]
        wanted = families(service)
        common = service_template(service)
        packings = [Packing(delete=[each for each in ours if each["addressType"] not in wanted])]
        for family in wanted:
            groups = desired(service, pods, family, lambda node: self._nodes.get("", node))
            existing = [each for each in ours if each["addressType"] == family]
            packings.append(pack(common, family, existing, groups))
        changed = [packing for packing in packings if packing.changes]
        if not changed:
            return
        trigger = self._times.oldest_change(key, service, pods)
        for packing in changed:
            await self._write(key, packing, trigger)
        log.info("%s/%s: %d pods, synced in %.1f ms", *key, len(pods), 1000 * (time.perf_counter() - started))

    async def _write(self, key: NamespacedName, packing: Packing, trigger: str) -> None:
        """New slices come first, so that endpoints that move are never missing."""
        for each in packing.create:
            _date(each, trigger)
            self._expectations.wrote(key, await self._client.create(ENDPOINT_SLICE, each))
        for each in packing.update:
            _date(each, trigger)
            self._expectations.wrote(key, await self._client.update(ENDPOINT_SLICE, each))
        for each in packing.delete:
            try:
                await self._client.delete(ENDPOINT_SLICE, name(each), namespace(each))
            except NotFound:
                continue
            self._expectations.deleted(key, each)


def _date(each: Object, trigger: str) -> None:
    """Put the time of the change into the annotation, or take an old one out."""
    annotations = {**each["metadata"].get("annotations", {})}
    annotations.pop(ANNOTATION, None)
    if trigger:
        annotations[ANNOTATION] = trigger
    each["metadata"]["annotations"] = annotations
