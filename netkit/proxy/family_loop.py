"""The sync loop of one address family: collect changes, let the backend write them, retry, look after them.

Each family has its own, so that one family's failure never stops the other. Used by `agent` only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from controlplane.client.backoff import Backoff
from netkit.kernel.errors import KernelError
from netkit.proxy.backend import Backend, Follower, NodeFacts, Synced, SyncReport
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.pacing import Pacer
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import Changes, ProxyState, ServiceKey

log = logging.getLogger(__name__)

FAILED_SYNC = "FailedToSyncProxyRules"
FLUSHED = "ProxyRulesFlushed"

_LOGGED_ONE_BY_ONE = 10

Report = Callable[[str, str], None]
"""Told reason and message of what users should hear of; becomes an Event on the Node."""


class FamilyLoop:
    """State, backend and pace of one family.

    Objects go into `state`, followed by a call of `service_changed` or `slice_changed`.
    """

    def __init__(
        self,
        backend: Backend,
        settings: ProxySettings,
        node_name: str,
        report: Report,
        metrics: ProxyMetrics,
        health: ProxyHealth,
        followers: Sequence[Follower] = (),
    ) -> None:
        self.backend = backend
        self.state = ProxyState(backend.family)
        self.metrics = metrics
        self._health = health
        self._followers = followers
        self._services_pending: set[ServiceKey] = set()
        self._slices_pending: set[tuple[str, str]] = set()
        self._settings = settings
        self._who = f"{node_name} {backend.family}"
        self._report = report
        self._pacer = Pacer(settings.min_sync_period, settings.sync_burst, time.monotonic())
        self._backoff = Backoff(min(1.0, settings.sync_period), settings.sync_period)
        self._full_because = "start"
        self._last_full = 0.0
        self._woken = asyncio.Event()
        self._first_sync = asyncio.Event()
        self._settled = asyncio.Event()

    def service_changed(self, key: ServiceKey) -> None:
        """A Service went into `state`: sync soon if that changed anything."""
        self.metrics.sync_proxy_rules_service_changes_total += 1
        self._changed(key, self._services_pending)

    def slice_changed(self, key: tuple[str, str]) -> None:
        """An EndpointSlice went into `state`: sync soon if that changed anything."""
        self.metrics.sync_proxy_rules_endpoint_changes_total += 1
        self._changed(key, self._slices_pending)

    def configure(self, facts: NodeFacts) -> None:
        """Hand on what the Node says; a full sync follows if rules depend on it."""
        if self.backend.configure(facts):
            self.want_full("the Node changed")

    def want_full(self, reason: str) -> None:
        """Have everything written anew at the next sync."""
        self._full_because = self._full_because or reason
        self._request()

    async def synced(self) -> None:
        """Return once the first full sync has succeeded."""
        await self._first_sync.wait()

    async def settled(self) -> None:
        """Return once nothing waits to be written."""
        await self._settled.wait()

    async def run(self) -> None:
        """Sync whenever it is asked for, until cancelled. Start it when `state` holds everything listed.

        From now on the family is judged: what was listed waits like any change, though its first sync may never
        succeed.
        """
        self._health.updated(self.backend.family, waiting=self.state.pending)
        self.metrics.sync_proxy_rules_last_queued_timestamp_seconds = time.time()
        self._request()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_after(), name=f"{self._who} canary")
            group.create_task(self._listen(), name=f"{self._who} disturbances")
            while True:
                await self._due()
                self._pacer.start(time.monotonic())
                await self._sync()

    def _changed(self, key: tuple[str, str], pending: set[tuple[str, str]]) -> None:
        if self.state.pending:
            pending.add(key)
            self._count_pending()
            self._health.queued(self.backend.family)
            self.metrics.sync_proxy_rules_last_queued_timestamp_seconds = time.time()
            self._request()

    def _request(self, delay: float = 0.0) -> None:
        self._settled.clear()
        self._pacer.request(time.monotonic() + delay)
        self._woken.set()

    async def _due(self) -> None:
        """Return when a sync is asked for and allowed."""
        while (delay := self._pacer.delay(time.monotonic())) is None or delay > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _sync(self) -> None:
        """One sync. A failure is reported, and mended by a full sync after a while or at the next change."""
        started = time.monotonic()
        changes = self.state.collect()
        self._services_pending.clear()
        self._slices_pending.clear()
        self._count_pending()
        because, self._full_because = self._full_because, ""
        try:
            report = await self.backend.sync(self.state, None if because else changes)
        except KernelError as error:
            self._count_duration(time.monotonic() - started, full=bool(because))
            self._failed(error, full=bool(because))
            return
        self._backoff.reset()
        self.state.mark_synced()
        self._health.updated(self.backend.family, waiting=self.state.pending)
        self._count(report, changes, time.monotonic() - started)
        self._log(report, changes, because, time.monotonic() - started)
        if report.full:
            self._last_full = time.monotonic()
        await self._tell_followers(Synced(self.state, changes, report, self.metrics))
        self._first_sync.set()
        if not self.state.pending and not self._full_because:
            self._settled.set()

    async def _tell_followers(self, synced: Synced) -> None:
        """What follows a sync may fail without the rules being wrong."""
        for follower in self._followers:
            try:
                await follower.after_sync(synced)
            except KernelError as error:
                log.warning("%s: %s", self._who, error)

    def _failed(self, error: KernelError, *, full: bool) -> None:
        self._full_because = "the last sync failed"
        delay = self._backoff.next()
        self.metrics.sync_failed(self._settings.mode, full=full)
        hint = f" ({error.hint})" if error.hint else ""
        log.error("%s: rules not written, again in %.1f s: %s%s", self._who, delay, error, hint)
        self._report(FAILED_SYNC, f"{self.backend.family} rules could not be written: {error}{hint}")
        self._request(delay)

    def _count(self, report: SyncReport, changes: Changes, seconds: float) -> None:
        metrics = self.metrics
        metrics.sync_proxy_rules_last_timestamp_seconds = now = time.time()
        metrics.sync_proxy_rules_iptables_total = dict(report.rules_total)
        metrics.sync_proxy_rules_iptables_last = dict(report.rules_written)
        metrics.sync_proxy_rules_nftables_cleanup_failures_total += report.cleanup_failed
        if report.wrote:
            self._count_duration(seconds, full=report.full)
        else:
            metrics.sync_proxy_rules_duration_seconds.observe(seconds)
            metrics.unchanged_syncs_total += 1
        # What happened before the first sync waited for this process to start, not for rules.
        if self._first_sync.is_set():
            for moment in changes.triggered:
                metrics.network_programming_duration_seconds.observe(max(0.0, now - moment))

    def _count_duration(self, seconds: float, *, full: bool) -> None:
        metrics = self.metrics
        metrics.sync_proxy_rules_duration_seconds.observe(seconds)
        if full:
            metrics.sync_full_proxy_rules_duration_seconds.observe(seconds)
        else:
            metrics.sync_partial_proxy_rules_duration_seconds.observe(seconds)

    def _count_pending(self) -> None:
        self.metrics.sync_proxy_rules_service_changes_pending = len(self._services_pending)
        self.metrics.sync_proxy_rules_endpoint_changes_pending = len(self._slices_pending)

    def _log(self, report: SyncReport, changes: Changes, because: str, seconds: float) -> None:
        if not report.wrote:
            log.debug("%s: no rule differs", self._who)
            return
        if report.full:
            total = sum(report.rules_total.values())
            log.info("%s: %d rules, full sync (%s) in %.1f ms", self._who, total, because, seconds * 1e3)
            return
        touched = len(changes.updated) + len(changes.removed)
        if touched > _LOGGED_ONE_BY_ONE:
            log.info("%s: %d service ports synced in %.1f ms", self._who, touched, seconds * 1e3)
            return
        for name in sorted(changes.updated):
            count = len(self.state.endpoints(name))
            log.info("%s: %d endpoints, synced in %.1f ms on %s", name, count, seconds * 1e3, self._who)
        for name in sorted(changes.removed):
            log.info("%s: removed, synced in %.1f ms on %s", name, seconds * 1e3, self._who)

    async def _listen(self) -> None:
        """Mend what others do to our rules as soon as the kernel tells."""
        await self._first_sync.wait()
        while True:
            what = await self.backend.disturbed()
            log.warning("%s: %s; writing everything anew", self._who, what)
            self._report(
                FLUSHED, f"{self.backend.family} rules were changed by somebody ({what}); restoring them"
            )
            self.want_full("rules changed by somebody")

    async def _look_after(self) -> None:
        """Every sync period: are the rules still there, and is a full sync due?"""
        await self._first_sync.wait()
        while True:
            await asyncio.sleep(self._settings.sync_period)
            if time.monotonic() - self._last_full >= self._settings.full_sync_period:
                self.want_full("time for it")
                continue
            try:
                intact = await self.backend.intact()
            except KernelError as error:
                log.warning("%s: canary check failed: %s", self._who, error)
                continue
            if not intact:
                log.warning("%s: somebody removed our chains; writing everything anew", self._who)
                self._report(FLUSHED, f"{self.backend.family} rules were removed by somebody; restoring them")
                self.want_full("canary lost")
