"""Removes stale UDP flows from a node's connection tracking after syncs that concern UDP. A follower of the loops."""

from __future__ import annotations

import asyncio
import logging
import time

from netkit.kernel.conntrack import ConntrackTable
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Synced
from netkit.proxy.conntrack import UDP, UDPServices, concerns_udp

log = logging.getLogger(__name__)


class ConntrackCleaner:
    """Cleans `table`, the node's, one family at a time.

    Also after all rules had to be written anew: what was sent while they were away has made flows that lead nowhere.
    What failed is done again after the next sync, whatever that is about.
    """

    def __init__(self, node_name: str, table: ConntrackTable) -> None:
        self._node_name = node_name
        self._table = table
        self._due: set[Family] = set()

    async def after_sync(self, synced: Synced) -> None:
        """See `Follower`."""
        family, report = synced.state.family, synced.report
        rewritten = report.full and report.wrote
        if not (rewritten or family in self._due or concerns_udp(synced.changes)):
            return
        services = UDPServices.of(synced.state)
        if not services:
            return
        self._due.add(family)
        started = time.monotonic()
        deleted = await asyncio.to_thread(self._clean, family, services)
        self._due.discard(family)
        seconds = time.monotonic() - started
        synced.metrics.conntrack_reconciler_sync_duration_seconds.observe(seconds)
        synced.metrics.conntrack_reconciler_deleted_entries_total += deleted
        if deleted:
            log.info(
                "%s %s: %d stale UDP flows deleted in %.1f ms",
                self._node_name,
                family,
                deleted,
                seconds * 1e3,
            )

    def _clean(self, family: Family, services: UDPServices) -> int:
        """Blocks. Returns how many flows were deleted."""
        found = self._table.dump(family.version, UDP)
        stale = services.stale(found)
        return self._table.delete(stale) if stale else 0
