"""The `proxy` section of a cluster's configuration: kube-proxy's options in KubeProxyConfiguration's words.

Called by `config`. Pure. What the cluster itself decides (names, pod ranges, kubeconfigs) cannot be given.
"""

from __future__ import annotations

from dataclasses import replace

from netkit.cluster.errors import ConfigError
from netkit.cluster.fields import Fields
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.document import (
    DetectLocalConfiguration,
    KubeProxyConfiguration,
    KubeProxyConntrackConfiguration,
    KubeProxyIPTablesConfiguration,
    KubeProxyIPVSConfiguration,
    KubeProxyNFTablesConfiguration,
)
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.flag_table import SCHEDULERS
from netkit.proxy.configuration.validation import validate
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import NftablesLayout, ProxyMode

MIN_SYNC_PERIOD = 0.1
"""Seconds. Shorter than kube-proxy's second: a small cluster's rules are written in milliseconds, and nobody who
watches a lab wants to wait.
"""


def proxy(section: Fields) -> KubeProxyConfiguration:
    """The section's fields with defaults in all others.

    `masqueradeAll`, `syncPeriod` and `minSyncPeriod` right in it are for all modes that do not say otherwise in a
    section of their own. Raises ConfigError.
    """
    common = _Common(section)
    config = with_defaults(
        KubeProxyConfiguration(
            mode=section.text("mode", ProxyMode.IPTABLES, tuple(ProxyMode)),
            iptables=_iptables(section.section("iptables"), common),
            ipvs=_ipvs(section.section("ipvs"), common),
            nftables=_nftables(section.section("nftables"), common),
            detect_local_mode=section.text("detectLocalMode", "", tuple(DetectLocalMode)),
            detect_local=_detect_local(section.section("detectLocal")),
            node_port_addresses=section.strings("nodePortAddresses") or None,
            conntrack=_conntrack(section.section("conntrack")),
            healthz_bind_address=section.text("healthzBindAddress", ""),
            metrics_bind_address=section.text("metricsBindAddress", ""),
            enable_profiling=section.flag("enableProfiling", False),
        )
    )
    section.finish()
    for fault in validate(for_linux(config)):
        raise ConfigError(f"proxy: {fault.field}: {fault.message}")
    return config


def with_mode(
    config: KubeProxyConfiguration, mode: ProxyMode, layout: NftablesLayout
) -> KubeProxyConfiguration:
    """The configuration for another mode. What was left open is decided when it is used."""
    written = "" if layout is NftablesLayout.KUBE_PROXY else str(layout)
    return replace(config, mode=str(mode), nftables=replace(config.nftables, layout=written))


class _Common:
    """Options that stand for those of each mode."""

    def __init__(self, section: Fields) -> None:
        self.masquerade_all = section.flag("masqueradeAll", False)
        self.sync_period = section.seconds("syncPeriod", 30.0)
        self.min_sync_period = section.seconds("minSyncPeriod", MIN_SYNC_PERIOD)

    def sync(self, section: Fields) -> tuple[Duration, Duration]:
        """The two periods of one mode."""
        return (
            Duration.of(section.seconds("syncPeriod", self.sync_period)),
            Duration.of(section.seconds("minSyncPeriod", self.min_sync_period)),
        )


def _iptables(section: Fields, common: _Common) -> KubeProxyIPTablesConfiguration:
    period, least = common.sync(section)
    found = KubeProxyIPTablesConfiguration(
        masquerade_bit=section.number("masqueradeBit", 14, 0, 31),
        masquerade_all=section.flag("masqueradeAll", common.masquerade_all),
        localhost_node_ports=section.flag("localhostNodePorts", True),
        sync_period=period,
        min_sync_period=least,
    )
    section.finish()
    return found


def _nftables(section: Fields, common: _Common) -> KubeProxyNFTablesConfiguration:
    period, least = common.sync(section)
    found = KubeProxyNFTablesConfiguration(
        masquerade_bit=section.number("masqueradeBit", 14, 0, 31),
        masquerade_all=section.flag("masqueradeAll", common.masquerade_all),
        sync_period=period,
        min_sync_period=least,
        layout=section.text("layout", "", tuple(NftablesLayout)),
    )
    section.finish()
    return found


def _ipvs(section: Fields, common: _Common) -> KubeProxyIPVSConfiguration:
    period, least = common.sync(section)
    found = KubeProxyIPVSConfiguration(
        sync_period=period,
        min_sync_period=least,
        scheduler=section.text("scheduler", "", SCHEDULERS),
        exclude_cidrs=section.strings("excludeCIDRs") or None,
        strict_arp=section.flag("strictARP", False),
        tcp_timeout=Duration.of(section.seconds("tcpTimeout", 0)),
        tcp_fin_timeout=Duration.of(section.seconds("tcpFinTimeout", 0)),
        udp_timeout=Duration.of(section.seconds("udpTimeout", 0)),
    )
    section.finish()
    return found


def _detect_local(section: Fields) -> DetectLocalConfiguration:
    found = DetectLocalConfiguration(
        bridge_interface=section.text("bridgeInterface", ""),
        interface_name_prefix=section.text("interfaceNamePrefix", ""),
    )
    section.finish()
    return found


def _conntrack(section: Fields) -> KubeProxyConntrackConfiguration:
    """The table's size belongs to the machine, not to a node's namespace: it is left alone unless asked for."""
    found = KubeProxyConntrackConfiguration(
        max_per_core=section.number("maxPerCore", 0, 0, 2**31 - 1),
        min=section.number("min", 131072, 0, 2**31 - 1),
        tcp_established_timeout=Duration.of(section.seconds("tcpEstablishedTimeout", 86400)),
        tcp_close_wait_timeout=Duration.of(section.seconds("tcpCloseWaitTimeout", 3600)),
        tcp_be_liberal=section.flag("tcpBeLiberal", False),
        udp_timeout=Duration.of(section.seconds("udpTimeout", 0)),
        udp_stream_timeout=Duration.of(section.seconds("udpStreamTimeout", 0)),
    )
    section.finish()
    return found
