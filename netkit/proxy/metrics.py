"""What a proxy counts about itself, in kube-proxy's terms. Plain numbers; `servers.exposition` hands them out.

Filled by the family loop, by its followers and by the health server. No I/O.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from netkit.proxy.addresses import Family
from netkit.proxy.settings import ProxyMode

SYNC_BOUNDS = tuple(0.001 * 2**exponent for exponent in range(15))
PROGRAMMING_BOUNDS: tuple[float, ...] = (
    0.0,
    0.25,
    0.5,
    *range(1, 60),
    *range(60, 120, 5),
    *range(120, 301, 30),
)
"""kube-proxy's, with the useless first one."""


@dataclass(slots=True)
class Histogram:
    """Observed seconds: number, sum, the last one, and a count per bucket (`bounds` are upper limits)."""

    bounds: tuple[float, ...]
    count: int = 0
    total: float = 0.0
    last: float = 0.0
    buckets: list[int] = field(default_factory=list)

    def observe(self, seconds: float) -> None:
        if not self.buckets:
            self.buckets = [0] * (len(self.bounds) + 1)
        self.count += 1
        self.total += seconds
        self.last = seconds
        self.buckets[bisect.bisect_left(self.bounds, seconds)] += 1


def _sync_histogram() -> Histogram:
    return Histogram(SYNC_BOUNDS)


@dataclass(slots=True)
class ProxyMetrics:
    """Metrics of one address family; names as in kube-proxy without the prefix. Times are Unix seconds."""

    sync_proxy_rules_duration_seconds: Histogram = field(default_factory=_sync_histogram)
    sync_full_proxy_rules_duration_seconds: Histogram = field(default_factory=_sync_histogram)
    sync_partial_proxy_rules_duration_seconds: Histogram = field(default_factory=_sync_histogram)
    network_programming_duration_seconds: Histogram = field(
        default_factory=lambda: Histogram(PROGRAMMING_BOUNDS)
    )
    sync_proxy_rules_last_timestamp_seconds: float = 0.0
    sync_proxy_rules_last_queued_timestamp_seconds: float = 0.0
    sync_proxy_rules_endpoint_changes_pending: int = 0
    sync_proxy_rules_endpoint_changes_total: int = 0
    sync_proxy_rules_service_changes_pending: int = 0
    sync_proxy_rules_service_changes_total: int = 0
    sync_proxy_rules_no_local_endpoints_total: dict[str, int] = field(default_factory=dict)
    """Service ports by the traffic policy (`internal`, `external`) that finds nobody here, but somebody elsewhere."""
    sync_proxy_rules_iptables_total: dict[str, int] = field(default_factory=dict)
    sync_proxy_rules_iptables_last: dict[str, int] = field(default_factory=dict)
    sync_proxy_rules_iptables_restore_failures_total: int = 0
    sync_proxy_rules_iptables_partial_restore_failures_total: int = 0
    sync_proxy_rules_nftables_sync_failures_total: int = 0
    sync_proxy_rules_nftables_cleanup_failures_total: int = 0
    conntrack_reconciler_sync_duration_seconds: Histogram = field(default_factory=_sync_histogram)
    conntrack_reconciler_deleted_entries_total: int = 0
    unchanged_syncs_total: int = 0
    """Syncs that found nothing to write."""

    def sync_failed(self, mode: ProxyMode, *, full: bool) -> None:
        """Count a sync that the kernel refused."""
        if mode is ProxyMode.NFTABLES:
            self.sync_proxy_rules_nftables_sync_failures_total += 1
            return
        self.sync_proxy_rules_iptables_restore_failures_total += 1
        if not full:
            self.sync_proxy_rules_iptables_partial_restore_failures_total += 1


def _none() -> Mapping[str, int]:
    return {}


class AgentMetrics:
    """All that one proxy counts: its families, and the probes of its own health by status code.

    `counted_packets` asks the kernel for what rules count, by metric; what the kernel cannot count is not in it. It
    blocks shortly.
    """

    def __init__(self, mode: ProxyMode, families: Iterable[Family]) -> None:
        self.mode = mode
        self.families = {family: ProxyMetrics() for family in families}
        self.proxy_healthz_total: Counter[int] = Counter()
        self.proxy_livez_total: Counter[int] = Counter()
        self.counted_packets: Callable[[], Mapping[str, int]] = _none
