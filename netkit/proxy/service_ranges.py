"""The ranges of the cluster's Services: its ServiceCIDR objects, in the version that the API server has.

Kubernetes 1.33 has `networking.k8s.io/v1`; before, `v1beta1` is there where it is switched on. A cluster without
either, or one that does not let us see them, is proxied all the same: then nothing is known of unused addresses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object, StatusError
from controlplane.resources.catalog import SERVICE_CIDR
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

KINDS: Final[tuple[Kind, ...]] = (replace(SERVICE_CIDR, version="v1"), SERVICE_CIDR)
"""The newest version first."""


class ServiceRanges:
    """Follows the ServiceCIDRs. `changed` gets all of them whenever one comes, changes or goes.

    `look_seconds` is how often a server that has none is asked again.
    """

    def __init__(
        self, client: Client, changed: Callable[[Sequence[Object]], None], look_seconds: float = 60.0
    ) -> None:
        self._client = client
        self._changed = changed
        self._look_seconds = look_seconds

    async def run(self) -> None:
        """Work until cancelled."""
        informer = Informer(self._client, await self._served())
        informer.on_change(lambda old, new: self._changed(informer.items()))
        await informer.run()

    async def _served(self) -> Kind:
        """The version to follow, as soon as there is one."""
        told = False
        while True:
            try:
                kind = await self._first_listed()
            except ConnectionFailed:
                await asyncio.sleep(1.0)
                continue
            if kind is not None:
                return kind
            if not told:
                log.info("no ranges of Services are known: the API server does not show ServiceCIDRs")
            told = True
            await asyncio.sleep(self._look_seconds)

    async def _first_listed(self) -> Kind | None:
        for kind in KINDS:
            with suppress(StatusError):
                await self._client.list(kind)
                return kind
        return None
