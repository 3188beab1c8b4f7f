"""The metrics of upstream's reference for 1.35 (names, types, labels), and which mode has which: all of them, and no
other with the prefix (pkg/proxy/metrics/metrics.go).
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from support.proxy import endpoint, service, slice_of
from unit.proxy.upstream.world import NODE, IPTablesProxier, NftablesProxier, tcp

from netkit.proxy.addresses import Family
from netkit.proxy.backend import Synced
from netkit.proxy.local_endpoints import LocalEndpointCounts
from netkit.proxy.metrics import AgentMetrics, ProxyMetrics
from netkit.proxy.servers.exposition import expose
from netkit.proxy.settings import ProxyMode

FAMILY = frozenset({"ip_family"})
NONE: frozenset[str] = frozenset()
ALL_MODES: Mapping[str, tuple[str, frozenset[str]]] = {
    "conntrack_reconciler_deleted_entries_total": ("counter", FAMILY),
    "conntrack_reconciler_sync_duration_seconds": ("histogram", FAMILY),
    "network_programming_duration_seconds": ("histogram", FAMILY),
    "proxy_healthz_total": ("counter", frozenset({"code"})),
    "proxy_livez_total": ("counter", frozenset({"code"})),
    "sync_proxy_rules_duration_seconds": ("histogram", FAMILY),
    "sync_proxy_rules_endpoint_changes_pending": ("gauge", NONE),
    "sync_proxy_rules_endpoint_changes_total": ("counter", NONE),
    "sync_proxy_rules_last_queued_timestamp_seconds": ("gauge", FAMILY),
    "sync_proxy_rules_last_timestamp_seconds": ("gauge", FAMILY),
    "sync_proxy_rules_no_local_endpoints_total": ("gauge", FAMILY | {"traffic_policy"}),
    "sync_proxy_rules_service_changes_pending": ("gauge", NONE),
    "sync_proxy_rules_service_changes_total": ("counter", NONE),
}
_FULL_AND_PARTIAL: Mapping[str, tuple[str, frozenset[str]]] = {
    "sync_full_proxy_rules_duration_seconds": ("histogram", FAMILY),
    "sync_partial_proxy_rules_duration_seconds": ("histogram", FAMILY),
}
ONE_MODE: Mapping[ProxyMode, Mapping[str, tuple[str, frozenset[str]]]] = {
    ProxyMode.IPTABLES: {
        **_FULL_AND_PARTIAL,
        "iptables_ct_state_invalid_dropped_packets_total": ("counter", NONE),
        "iptables_localhost_nodeports_accepted_packets_total": ("counter", NONE),
        "sync_proxy_rules_iptables_last": ("gauge", FAMILY | {"table"}),
        "sync_proxy_rules_iptables_partial_restore_failures_total": ("counter", FAMILY),
        "sync_proxy_rules_iptables_restore_failures_total": ("counter", FAMILY),
        "sync_proxy_rules_iptables_total": ("gauge", FAMILY | {"table"}),
    },
    ProxyMode.IPVS: {"sync_proxy_rules_iptables_restore_failures_total": ("counter", FAMILY)},
    ProxyMode.NFTABLES: {
        **_FULL_AND_PARTIAL,
        "sync_proxy_rules_nftables_cleanup_failures_total": ("counter", FAMILY),
        "sync_proxy_rules_nftables_sync_failures_total": ("counter", FAMILY),
    },
}


def filled(mode: ProxyMode) -> AgentMetrics:
    """Counts of a proxy that has done and seen everything once."""
    counts = AgentMetrics(mode, Family)
    for metrics in counts.families.values():
        metrics.sync_proxy_rules_duration_seconds.observe(0.1)
        metrics.sync_full_proxy_rules_duration_seconds.observe(0.1)
        metrics.sync_partial_proxy_rules_duration_seconds.observe(0.1)
        metrics.network_programming_duration_seconds.observe(0.1)
        metrics.conntrack_reconciler_sync_duration_seconds.observe(0.1)
        metrics.sync_proxy_rules_no_local_endpoints_total = {"internal": 1, "external": 0}
        metrics.sync_proxy_rules_iptables_total = {"nat": 1, "filter": 1}
        metrics.sync_proxy_rules_iptables_last = {"nat": 1, "filter": 1}
    counts.proxy_healthz_total[200] = counts.proxy_livez_total[503] = 1
    if mode is ProxyMode.IPTABLES:
        counts.counted_packets = lambda: {
            "iptables_ct_state_invalid_dropped_packets_total": 3,
            "iptables_localhost_nodeports_accepted_packets_total": 4,
        }
    return counts


@pytest.mark.parametrize("mode", ONE_MODE)
def test_names_types_and_labels(mode: ProxyMode) -> None:
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for family in parse(expose(filled(mode), "")[0].decode()):
        if family.name.startswith("kubeproxy_"):
            end = "_total" if family.type == "counter" else ""
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[family.name.removeprefix("kubeproxy_") + end] = (family.type, frozenset(labels))
    assert found == {**ALL_MODES, **ONE_MODE[mode]}


HERE, AWAY = (NODE, "node1", "node2"), ("node0", "node1", "node2")


@pytest.mark.parametrize("proxier", [IPTablesProxier, NftablesProxier])
@pytest.mark.parametrize(
    ("internal", "external", "nodes", "expected"),
    [
        ("Local", "Cluster", HERE, (0, 0)),
        ("Cluster", "Local", HERE, (0, 0)),
        ("Local", "Local", HERE, (0, 0)),
        ("Local", "Cluster", AWAY, (1, 0)),
        ("Cluster", "Local", AWAY, (0, 1)),
        ("Local", "Local", AWAY, (1, 1)),
        ("Local", "Local", (), (0, 0)),
    ],
)
async def test_policies_without_local_endpoints_are_counted(
    proxier: type[IPTablesProxier | NftablesProxier],
    internal: str,
    external: str,
    nodes: tuple[str, ...],
    expected: tuple[int, int],
) -> None:
    made = proxier()
    policies = {"internalTrafficPolicy": internal, "externalTrafficPolicy": external}
    made.add(service("ns1/svc1", "172.30.1.1", tcp(80, 123, name=""), type="NodePort", **policies))
    pods = [endpoint(f"10.0.1.{number}", node) for number, node in enumerate(nodes, 1)]
    made.add(slice_of("ns1/svc1", *pods, ports=tcp(name="")))
    changes = made.state.collect()
    report = await made.sync()
    metrics = ProxyMetrics()
    await LocalEndpointCounts(NODE).after_sync(Synced(made.state, changes, report, metrics))
    found = metrics.sync_proxy_rules_no_local_endpoints_total
    assert (found["internal"], found["external"]) == expected
