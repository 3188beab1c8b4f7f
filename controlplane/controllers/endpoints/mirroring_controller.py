"""The EndpointSlice mirroring controller: slices for Endpoints that people write by hand.

A Service without a selector has no pods to look for; what its Endpoints say is copied into slices, which is what
proxies read. Endpoints labelled `endpointslice.kubernetes.io/skip-mirror: "true"` (the API server's own) and those
that once served leader election are left alone.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.packing import Groups, Packing, is_ours, pack
from controlplane.controllers.endpoints.slices import SERVICE_LABEL, port_key, template
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, ENDPOINTS, SERVICE

log = logging.getLogger(__name__)

MIRROR = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
MAX_PER_SUBSET = 1000
_RECHECK_SECONDS = 1.0
_BY_SERVICE = "service"


def _service_of(endpoint_slice: Object) -> Iterable[str]:
    service = labels(endpoint_slice).get(SERVICE_LABEL, "")
    return (f"{namespace(endpoint_slice)}/{service}",) if service else ()


class EndpointSliceMirroringController:
    """Keys are (namespace, name) of Endpoints and so of their Service."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._services = informers.of(SERVICE)
        self._endpoints = informers.of(ENDPOINTS)
        self._slices = informers.of(ENDPOINT_SLICE)
        self._slices.index_by(_BY_SERVICE, _service_of)
        self._loop = Controller("endpointslicemirroring", self._reconcile)
        self._expectations: Expectations[NamespacedName] = Expectations(self._slices)
        self._services.on_change(self._changed)
        self._endpoints.on_change(self._changed)
        self._slices.on_change(self._slice_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._services, self._endpoints, self._slices)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        either = new or old
        assert either is not None
        self._loop.queue.add((namespace(either), name(either)))

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        either = new or old
        if either is not None and is_ours(either, MIRROR):
            self._loop.queue.add((namespace(either), labels(either).get(SERVICE_LABEL, "")))

    async def _reconcile(self, key: NamespacedName) -> None:
        if not self._expectations.satisfied(key):
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        ours = [
            each
            for each in self._slices.lookup(_BY_SERVICE, "/".join(key))
            if is_ours(each, MIRROR) and not is_being_deleted(each)
        ]
        endpoints, service = self._endpoints.get(*key), self._services.get(*key)
        if endpoints is None or service is None or not is_mirrored(endpoints, service):
            packings = [Packing(delete=ours)]
        else:
            common = template(endpoints, "Endpoints", MIRROR, headless=False)
            wanted = by_family(endpoints)
            packings = [Packing(delete=[each for each in ours if each["addressType"] not in wanted])]
            for family, groups in wanted.items():
                existing = [each for each in ours if each["addressType"] == family]
                packings.append(pack(common, family, existing, groups))
        for packing in packings:
            await self._write(key, packing)

    async def _write(self, key: NamespacedName, packing: Packing) -> None:
        for each in packing.create:
            self._expectations.wrote(key, await self._client.create(ENDPOINT_SLICE, each))
        for each in packing.update:
            self._expectations.wrote(key, await self._client.update(ENDPOINT_SLICE, each))
        for each in packing.delete:
            try:
                await self._client.delete(ENDPOINT_SLICE, name(each), namespace(each))
            except NotFound:
                continue
            self._expectations.deleted(key, each)
        if packing.changes:
            log.info("%s/%s: endpoints mirrored", *key)


def is_mirrored(endpoints: Object, service: Object) -> bool:
    """Whether these Endpoints are a person's, for a Service that selects no pods."""
    return (
        labels(endpoints).get(SKIP_LABEL) != "true"
        and LEADER_ANNOTATION not in annotations_of(endpoints)
        and not is_being_deleted(endpoints)
        and not dig(service, "spec", "selector")
    )


def by_family(endpoints: Object) -> dict[str, Groups]:
    """What the slices of each address family shall hold."""
    found: dict[str, Groups] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [dict(port) for port in subset.get("ports") or ()]
        for port in ports:
            port.setdefault("name", "")
        addresses = [(each, True) for each in subset.get("addresses") or ()]
        addresses += [(each, False) for each in subset.get("notReadyAddresses") or ()]
        for address, ready in addresses[:MAX_PER_SUBSET]:
            version = ipaddress.ip_address(address["ip"]).version
            groups = found.setdefault(f"IPv{version}", {})
            _, held = groups.setdefault(port_key(ports), (ports, []))
            held.append(_endpoint(address, ready=ready))
    return found


def _endpoint(address: Object, *, ready: bool) -> Object:
    endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if address.get(field):
            endpoint[field] = address[field]
    return endpoint
