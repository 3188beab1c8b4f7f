"""The EndpointSlice mirroring controller: slices for Endpoints that people write by hand.

A Service without a selector has no pods to look for; what its Endpoints say is copied into slices, which is what
proxies read. Endpoints labelled `endpointslice.kubernetes.io/skip-mirror: "true"` (the API server's own) and those
that once served leader election are left alone.
"""

from __future__ import annotations

import ipaddress
import logging

from controlplane.client.client import Client
from controlplane.client.controller import Controller, NamespacedName
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informers
from controlplane.controllers.endpoints.packing import Groups, Packing, pack
from controlplane.controllers.endpoints.slices import port_key, template
from controlplane.controllers.endpoints.writing import ManagedSlices
from controlplane.errors import Object
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, is_being_deleted, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE, ENDPOINTS, SERVICE

log = logging.getLogger(__name__)

MIRROR = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
MAX_PER_SUBSET = 1000
_RECHECK_SECONDS = 1.0


class EndpointSliceMirroringController:
    """Keys are (namespace, name) of Endpoints and so of their Service."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._services = informers.of(SERVICE)
        self._endpoints = informers.of(ENDPOINTS)
        self._slices = informers.of(ENDPOINT_SLICE)
        self._loop = Controller("endpointslicemirroring", self._reconcile)
        self._expectations: Expectations[NamespacedName] = Expectations(self._slices)
        self._ours = ManagedSlices(client, self._slices, MIRROR, self._expectations)
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
        key = self._ours.key_of(either) if either is not None else None
        if key is not None:
            self._loop.queue.add(key)

    async def _reconcile(self, key: NamespacedName) -> None:
        if not self._expectations.satisfied(key):
            self._loop.queue.add_after(key, _RECHECK_SECONDS)
            return
        ours = self._ours.of(key)
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
            await self._ours.write(key, packing)
        if any(packing.changes for packing in packings):
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
