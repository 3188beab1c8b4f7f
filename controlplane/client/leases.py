"""A node's heartbeat: the Lease in kube-node-lease that it renews while it lives.

Used by node agents; the node lifecycle controller reads what is written here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import AlreadyExists, Conflict, NotFound, Object, StatusError
from controlplane.meta.owners import owner_reference
from controlplane.meta.timestamps import micro_now
from controlplane.resources.catalog import LEASE

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
_RENEW_FRACTION = 0.25


class NodeLease:
    """Keeps the lease of node `node_name` with a duration of `seconds`, renewed at every quarter of it.

    `node` gives the node object when it is known, for the owner reference.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        seconds: int = 40,
        node: Callable[[], Object | None] = lambda: None,
    ) -> None:
        self._client = client
        self._name = node_name
        self._seconds = seconds
        self._node = node
        self._lease: Object | None = None

    async def run(self) -> None:
        """Renew until cancelled. A lost connection is tried again quickly, as the lease is running out."""
        period = self._seconds * _RENEW_FRACTION
        backoff = Backoff(0.2, min(7.0, period))
        while True:
            try:
                await self.renew()
            except (StatusError, ConnectionFailed) as error:
                log.warning("%s: lease not renewed: %s", self._name, error)
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()
                await asyncio.sleep(period)

    async def renew(self) -> None:
        """Write the present time into the lease, making it when it is missing. Raises StatusError."""
        if self._lease is None:
            self._lease = await self._get_or_create()
        try:
            self._lease = await self._client.update(LEASE, self._filled(self._lease))
        except (Conflict, NotFound):
            self._lease = await self._get_or_create()
            self._lease = await self._client.update(LEASE, self._filled(self._lease))

    async def _get_or_create(self) -> Object:
        try:
            return await self._client.get(LEASE, self._name, LEASE_NAMESPACE)
        except NotFound:
            pass
        empty: Object = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": LEASE_NAMESPACE},
        }
        try:
            return await self._client.create(LEASE, self._filled(empty))
        except AlreadyExists:
            return await self._client.get(LEASE, self._name, LEASE_NAMESPACE)

    def _filled(self, lease: Object) -> Object:
        metadata = lease["metadata"]
        node = self._node()
        if node is not None and not metadata.get("ownerReferences"):
            owner = owner_reference("v1", "Node", node, controller=False, block=False)
            metadata = {**metadata, "ownerReferences": [{key: owner[key] for key in _OWNER_KEYS}]}
        spec = {
            **lease.get("spec", {}),
            "holderIdentity": self._name,
            "leaseDurationSeconds": self._seconds,
            "renewTime": micro_now(),
        }
        return {**lease, "metadata": metadata, "spec": spec}


_OWNER_KEYS = ("apiVersion", "kind", "name", "uid")
