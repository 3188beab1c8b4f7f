"""What a proxy counts about itself, in kube-proxy's terms. Plain numbers; whoever serves them reads them.

Filled by the family loop. No I/O.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

_SYNC_BOUNDS = tuple(0.001 * 2**exponent for exponent in range(15))
_PROGRAMMING_BOUNDS = (0.25, 0.5, *range(1, 60), *range(60, 121, 5), *range(130, 301, 10))


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


@dataclass(slots=True)
class ProxyMetrics:
    """Metrics of one address family; names as in kube-proxy without the prefix. Times are Unix seconds."""

    sync_proxy_rules_duration_seconds: Histogram = field(default_factory=lambda: Histogram(_SYNC_BOUNDS))
    sync_full_proxy_rules_duration_seconds: Histogram = field(default_factory=lambda: Histogram(_SYNC_BOUNDS))
    sync_partial_proxy_rules_duration_seconds: Histogram = field(
        default_factory=lambda: Histogram(_SYNC_BOUNDS)
    )
    network_programming_duration_seconds: Histogram = field(
        default_factory=lambda: Histogram(_PROGRAMMING_BOUNDS)
    )
    sync_proxy_rules_last_timestamp_seconds: float = 0.0
    sync_proxy_rules_last_queued_timestamp_seconds: float = 0.0
    sync_proxy_rules_iptables_total: dict[str, int] = field(default_factory=dict)
    sync_proxy_rules_iptables_last: dict[str, int] = field(default_factory=dict)
    sync_proxy_rules_iptables_restore_failures_total: int = 0
    sync_proxy_rules_iptables_partial_restore_failures_total: int = 0
    unchanged_syncs_total: int = 0
    """Syncs that found nothing to write."""
