"""A whole proxy, put together: back ends, what follows their syncs, the servers. Called by whoever starts one.

A cluster's node agents and `netkit proxy` both build theirs here, so that they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.client.client import Client
from netkit.kernel.conntrack import Conntrack
from netkit.kernel.conntrack_settings import ConntrackSettings
from netkit.proxy.addresses import Family
from netkit.proxy.agent import ProxyAgent
from netkit.proxy.backend import Follower
from netkit.proxy.conntrack_cleaner import ConntrackCleaner
from netkit.proxy.conntrack_sysctls import ConntrackSysctls
from netkit.proxy.health.proxy_health import ProxyHealth
from netkit.proxy.metrics import AgentMetrics
from netkit.proxy.modes import Site, backends
from netkit.proxy.reports import Reports
from netkit.proxy.settings import ProxyMode, ProxySettings


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
    followers: list[Follower] = []
    if settings.mode is not ProxyMode.USERSPACE:
        # There flows lead to the proxy's own sockets, which know themselves where their clients belong.
        followers.append(ConntrackCleaner(node_name, Conntrack(site.ns)))
    conntrack = ConntrackSettings(site.ns)
    return ProxyAgent(
        client,
        node_name,
        settings,
        backends(settings, site, families),
        followers,
        preparations=[ConntrackSysctls(node_name, settings.conntrack, conntrack, reports.on_node)],
        reports=reports,
        health=health,
        counts=counts,
    )
