"""A proxy's counters in the text formats Prometheus reads, under kube-proxy's names.

Types, labels and buckets are those of `pkg/proxy/metrics` (1.33). What only one mode has is shown in that mode only.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from netkit import VERSION
from netkit.proxy.metrics import AgentMetrics, Histogram
from netkit.proxy.settings import ProxyMode

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_HISTOGRAMS = {
    "sync_proxy_rules_duration_seconds": "Time that syncs took",
    "network_programming_duration_seconds": "Time from a change of a Service or pod until rules followed it",
    "conntrack_reconciler_sync_duration_seconds": "Time that looks for stale UDP flows took",
}
_FULL_AND_PARTIAL = {
    "sync_full_proxy_rules_duration_seconds": "Time that full syncs took",
    "sync_partial_proxy_rules_duration_seconds": "Time that partial syncs took",
}
_GAUGES = {
    "sync_proxy_rules_last_timestamp_seconds": "When rules were last synced",
    "sync_proxy_rules_last_queued_timestamp_seconds": "When a sync was last asked for",
}
_COUNTERS = {
    "conntrack_reconciler_deleted_entries_total": "Stale UDP flows that were deleted",
}
_RESTORE = {
    "sync_proxy_rules_iptables_restore_failures_total": "Syncs that iptables-restore refused",
}
_IPTABLES = {
    **_RESTORE,
    "sync_proxy_rules_iptables_partial_restore_failures_total": "Partial syncs that iptables-restore refused",
}
_NFTABLES = {
    "sync_proxy_rules_nftables_sync_failures_total": "Syncs that nftables refused",
    "sync_proxy_rules_nftables_cleanup_failures_total": "Times that stale chains could not be removed",
}
_BY_TABLE = {
    "sync_proxy_rules_iptables_total": "Rules of kube-proxy in a table",
    "sync_proxy_rules_iptables_last": "Rules that the last sync wrote to a table",
}
_PACKETS = {
    "iptables_ct_state_invalid_dropped_packets_total": "Packets dropped because connection tracking calls them invalid",
    "iptables_localhost_nodeports_accepted_packets_total": "Packets to node ports on loopback addresses",
}
_NO_LOCAL = "sync_proxy_rules_no_local_endpoints_total"
_FAILURES: Mapping[ProxyMode, Mapping[str, str]] = {
    ProxyMode.IPTABLES: _IPTABLES,
    ProxyMode.IPVS: _RESTORE,
    ProxyMode.NFTABLES: _NFTABLES,
    ProxyMode.USERSPACE: _RESTORE,
}
_FAMILY = "ip_family"


class _Collector:
    """What a registry of the Prometheus library asks."""

    def __init__(self, counts: AgentMetrics) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        return families(self._counts)


def expose(counts: AgentMetrics, accept: str) -> tuple[bytes, str]:
    """The document in the format `accept` prefers, and its content type."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counts))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def families(counts: AgentMetrics) -> Iterator[Metric]:
    """All metrics of a proxy."""
    durations = dict(_HISTOGRAMS)
    if counts.mode in (ProxyMode.IPTABLES, ProxyMode.NFTABLES):
        durations.update(_FULL_AND_PARTIAL)
    for name, text in durations.items():
        yield _histogram(counts, name, text)
    for name, text in _GAUGES.items():
        yield _per_family(counts, name, text)
    for name, text in {**_COUNTERS, **_FAILURES[counts.mode]}.items():
        yield _per_family(counts, name, text, counter=True)
    if counts.mode is ProxyMode.IPTABLES:
        for name, text in _BY_TABLE.items():
            yield _by_label(counts, name, text, "table")
    text = "Service ports whose Local policy finds no endpoint here while there are some elsewhere"
    yield _by_label(counts, _NO_LOCAL, text, "traffic_policy")
    yield from _changes(counts)
    yield from _probes(counts)
    yield from _packets(counts)
    yield _build_info()


