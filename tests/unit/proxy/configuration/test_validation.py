"""Upstream's table of configurations that are refused, with path and words (pkg/proxy/apis/config/validation, 1.33)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.document import KubeProxyConfiguration
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.validation import validate, validated

BASE = for_linux(with_defaults(KubeProxyConfiguration(
    bind_address="192.168.59.103",
    healthz_bind_address="0.0.0.0:10256",
    metrics_bind_address="127.0.0.1:10249",
    cluster_cidr="192.168.59.0/24",
)))  # fmt: skip
PAIR = "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]"
ONE = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)"
MODES = (
    "must be iptables, ipvs, nftables, userspace or blank"
    " (blank means the best-available proxy [currently iptables])"
)
CONNTRACK = "KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration"
NOT_NEGATIVE = "must be greater than or equal to 0"


def seconds(number: float) -> Duration:
    return Duration.of(number)


def changed(**changes: Any) -> KubeProxyConfiguration:
    """The base configuration with some fields changed; `section__field` reaches into a section."""
    config = BASE
    for name, value in changes.items():
        section, _, field = name.partition("__")
        config = replace(
            config, **{section: replace(getattr(config, section), **{field: value}) if field else value}
        )
    return config


GOOD: list[dict[str, Any]] = [
    {},
    {"mode": ""},
    {"mode": "iptables"},
    {"mode": "nftables"},
    {"mode": "userspace"},
    {"mode": "ipvs", "ipvs__sync_period": seconds(10), "ipvs__min_sync_period": seconds(5)},
    {"mode": "ipvs", "ipvs__sync_period": seconds(10), "ipvs__min_sync_period": seconds(10)},
    {"mode": "ipvs", "ipvs__scheduler": "whatever: the start decides"},
    {"healthz_bind_address": ""},
    {"metrics_bind_address": ""},
    {
        "bind_address": "fd00:192:168:59::103",
        "metrics_bind_address": "[::1]:10249",
        "cluster_cidr": "fd00:1::/64",
    },
    {"healthz_bind_address": "0.0.0.0:12345"},
    {"cluster_cidr": "fd00:192:168::/64"},
    {"cluster_cidr": "192.168.59.0/24,fd00:192:168::/64"},
    {"cluster_cidr": "nonsense, but of no use in this mode", "detect_local_mode": "NodeCIDR"},
    {"detect_local_mode": "InterfaceNamePrefix", "detect_local__interface_name_prefix": "vethabcde"},
    {"detect_local_mode": "BridgeInterface", "detect_local__bridge_interface": "avz"},
    {"iptables__masquerade_bit": 0},
    {"iptables__masquerade_bit": None},
    {"nftables__masquerade_bit": 77},
    {"iptables__min_sync_period": seconds(0)},
    {"conntrack__tcp_established_timeout": seconds(0), "conntrack__udp_timeout": seconds(0)},
    {"node_port_addresses": ()},
    {"node_port_addresses": ("primary",)},
    {"node_port_addresses": ("127.0.0.1/32", "1.2.3.0/24", "::/0", "2001:db8::/32", "10.020.0.0/16")},
    {"oom_score_adj": None},
    {"oom_score_adj": -1000},
    {"port_range": "2-7"},
    {"port_range": "300+10"},
    {"nftables__layout": "compact"},
    {"client_connection__burst": 0},
    {"logging__format": "json"},
    {"show_hidden_metrics_for_version": "1.31"},
]

BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"bind_address": "10.10.12.11:2000"},
     ['BindAddress: Invalid value: "10.10.12.11:2000": not a valid textual representation of an IP address']),
    ({"bind_address": "[::]"},
     ['BindAddress: Invalid value: "[::]": not a valid textual representation of an IP address']),
    ({"healthz_bind_address": "0.0.0.0"}, ['HealthzBindAddress: Invalid value: "0.0.0.0": must be IP:port']),
    ({"healthz_bind_address": "123.456.789.10:12345"},
     ['HealthzBindAddress: Invalid value: "123.456.789.10": must be a valid IP']),
    ({"healthz_bind_address": "10.10.10.10:foo"}, ['HealthzBindAddress: Invalid value: "foo": must be a valid port']),
    ({"healthz_bind_address": "10.10.10.10:0"}, ['HealthzBindAddress: Invalid value: "0": must be a valid port']),
    ({"healthz_bind_address": "10.10.10.10:65536"},
     ['HealthzBindAddress: Invalid value: "65536": must be a valid port']),
    ({"metrics_bind_address": "127.0.0.1"}, ['MetricsBindAddress: Invalid value: "127.0.0.1": must be IP:port']),
    ({"cluster_cidr": "192.168.59.0"},
     [f'DetectLocalConfiguration.ClusterCIDRs[0]: Invalid value: "192.168.59.0": {ONE}']),
    ({"cluster_cidr": "192.168.59.0/24,fd00:192:168::/64,10.0.0.0/16"},
     ['DetectLocalConfiguration.ClusterCIDRs: Invalid value: '
      f'[]string{{"192.168.59.0/24", "fd00:192:168::/64", "10.0.0.0/16"}}: {PAIR}']),
    ({"cluster_cidr": "192.168.59.0/24,10.0.0.0/16"},
     [f'DetectLocalConfiguration.ClusterCIDRs: Invalid value: []string{{"192.168.59.0/24", "10.0.0.0/16"}}: {PAIR}']),
    ({"config_sync_period": seconds(-1)}, ["ConfigSyncPeriod: Invalid value: -1s: must be greater than 0"]),
    ({"iptables__sync_period": seconds(-5), "iptables__min_sync_period": seconds(2)},
     ["SyncPeriod: Invalid value: -5s: must be greater than 0",
      "SyncPeriod: Invalid value: 2s: must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod"]),
    ({"mode": "ipvs", "ipvs__sync_period": seconds(0), "ipvs__min_sync_period": seconds(10)},
     ["SyncPeriod: Invalid value: 0s: must be greater than 0",
      "SyncPeriod: Invalid value: 10s: must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod"]),
    ({"iptables__min_sync_period": seconds(-1)}, [f"MinSyncPeriod: Invalid value: -1s: {NOT_NEGATIVE}"]),
    ({"mode": "nftables", "nftables__sync_period": seconds(1), "nftables__min_sync_period": seconds(5)},
     ["SyncPeriod: Invalid value: 5s: must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod"]),
    ({"iptables__masquerade_bit": -10},
     ["KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: -10: must be within the range [0, 31]"]),
    ({"mode": "nftables", "nftables__masquerade_bit": 32},
     ["KubeProxyNFTablesConfiguration.MasqueradeBit: Invalid value: 32: must be within the range [0, 31]"]),
    ({"nftables__layout": "wide"},
     ['KubeProxyNFTablesConfiguration.Layout: Unsupported value: "wide": supported values: "kube-proxy", "compact"']),
    ({"mode": "ipvs", "ipvs__tcp_timeout": seconds(-1), "ipvs__udp_timeout": seconds(-1),
      "ipvs__tcp_fin_timeout": seconds(-1)},
     [f"KubeProxyIPVSConfiguration.{name}: Invalid value: -1s: {NOT_NEGATIVE}"
      for name in ("TCPTimeout", "TCPFinTimeout", "UDPTimeout")]),
    ({"mode": "ipvs", "ipvs__exclude_cidrs": ("127.0.0.1/32", "0", "2001:db8:xyz/64")},
     ['KubeProxyIPVSConfiguration.ExcludeCidrs[1]: Invalid value: "0": must be a valid CIDR',
      'KubeProxyIPVSConfiguration.ExcludeCidrs[2]: Invalid value: "2001:db8:xyz/64": must be a valid CIDR']),
    ({"conntrack__max_per_core": -1}, [f"{CONNTRACK}.MaxPerCore: Invalid value: -1: {NOT_NEGATIVE}"]),
    ({"conntrack__min": -1}, [f"{CONNTRACK}.Min: Invalid value: -1: {NOT_NEGATIVE}"]),
    ({"conntrack__tcp_established_timeout": seconds(-5)},
     [f"{CONNTRACK}.TCPEstablishedTimeout: Invalid value: -5s: {NOT_NEGATIVE}"]),
    ({"conntrack__tcp_close_wait_timeout": seconds(-5)},
     [f"{CONNTRACK}.TCPCloseWaitTimeout: Invalid value: -5s: {NOT_NEGATIVE}"]),
    ({"conntrack__udp_timeout": seconds(-5)}, [f"{CONNTRACK}.UDPTimeout: Invalid value: -5s: {NOT_NEGATIVE}"]),
    ({"conntrack__udp_stream_timeout": seconds(-5)},
     [f"{CONNTRACK}.UDPStreamTimeout: Invalid value: -5s: {NOT_NEGATIVE}"]),
    ({"oom_score_adj": 1001},
     ["KubeProxyLinuxConfiguration.OOMScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]"]),
    ({"mode": "kernelspace"}, [f'Mode.ProxyMode: Invalid value: "kernelspace": {MODES}']),
    ({"mode": "non-existing"}, [f'Mode.ProxyMode: Invalid value: "non-existing": {MODES}']),
    ({"client_connection__burst": -5}, [f"ClientConnection.Burst: Invalid value: -5: {NOT_NEGATIVE}"]),
    ({"port_range": "7-2"}, ['PortRange: Invalid value: "7-2": must be a valid port range (e.g. 300-2000)']),
    ({"port_range": "65000+1000"},
     ['PortRange: Invalid value: "65000+1000": must be a valid port range (e.g. 300-2000)']),
    ({"node_port_addresses": ("foo",)}, ['NodePortAddresses[0]: Invalid value: "foo": must be a valid CIDR']),
    ({"node_port_addresses": ("10.0.0.0/0", "1.2.3")},
     ['NodePortAddresses[1]: Invalid value: "1.2.3": must be a valid CIDR']),
    ({"node_port_addresses": ("127.0.0.1/32", "10.20.30.40", "1.2.3.0/24")},
     ['NodePortAddresses[1]: Invalid value: "10.20.30.40": must be a valid CIDR']),
    ({"node_port_addresses": ("::0", "::1", "2001:db8::/32")},
     [f'NodePortAddresses[{at}]: Invalid value: "::{at}": must be a valid CIDR' for at in (0, 1)]),
    ({"node_port_addresses": ("primary", "127.0.0.1/32")},
     ["NodePortAddresses[0]: Invalid value: \"primary\": can't use both 'primary' and CIDRs"]),
    ({"node_port_addresses": ("127.0.0.1/32", "primary")},
     ["NodePortAddresses[1]: Invalid value: \"primary\": can't use both 'primary' and CIDRs"]),
    ({"node_port_addresses": ("10.0.0.0/255.0.0.0",)},
     ['NodePortAddresses[0]: Invalid value: "10.0.0.0/255.0.0.0": must be a valid CIDR']),
    ({"detect_local_mode": "InterfaceNamePrefix"},
     ['DetectLocalConfiguration.InterfacePrefix: Invalid value: "": must not be empty']),
    ({"detect_local_mode": "BridgeInterface", "detect_local__interface_name_prefix": "eth0"},
     ['DetectLocalConfiguration.InterfaceName: Invalid value: "": must not be empty']),
    ({"detect_local_mode": "Guess"},
     ['DetectLocalMode: Unsupported value: "Guess": supported values: '
      '"ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", ""']),
    ({"logging__format": "unsupported format"},
     ['logging.format: Invalid value: "unsupported format": Unsupported log format']),
    ({"show_hidden_metrics_for_version": "next"},
     ['ShowHiddenMetricsForVersion: Invalid value: "next": must be omitted or have the form <major>.<minor>']),
]  # fmt: skip


@pytest.mark.parametrize("changes", GOOD, ids=str)
def test_accepted(changes: dict[str, Any]) -> None:
    assert validate(changed(**changes)) == ()


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=lambda value: str(value)[:60])
def test_refused_with_path_and_words(changes: dict[str, Any], expected: list[str]) -> None:
    faults = [f"{cause.field}: {cause.message}" for cause in validate(changed(**changes))]
    assert faults == [f"KubeProxyConfiguration.{line}" for line in expected]


def test_one_fault_is_shown_alone_and_several_as_a_list() -> None:
    with pytest.raises(ConfigurationError) as caught:
        validated(changed(bind_address="x"))
    assert caught.value.message.startswith("failed validate: KubeProxyConfiguration.BindAddress: ")
    with pytest.raises(ConfigurationError) as caught:
        validated(changed(bind_address="x", mode="y"))
    assert caught.value.message.startswith("failed validate: [KubeProxyConfiguration.Mode.ProxyMode: ")
    assert caught.value.message.endswith("IP address]")
