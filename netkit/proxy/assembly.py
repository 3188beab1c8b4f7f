"""A whole proxy, put together: back ends, what follows their syncs, the servers. Called by whoever starts one.

A cluster's node agents and `netkit proxy` both build theirs here, so that they are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.client.client import Client
from controlplane.client.events import NORMAL
from netkit.kernel.conntrack import Conntrack
from netkit.kernel.conntrack_settings import ConntrackSettings
from netkit.proxy.addresses import Address, Family
from netkit.proxy.agent import ProxyAgent, node_facts
from netkit.proxy.backend import Follower
from netkit.proxy.conntrack_cleaner import ConntrackCleaner
from netkit.proxy.conntrack_sysctls import ConntrackSysctls
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.health.service_servers import ServiceHealthServers
from netkit.proxy.iptables.rules import INVALID_DROPPED, LOCALHOST_ACCEPTED
from netkit.proxy.local_endpoints import LocalEndpointCounts
from netkit.proxy.metrics import AgentMetrics
from netkit.proxy.modes import Site, backends
from netkit.proxy.node_kernel import NamespaceKernel, NodeKernel
from netkit.proxy.node_port_places import NodePortPlaces
from netkit.proxy.reports import Reports
from netkit.proxy.servers.healthz import health_pages
from netkit.proxy.servers.metrics_pages import metrics_pages
from netkit.proxy.servers.status import Page, StatusServer
from netkit.proxy.settings import ProxyMode, ProxySettings

HEALTH_PORT, METRICS_PORT = 10256, 10249
HEALTH_FAILED, METRICS_FAILED = "FailedToStartProxierHealthcheck", "FailedToStartMetricsServer"
"""Reasons of Events; the first is kube-proxy's of old."""
_COUNTERS = {
    "iptables_ct_state_invalid_dropped_packets_total": INVALID_DROPPED,
    "iptables_localhost_nodeports_accepted_packets_total": LOCALHOST_ACCEPTED,
}


def assemble(
    client: Client,
    node_name: str,
    settings: ProxySettings,
    site: Site,
    families: Sequence[Family],
    configuration: Mapping[str, Any] | None = None,
) -> ProxyAgent:
    """The proxy of `node_name` as `settings` want it, at work at `site` for `families`.

    `configuration` is what /configz shows: the KubeProxyConfiguration that the settings were made from. Call it
    from inside the loop. Raises Unsupported with the name of what the kernel lacks for the mode.
    """
    reports = Reports(client, node_name)
    health = ProxyHealth(2 * settings.sync_period)
    counts = AgentMetrics(settings.mode, families)
    if settings.mode is ProxyMode.IPTABLES:
        counts.counted_packets = functools.partial(_counted_packets, NamespaceKernel(site.ns))

    def primary() -> Sequence[Address]:
        facts = node_facts(reports.node)
        return settings.node_addresses([str(address) for address in facts.addresses])

    places = NodePortPlaces(settings, NamespaceKernel(site.ns), primary)
    services = ServiceHealthServers(node_name, site.ns, places.of, health, reports)
    followers: list[Follower] = [services, LocalEndpointCounts(node_name)]
    if settings.mode is not ProxyMode.USERSPACE:
        # There flows lead to the proxy's own sockets, which know themselves where their clients belong.
        followers.append(ConntrackCleaner(node_name, Conntrack(site.ns)))
    sysctls = ConntrackSysctls(node_name, settings.conntrack, ConntrackSettings(site.ns), reports.on_node)
    return ProxyAgent(
        client,
        node_name,
        settings,
        backends(settings, site, families),
        followers,
        servers=[
            Start(reports),
            services,
            *_status_servers(settings, site, health, counts, reports, configuration or {}),
        ],
        preparations=[sysctls],
        reports=reports,
        health=health,
        counts=counts,
    )


def _counted_packets(kernel: NodeKernel) -> Mapping[str, int]:
    """The packets that iptables rules count, by metric."""
    found = {metric: kernel.counted_packets(counter) for metric, counter in _COUNTERS.items()}
    return {metric: number for metric, number in found.items() if number is not None}


class Start:
    """Says on the Node that its proxy has started, as kube-proxy does: with a reason, and no more words."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def run(self) -> None:
        """See `Server`."""
        self._reports.on_node("Starting", "", NORMAL)


def _status_servers(
    settings: ProxySettings,
    site: Site,
    health: ProxyHealth,
    counts: AgentMetrics,
    reports: Reports,
    configuration: Mapping[str, Any],
) -> list[StatusServer]:
    """The servers for health and metrics, as far as they have an address."""

    def server(name: str, reason: str, address: str, port: int, pages: Mapping[str, Page]) -> StatusServer:
        hard_fail = settings.bind_address_hard_fail
        return StatusServer(
            name, reason, site.ns, address, pages, reports, default_port=port, hard_fail=hard_fail
        )

    servers = []
    if settings.healthz_bind_address:
        pages = health_pages(health, counts)
        address = settings.healthz_bind_address
        servers.append(server("proxy health server", HEALTH_FAILED, address, HEALTH_PORT, pages))
    if settings.metrics_bind_address:
        pages = metrics_pages(counts, configuration, profiling=settings.enable_profiling)
        address = settings.metrics_bind_address
        servers.append(server("proxy metrics server", METRICS_FAILED, address, METRICS_PORT, pages))
    return servers
