"""ServiceCIDRs are ready, and go only when no address of theirs is in use; Services' IPAddress objects come back.

A range that is being deleted gives out no more addresses (the allocator sees to it) and stays until none of its
IPAddresses would be left without a range.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.events import WARNING, EventRecorder
from controlplane.client.informer import Informers
from controlplane.errors import AlreadyExists, NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted, name
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import IP_ADDRESS, SERVICE, SERVICE_CIDR
from controlplane.resources.networking.service_cidr import (
    ALLOCATOR,
    FAMILY_LABEL,
    FINALIZER,
    MANAGED_BY_LABEL,
    READY,
)

_READY_MESSAGE = "Kubernetes Service CIDR is ready"
_TERMINATING = "Terminating"
_TERMINATING_MESSAGE = (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(service_cidr: Object) -> list[_Network]:
    """Its ranges; what is none (of a version that knows more than we do) is left out."""
    found: list[_Network] = []
    for text in dig(service_cidr, "spec", "cidrs", default=()):
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return found


def orphans(own: Iterable[_Network], others: Iterable[_Network], addresses: Iterable[str]) -> list[str]:
    """The addresses that are of `own` ranges and of none of the `others`."""
    own, others = list(own), list(others)
    left = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        if _within(address, own) and not _within(address, others):
            left.append(text)
    return left


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, ranges: Iterable[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in ranges)


class ServiceCidrController:
    """Keys are names of ServiceCIDRs."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._cidrs = informers.of(SERVICE_CIDR)
        self._addresses = informers.of(IP_ADDRESS)
        self._loop: Controller[str] = Controller("service-cidr", self._reconcile, workers=1)
        self._cidrs.on_change(self._cidr_changed)
        self._addresses.on_change(self._address_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._cidrs, self._addresses)

    def _cidr_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))
        self._try_deletions()

    def _address_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._try_deletions()

    def _try_deletions(self) -> None:
        for service_cidr in self._cidrs.items():
            if is_being_deleted(service_cidr):
                self._loop.queue.add(name(service_cidr))

    async def _reconcile(self, key: str) -> None:
        service_cidr = self._cidrs.get("", key)
        if service_cidr is None:
            return
        finalizers = dig(service_cidr, "metadata", "finalizers", default=[])
        if is_being_deleted(service_cidr):
            if FINALIZER in finalizers:
                await self._finish(service_cidr, finalizers)
            return
        if FINALIZER not in finalizers:
            service_cidr = await self._client.update(
                SERVICE_CIDR, _with_finalizers(service_cidr, [*finalizers, FINALIZER])
            )
        if conditions.of(service_cidr, READY) is None:
            await self._say(service_cidr, "True", "", _READY_MESSAGE)

    async def _finish(self, service_cidr: Object, finalizers: list[str]) -> None:
        others = [
            network
            for other in self._cidrs.items()
            if name(other) != name(service_cidr) and not is_being_deleted(other)
            for network in networks(other)
        ]
        used = orphans(networks(service_cidr), others, (name(found) for found in self._addresses.items()))
        if not used:
            left = [other for other in finalizers if other != FINALIZER]
            await self._client.update(SERVICE_CIDR, _with_finalizers(service_cidr, left))
        elif conditions.status_of(service_cidr, READY) != "False":
            await self._say(service_cidr, "False", _TERMINATING, _TERMINATING_MESSAGE)

    async def _say(self, service_cidr: Object, status: str, reason: str, message: str) -> None:
        ready = {
            "type": READY,
            "status": status,
            "lastTransitionTime": now(),
            "reason": reason,
            "message": message,
        }
        others = [
            found
            for found in dig(service_cidr, "status", "conditions", default=())
            if found.get("type") != READY
        ]
        updated = {
            **service_cidr,
            "status": {**(service_cidr.get("status") or {}), "conditions": [*others, ready]},
        }
        await self._client.update_status(SERVICE_CIDR, updated)


def _with_finalizers(obj: Object, finalizers: list[str]) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}


class IPAddressRepairController:
    """Keys are addresses. Makes an IPAddress again that was deleted while its Service still has it."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._services = informers.of(SERVICE)
        self._addresses = informers.of(IP_ADDRESS)
        self._recorder = EventRecorder(client, "ipallocator-repair-controller")
        self._services.index_by("address", _service_addresses)
        self._loop: Controller[str] = Controller("ip-repair", self._reconcile, workers=1)
        self._addresses.on_change(self._address_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._services, self._addresses)

    def _address_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            self._loop.queue.add(name(old))

    async def _reconcile(self, key: str) -> None:
        if self._addresses.get("", key) is not None:
            return
        for cached in self._services.lookup("address", key):
            # A Service and its addresses go in one commit, but their events arrive apart.
            try:
                service = await self._client.get(SERVICE, name(cached), cached["metadata"]["namespace"])
            except NotFound:
                continue
            if key not in _service_addresses(service):
                continue
            self._recorder.event(
                SERVICE,
                service,
                WARNING,
                "ClusterIPNotAllocated",
                f"Cluster IP {key} is not allocated; repairing",
            )
            try:
                await self._client.create(IP_ADDRESS, _address_of(key, service))
            except AlreadyExists:
                return


def _service_addresses(service: Object) -> list[str]:
    if dig(service, "spec", "type") == "ExternalName":
        return []
    ips = dig(service, "spec", "clusterIPs", default=())
    return [ip for ip in ips if ip and ip != "None"]


def _address_of(address: str, service: Object) -> Object:
    family = f"IPv{ipaddress.ip_address(address).version}"
    metadata = service["metadata"]
    parent = {"resource": "services", "namespace": metadata["namespace"], "name": metadata["name"]}
    return {
        "metadata": {"name": address, "labels": {FAMILY_LABEL: family, MANAGED_BY_LABEL: ALLOCATOR}},
        "spec": {"parentRef": parent},
    }