def _histogram(counts: AgentMetrics, name: str, text: str) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(_full(name), _alpha(text), labels=[_FAMILY])
    for ip_family, metrics in counts.families.items():
        histogram: Histogram = getattr(metrics, name)
        buckets, total = [], 0
        for bound, count in zip(histogram.bounds, histogram.buckets, strict=False):
            total += count
            buckets.append((repr(float(bound)), float(total)))
        if histogram.count:
            family.add_metric([ip_family], [*buckets, ("+Inf", float(histogram.count))], histogram.total)
    return family


def _per_family(counts: AgentMetrics, name: str, text: str, *, counter: bool = False) -> Metric:
    def values() -> Iterator[tuple[list[str], float]]:
        for ip_family, metrics in counts.families.items():
            yield [ip_family], float(getattr(metrics, name))

    return _made(name, text, [_FAMILY], values, counter=counter)


def _by_label(counts: AgentMetrics, name: str, text: str, label: str) -> Metric:
    def values() -> Iterator[tuple[list[str], float]]:
        for ip_family, metrics in counts.families.items():
            found: Mapping[str, int] = getattr(metrics, name)
            for value, number in found.items():
                yield [value, ip_family], float(number)

    return _made(name, text, [label, _FAMILY], values)


def _changes(counts: AgentMetrics) -> Iterator[Metric]:
    """Changes of objects are counted without the family: each family's loop sees every one of them."""
    for what, text in (("endpoint", "EndpointSlices"), ("service", "Services")):
        prefix = f"sync_proxy_rules_{what}_changes"
        pending = _highest(counts, f"{prefix}_pending")
        total = _highest(counts, f"{prefix}_total")
        yield _made(f"{prefix}_pending", f"Changed {text} that wait for a sync", [], pending)
        yield _made(f"{prefix}_total", f"Changes of {text} so far", [], total, counter=True)


def _highest(counts: AgentMetrics, name: str) -> Callable[[], Iterator[tuple[list[str], float]]]:
    def values() -> Iterator[tuple[list[str], float]]:
        found = (getattr(metrics, name) for metrics in counts.families.values())
        yield [], float(max(found, default=0))

    return values


def _probes(counts: AgentMetrics) -> Iterator[Metric]:
    for name, found in (
        ("proxy_healthz_total", counts.proxy_healthz_total),
        ("proxy_livez_total", counts.proxy_livez_total),
    ):

        def values(found: Mapping[int, int] = found) -> Iterator[tuple[list[str], float]]:
            for code, number in sorted(found.items()):
                yield [str(code)], float(number)

        yield _made(name, f"Answers of {name.split('_')[1]} by status", ["code"], values, counter=True)


def _packets(counts: AgentMetrics) -> Iterator[Metric]:
    """What rules count: of both families together, since the kernel's counters are."""
    for name, number in counts.counted_packets().items():

        def values(number: int = number) -> Iterator[tuple[list[str], float]]:
            yield [], float(number)

        yield _made(name, _PACKETS[name], [], values, counter=True)


def _made(
    name: str,
    text: str,
    labels: list[str],
    values: Callable[[], Iterator[tuple[list[str], float]]],
    *,
    counter: bool = False,
) -> Metric:
    """A family of counters or gauges. Some of kube-proxy's gauges end in `_total`; a counter's end is the library's."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family: CounterMetricFamily | GaugeMetricFamily
    if counter:
        family = CounterMetricFamily(_full(name).removesuffix("_total"), _alpha(text), labels=labels)
    else:
        family = GaugeMetricFamily(_full(name), _alpha(text), labels=labels)
    for label_values, value in values():
        family.add_metric(label_values, value)
    return family


def _build_info() -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    labels = {"git_version": f"v{VERSION}", "platform": f"linux/{platform.machine()}"}
    text = "[ALPHA] A value of one; its labels say what runs here"
    family = GaugeMetricFamily("kubernetes_build_info", text, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _full(name: str) -> str:
    return f"kubeproxy_{name}"


def _alpha(text: str) -> str:
    return f"[ALPHA] {text}"
