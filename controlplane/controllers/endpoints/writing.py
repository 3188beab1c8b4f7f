"""What the two slice controllers share: finding a Service's slices, and writing a packing to the API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controlplane.client.client import Client
from controlplane.client.controller import NamespacedName
from controlplane.client.expectations import Expectations
from controlplane.client.informer import Informer
from controlplane.controllers.endpoints.packing import Packing, is_ours
from controlplane.controllers.endpoints.slices import SERVICE_LABEL
from controlplane.errors import NotFound, Object
from controlplane.meta.objects import is_being_deleted, labels, name, namespace
from controlplane.resources.catalog import ENDPOINT_SLICE

_BY_SERVICE: Final = "service"


def _service_of(endpoint_slice: Object) -> Iterable[str]:
    service = labels(endpoint_slice).get(SERVICE_LABEL, "")
    return (f"{namespace(endpoint_slice)}/{service}",) if service else ()


class ManagedSlices:
    """The slices that `manager` keeps, by their Service, and the only way it writes them.

    `expectations` learns of each write, so that nobody decides on a cache that does not show it yet.
    """

    def __init__(
        self, client: Client, slices: Informer, manager: str, expectations: Expectations[NamespacedName]
    ) -> None:
        self._client = client
        self._slices = slices
        self._manager = manager
        self._expectations = expectations
        slices.index_by(_BY_SERVICE, _service_of)

    def of(self, key: NamespacedName) -> list[Object]:
        """The manager's slices of the Service `key` that are not being deleted."""
        return [
            each
            for each in self._slices.lookup(_BY_SERVICE, "/".join(key))
            if is_ours(each, self._manager) and not is_being_deleted(each)
        ]

    def key_of(self, each: Object) -> NamespacedName | None:
        """The Service a slice belongs to, if the manager keeps it."""
        service = labels(each).get(SERVICE_LABEL, "")
        return (namespace(each), service) if service and is_ours(each, self._manager) else None

    async def write(self, key: NamespacedName, packing: Packing) -> None:
        """New slices come first, so that endpoints that move are never missing."""
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
