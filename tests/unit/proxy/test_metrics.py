"""What a proxy counts, and the pages of its metrics server."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from support.proxy import Object, draining, endpoint, feed, service, slice_of

from netkit.proxy.addresses import Family
from netkit.proxy.backend import Synced, SyncReport
from netkit.proxy.choice import NodeView
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.local_endpoints import LocalEndpointCounts, unserved_policies
from netkit.proxy.metrics import PROGRAMMING_BOUNDS, SYNC_BOUNDS, AgentMetrics, Histogram, ProxyMetrics
from netkit.proxy.servers.exposition import expose
from netkit.proxy.servers.healthz import health_pages
from netkit.proxy.servers.http import parse_bind_address
from netkit.proxy.servers.metrics_pages import metrics_pages
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.settings import ProxyMode
from netkit.proxy.state import ProxyState

EVERYWHERE = {
    "kubeproxy_sync_proxy_rules_duration_seconds": "histogram",
    "kubeproxy_network_programming_duration_seconds": "histogram",
    "kubeproxy_conntrack_reconciler_sync_duration_seconds": "histogram",
    "kubeproxy_conntrack_reconciler_deleted_entries": "counter",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds": "gauge",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds": "gauge",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending": "gauge",
    "kubeproxy_sync_proxy_rules_endpoint_changes": "counter",
    "kubeproxy_sync_proxy_rules_service_changes_pending": "gauge",
    "kubeproxy_sync_proxy_rules_service_changes": "counter",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total": "gauge",
    "kubeproxy_proxy_healthz": "counter",
    "kubeproxy_proxy_livez": "counter",
}
DURATIONS = {
    "kubeproxy_sync_full_proxy_rules_duration_seconds": "histogram",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds": "histogram",
}
BY_MODE: dict[ProxyMode, dict[str, str]] = {
    ProxyMode.IPTABLES: {
        **DURATIONS,
        "kubeproxy_sync_proxy_rules_iptables_restore_failures": "counter",
        "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures": "counter",
        "kubeproxy_sync_proxy_rules_iptables_total": "gauge",
        "kubeproxy_sync_proxy_rules_iptables_last": "gauge",
    },
    ProxyMode.NFTABLES: {
        **DURATIONS,
        "kubeproxy_sync_proxy_rules_nftables_sync_failures": "counter",
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures": "counter",
    },
    ProxyMode.IPVS: {"kubeproxy_sync_proxy_rules_iptables_restore_failures": "counter"},
}


def filled(mode: ProxyMode = ProxyMode.IPTABLES) -> AgentMetrics:
    counts = AgentMetrics(mode, Family)
    for family, metrics in counts.families.items():
        for name in ("sync", "sync_full", "sync_partial"):
            suffix = "proxy_rules_duration_seconds"
            getattr(metrics, f"{name}_{suffix}").observe(0.003)
        metrics.network_programming_duration_seconds.observe(0.3)
        metrics.conntrack_reconciler_sync_duration_seconds.observe(0.01)
        metrics.conntrack_reconciler_deleted_entries_total = 2 if family is Family.IPV4 else 5
        metrics.sync_proxy_rules_iptables_total = {"nat": 30, "filter": 10}
        metrics.sync_proxy_rules_iptables_last = {"nat": 3}
        metrics.sync_proxy_rules_no_local_endpoints_total = {"internal": 1, "external": 0}
        metrics.sync_proxy_rules_service_changes_total = 7
        metrics.sync_proxy_rules_endpoint_changes_pending = 4 if family is Family.IPV6 else 0
    counts.proxy_healthz_total[503] += 1
    counts.proxy_livez_total[200] += 3
    return counts


def samples(counts: AgentMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = expose(counts, "")[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("mode", BY_MODE)
def test_names_and_types_are_kube_proxys(mode: ProxyMode) -> None:
    text = expose(filled(mode), "")[0].decode()
    found = {family.name: family.type for family in parse(text) if family.name.startswith("kubeproxy_")}
    assert found == {**EVERYWHERE, **BY_MODE[mode]}
    assert "[ALPHA]" in text


def test_values_and_labels() -> None:
    found = samples(filled())
    four, six = ("ip_family", "IPv4"), ("ip_family", "IPv6")
    assert found["kubeproxy_conntrack_reconciler_deleted_entries_total", (four,)] == 2
    assert found["kubeproxy_conntrack_reconciler_deleted_entries_total", (six,)] == 5
    assert found["kubeproxy_sync_proxy_rules_iptables_total", (four, ("table", "nat"))] == 30
    policy = ("traffic_policy", "internal")
    assert found["kubeproxy_sync_proxy_rules_no_local_endpoints_total", (six, policy)] == 1
    assert found["kubeproxy_sync_proxy_rules_service_changes_total", ()] == 7
    assert found["kubeproxy_sync_proxy_rules_endpoint_changes_pending", ()] == 4
    assert found["kubeproxy_proxy_healthz_total", (("code", "503"),)] == 1
    assert found["kubeproxy_proxy_livez_total", (("code", "200"),)] == 3


def test_buckets_are_cumulative() -> None:
    found = samples(filled())
    name, four = "kubeproxy_sync_proxy_rules_duration_seconds", ("ip_family", "IPv4")
    assert found[f"{name}_bucket", (four, ("le", "0.002"))] == 0
    assert found[f"{name}_bucket", (four, ("le", "0.004"))] == 1
    assert found[f"{name}_bucket", (four, ("le", "16.384"))] == 1
    assert found[f"{name}_bucket", (four, ("le", "+Inf"))] == 1
    assert found[f"{name}_sum", (four,)] == 0.003
    assert found[f"{name}_count", (four,)] == 1


def test_bounds_are_kube_proxys() -> None:
    assert len(SYNC_BOUNDS) == 15
    assert (SYNC_BOUNDS[0], SYNC_BOUNDS[-1]) == (0.001, 16.384)
    assert len(PROGRAMMING_BOUNDS) == 1 + 2 + 59 + 12 + 7
    assert PROGRAMMING_BOUNDS[:5] == (0, 0.25, 0.5, 1, 2)
    assert PROGRAMMING_BOUNDS[-8:] == (115, 120, 150, 180, 210, 240, 270, 300)


def test_what_was_never_observed_is_not_shown() -> None:
    text = expose(AgentMetrics(ProxyMode.IPTABLES, [Family.IPV4]), "")[0].decode()
    assert "duration_seconds_bucket" not in text


def test_openmetrics_when_asked_for() -> None:
    body, content_type = expose(filled(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert "kubeproxy_sync_proxy_rules_duration_seconds" in names


def test_failures_are_counted_as_the_mode_has_them() -> None:
    metrics = ProxyMetrics()
    metrics.sync_failed(ProxyMode.NFTABLES, full=True)
    metrics.sync_failed(ProxyMode.IPTABLES, full=True)
    metrics.sync_failed(ProxyMode.IPTABLES, full=False)
    assert metrics.sync_proxy_rules_nftables_sync_failures_total == 1
    assert metrics.sync_proxy_rules_iptables_restore_failures_total == 2
    assert metrics.sync_proxy_rules_iptables_partial_restore_failures_total == 1


def test_a_histogram_counts_what_lies_on_a_bound_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 3.0):
        histogram.observe(seconds)
    assert histogram.buckets == [2, 1, 1]


# pages


def asked(path: str, **headers: str) -> Any:
    return make_mocked_request("GET", path, headers=headers)


async def page(path: str, *, profiling: bool = False, query: str = "") -> tuple[int, str, str]:
    pages = metrics_pages(filled(), {"mode": "iptables"}, profiling=profiling)
    if path not in pages:
        return 404, "", ""
    answer = await pages[path](asked(f"{path}{query}"))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert isinstance(answer.body, bytes)
    return answer.status, answer.headers["Content-Type"], answer.body.decode()


async def test_mode_health_and_configuration() -> None:
    assert await page("/proxyMode") == (200, "text/plain; charset=utf-8", "iptables")
    assert await page("/healthz") == (200, "text/plain; charset=utf-8", "ok")
    status, kind, text = await page("/configz")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text) == {"kubeproxy.config.k8s.io": {"mode": "iptables"}}
    status, kind, text = await page("/metrics")
    assert kind.startswith("text/plain; version=0.0.4")
    assert "kubeproxy_sync_proxy_rules_duration_seconds_bucket" in text
    assert "process_cpu_seconds_total" in text


async def test_profiling_is_there_only_when_wanted() -> None:
    for path in ("/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/profile"):
        assert (await page(path))[0] == 404
    assert "/debug/pprof/goroutine" in (await page("/debug/pprof/", profiling=True))[2]
    stacks = (await page("/debug/pprof/goroutine", profiling=True, query="?debug=2"))[2]
    assert "thread 'MainThread'" in stacks
    assert "_stacks" in stacks
    status, _, text = await page("/debug/pprof/profile", profiling=True, query="?seconds=0.01")
    assert status == 200
    assert "function calls" in text
    for query in ("?seconds=x", "?seconds=-1", "?seconds=100000"):
        assert (await page("/debug/pprof/profile", profiling=True, query=query))[0] == 400


async def test_probes_are_counted_by_status() -> None:
    health, counts = ProxyHealth(60), AgentMetrics(ProxyMode.IPTABLES, [Family.IPV4])
    pages = health_pages(health, counts)
    assert (await pages["/healthz"](asked("/healthz"))).status == 200
    health.node_seen(None)
    answer = await pages["/healthz"](asked("/healthz"))
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["nodeEligible"] is False
    assert (await pages["/livez"](asked("/livez"))).status == 200
    assert dict(counts.proxy_healthz_total) == {200: 1, 503: 1}
    assert dict(counts.proxy_livez_total) == {200: 1}


# Local policies without local endpoints

NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
HERE, THERE = endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "there")
INTERNAL = {"internalTrafficPolicy": "Local"}
EXTERNAL: dict[str, Any] = {"externalTrafficPolicy": "Local", "type": "LoadBalancer"}
BALANCED: dict[str, Any] = {**EXTERNAL, "ingress": [{"ip": "5.6.7.8"}]}


@pytest.mark.parametrize(
    ("spec", "endpoints", "expected"),
    [
        (INTERNAL, (THERE,), {"internal"}),
        (INTERNAL, (HERE, THERE), set()),
        (INTERNAL, (), set()),
        (INTERNAL, (draining("10.0.0.1", "here"), THERE), set()),
        (BALANCED, (THERE,), {"external"}),
        ({**BALANCED, **INTERNAL}, (THERE,), {"internal", "external"}),
        (EXTERNAL, (THERE,), set()),
        ({}, (THERE,), set()),
    ],
)
def test_policies_that_find_nobody_here(
    spec: dict[str, Any], endpoints: tuple[Object, ...], expected: set[str]
) -> None:
    state = ProxyState(Family.IPV4)
    feed(state, service(**spec), slice_of("ns1/svc1", *endpoints))
    state.collect()
    assert unserved_policies(state, NAME, NodeView("here")) == expected


async def test_counts_follow_the_changes() -> None:
    counts, metrics, state = LocalEndpointCounts("here"), ProxyMetrics(), ProxyState(Family.IPV4)

    async def have(*objects: Object) -> dict[str, int]:
        feed(state, *objects)
        happened = Synced(state, state.collect(), SyncReport(True, False), metrics)
        await counts.after_sync(happened)
        state.mark_synced()
        return metrics.sync_proxy_rules_no_local_endpoints_total

    slices = slice_of("ns1/svc1", THERE)
    assert await have(service(**BALANCED, **INTERNAL), slices) == {"internal": 1, "external": 1}
    assert await have(service("ns1/other", "172.30.0.42")) == {"internal": 1, "external": 1}
    assert await have(service(**BALANCED)) == {"internal": 0, "external": 1}
    assert await have(slice_of("ns1/svc1", HERE)) == {"internal": 0, "external": 0}
    assert await have(slices) == {"internal": 0, "external": 1}
    state.delete_service("ns1", "svc1")
    assert await have() == {"internal": 0, "external": 0}


def test_every_number_of_a_family_is_shown_in_some_mode() -> None:
    shown = "".join(expose(filled(mode), "")[0].decode() for mode in BY_MODE)
    for field in dataclasses.fields(ProxyMetrics):
        if field.name != "unchanged_syncs_total":
            assert f"kubeproxy_{field.name}" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::]:80", ("::", 80)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("0.0.0.0", ("0.0.0.0", 10249)),
        ("fd00::1", ("fd00::1", 10249)),
        ("[fd00::1]", ("fd00::1", 10249)),
    ],
)
def test_bind_addresses(text: str, expected: tuple[str, int]) -> None:
    address, port = parse_bind_address(text, 10249)
    assert (str(address), port) == expected
