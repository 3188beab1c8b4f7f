"""The EndpointSlice controller's loop: keeps the slices of every Service that selects pods."""

from __future__ import annotations

import logging
import time

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.membership import families, has_endpoints
from controlplane.controllers.endpoints.packing import Packing, pack
from controlplane.controllers.endpoints.slices import (
    MANAGER,
    ZONE_LABEL,
    desired,
    service_template,
)
from controlplane.controllers.endpoints.trigger_times import ANNOTATION, TriggerTimes
from controlplane.controllers.endpoints.triggers import ServicePods
from controlplane.controllers.endpoints.writing import ManagedSlices
from controlplane.errors import Object
from controlplane.meta.objects import is_being_deleted, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, NODE, POD, SERVICE

log = logging.getLogger(__name__)

_RECHECK_SECONDS = 1.0


class EndpointSliceController:
    """Keys are (namespace, name) of Services."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._services = informers.of(SERVICE)
        self._pods = informers.of(POD)
        self._nodes = informers.of(NODE)
        self._slices = informers.of(ENDPOINT_SLICE)
        self._loop = Controller("endpointslice", self._reconcile)
        self._members = ServicePods(self._services, self._pods, self._loop.queue.add)
        self._expectations: Expectations[NamespacedName] = Expectations(self._slices)
        self._ours = ManagedSlices(client, self._slices, MANAGER, self._expectations)
        self._times = TriggerTimes()
        self._slices.on_change(self._slice_changed)
        self._nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._services, self._pods, self._nodes, self._slices)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            key = self._ours.key_of(each) if each is not None else None
            if key is not None:
                self._loop.queue.add(key)

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
        ours = self._ours.of(key)
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
            for each in (*packing.create, *packing.update):
                _date(each, trigger)
            await self._ours.write(key, packing)
        log.info("%s/%s: %d pods, synced in %.1f ms", *key, len(pods), 1000 * (time.perf_counter() - started))


def _date(each: Object, trigger: str) -> None:
    """Put the time of the change into the annotation, or take an old one out."""
    annotations = {**each["metadata"].get("annotations", {})}
    annotations.pop(ANNOTATION, None)
    if trigger:
        annotations[ANNOTATION] = trigger
    each["metadata"]["annotations"] = annotations
