"""Flags become a configuration as kube-proxy's do, and a configuration the settings of a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netkit.proxy.addresses import Family
from netkit.proxy.configuration.apply import doubts, primary_addresses, primary_family, proxy_settings
from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.document import KubeProxyConfiguration, VModuleItem
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.encode import as_json
from netkit.proxy.configuration.flag_table import FLAGS
from netkit.proxy.configuration.flags import Options, complete, read
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ConntrackSettings, IPVSSettings, NftablesLayout, ProxyMode, ProxySettings

HEADER = b"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
DEFAULT = for_linux(with_defaults(KubeProxyConfiguration()))
V4, V6 = ip_address("192.0.2.7"), ip_address("fd00::7")


def options(file: bytes | None = None, **flags: str | list[str]) -> Options:
    texts = {
        name.replace("_", "-"): [text] if isinstance(text, str) else text for name, text in flags.items()
    }
    return complete(read(texts), file)


def config(**flags: str | list[str]) -> KubeProxyConfiguration:
    return options(**flags).configuration


def at(configuration: KubeProxyConfiguration, path: str) -> Any:
    value: Any = as_json(configuration)
    for name in path.split("."):
        value = value[name]
    return value


def test_no_flags_are_the_defaults() -> None:
    assert options() == Options(DEFAULT)
    assert options(HEADER) == Options(DEFAULT)


SETS: list[tuple[dict[str, Any], str, Any]] = [
    ({"proxy_mode": "ipvs"}, "mode", "ipvs"),
    ({"kubeconfig": "/x"}, "clientConnection.kubeconfig", "/x"),
    ({"cluster_cidr": "10.0.0.0/8,fd00::/48"}, "clusterCIDR", "10.0.0.0/8,fd00::/48"),
    ({"detect_local_mode": "NodeCIDR"}, "detectLocalMode", "NodeCIDR"),
    ({"pod_bridge_interface": "cni0"}, "detectLocal.bridgeInterface", "cni0"),
    ({"pod_interface_name_prefix": "veth"}, "detectLocal.interfaceNamePrefix", "veth"),
    ({"nodeport_addresses": ["10.0.0.0/8,fd00::/48", "1.2.3.0/24"]}, "nodePortAddresses",
     ["10.0.0.0/8", "fd00::/48", "1.2.3.0/24"]),
    ({"bind_address": "1.2.3.4"}, "bindAddress", "1.2.3.4"),
    ({"healthz_bind_address": "1.2.3.4"}, "healthzBindAddress", "1.2.3.4:10256"),
    ({"healthz_bind_address": "fd00:1::5", "healthz_port": "12345"}, "healthzBindAddress", "[fd00:1::5]:12345"),
    ({"healthz_bind_address": "1.2.3.4:12345", "healthz_port": "23456"}, "healthzBindAddress", "1.2.3.4:12345"),
    ({"healthz_port": "0"}, "healthzBindAddress", ""),
    ({"healthz_bind_address": ""}, "healthzBindAddress", ""),
    ({"metrics_bind_address": "2.3.4.5", "metrics_port": "23456"}, "metricsBindAddress", "2.3.4.5:23456"),
    ({"metrics_bind_address": ""}, "metricsBindAddress", ""),
    ({"metrics_port": "0"}, "metricsBindAddress", ""),
    ({"profiling": "true"}, "enableProfiling", True),
    ({"profiling": ["true", "F"]}, "enableProfiling", False),
    ({"bind_address_hard_fail": "1"}, "bindAddressHardFail", True),
    ({"iptables_masquerade_bit": "0"}, "iptables.masqueradeBit", 0),
    ({"iptables_localhost_nodeports": "false"}, "iptables.localhostNodePorts", False),
    ({"masquerade_all": "true"}, "iptables.masqueradeAll", True),
    ({"masquerade_all": "true", "proxy_mode": "nftables"}, "nftables.masqueradeAll", True),
    ({"masquerade_all": "true", "proxy_mode": "ipvs"}, "iptables.masqueradeAll", True),
    ({"iptables_sync_period": "36s", "ipvs_sync_period": "1h"}, "iptables.syncPeriod", "36s"),
    ({"iptables_sync_period": "36s", "proxy_mode": "nftables"}, "nftables.syncPeriod", "36s"),
    ({"iptables_min_sync_period": "2s", "proxy_mode": "nftables"}, "nftables.minSyncPeriod", "2s"),
    ({"iptables_sync_period": "36s", "ipvs_sync_period": "1h", "proxy_mode": "ipvs"}, "ipvs.syncPeriod", "1h0m0s"),
    ({"ipvs_min_sync_period": "2s", "proxy_mode": "ipvs"}, "ipvs.minSyncPeriod", "2s"),
    ({"ipvs_scheduler": "sh"}, "ipvs.scheduler", "sh"),
    ({"ipvs_exclude_cidrs": "10.0.0.0/8,1.1.1.0/24"}, "ipvs.excludeCIDRs", ["10.0.0.0/8", "1.1.1.0/24"]),
    ({"ipvs_strict_arp": "true"}, "ipvs.strictARP", True),
    ({"ipvs_tcp_timeout": "1m"}, "ipvs.tcpTimeout", "1m0s"),
    ({"ipvs_tcpfin_timeout": "1m"}, "ipvs.tcpFinTimeout", "1m0s"),
    ({"ipvs_udp_timeout": "1m"}, "ipvs.udpTimeout", "1m0s"),
    ({"conntrack_max_per_core": "0"}, "conntrack.maxPerCore", 0),
    ({"conntrack_min": "0x10"}, "conntrack.min", 16),
    ({"conntrack_tcp_timeout_established": "0"}, "conntrack.tcpEstablishedTimeout", "0s"),
    ({"conntrack_tcp_timeout_close_wait": "1h2m"}, "conntrack.tcpCloseWaitTimeout", "1h2m0s"),
    ({"conntrack_tcp_be_liberal": "true"}, "conntrack.tcpBeLiberal", True),
    ({"conntrack_udp_timeout": "30s"}, "conntrack.udpTimeout", "30s"),
    ({"conntrack_udp_timeout_stream": "30s"}, "conntrack.udpStreamTimeout", "30s"),
    ({"oom_score_adj": "-500"}, "oomScoreAdj", -500),
    ({"config_sync_period": "1m"}, "configSyncPeriod", "1m0s"),
    ({"feature_gates": ["A=true,B=false", "C=1"]}, "featureGates", {"A": True, "B": False, "C": True}),
    ({"hostname_override": "  Bar "}, "hostnameOverride", "bar"),
    ({"kube_api_qps": "7.5"}, "clientConnection.qps", 7.5),
    ({"kube_api_burst": "3"}, "clientConnection.burst", 3),
    ({"nftables_layout": "compact"}, "nftables.layout", "compact"),
    ({"v": "4"}, "logging.verbosity", 4),
    ({"vmodule": "goo.go=8"}, "logging.vmodule", [{"filePattern": "goo.go", "verbosity": 8}]),
    ({"logging_format": "json"}, "logging.format", "json"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "path", "value"), SETS, ids=lambda item: str(item)[:50])
def test_a_flag_sets_a_field(flags: Mapping[str, Any], path: str, value: object) -> None:
    assert at(config(**flags), path) == value
    assert at(DEFAULT, "mode") == "iptables"


def test_every_flag_with_a_field_is_in_the_table_above() -> None:
    tried = {name.replace("_", "-") for flags, _, _ in SETS for name in flags}
    assert {flag.name for flag in FLAGS if flag.field} - tried == {
        "kube-api-content-type", "log-flush-frequency", "show-hidden-metrics-for-version",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"iptables_sync_period": "abc"}, 'invalid argument "abc" for "--iptables-sync-period" flag: '
         'time: invalid duration "abc"'),
        ({"v": "x"}, 'invalid argument "x" for "-v, --v" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        ({"oom_score_adj": "3000000000"}, 'invalid argument "3000000000" for "--oom-score-adj" flag: '
         'strconv.ParseInt: parsing "3000000000": value out of range'),
        ({"cleanup": "yes"}, 'invalid argument "yes" for "--cleanup" flag: strconv.ParseBool: parsing "yes": '
         "invalid syntax"),
        ({"bind_address": "1.2.3.4:5"}, 'invalid argument "1.2.3.4:5" for "--bind-address" flag: "1.2.3.4:5" is not a '
         "valid IP address"),
        ({"healthz_bind_address": "x:1"}, 'invalid argument "x:1" for "--healthz-bind-address" flag: "x" is not a '
         "valid IP address"),
        ({"feature_gates": "A"}, 'invalid argument "A" for "--feature-gates" flag: malformed pair, expect string=bool'),
        ({"hostname_override": "   "}, "failed complete: empty hostname-override is invalid"),
        ({"vmodule": "a"}, 'invalid argument "a" for "--vmodule" flag: "a" does not have the pattern=N format'),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options(**flags)
    assert caught.value.message == message


def test_a_file_counts_instead_of_flags_but_for_a_few() -> None:
    file = (
        HEADER
        + b"mode: nftables\nhostnameOverride: foo\n"
        + b"logging: {verbosity: 10, vmodule: [{filePattern: a, verbosity: 1}]}\n"
    )
    found = options(
        file, config="f", proxy_mode="ipvs", ipvs_scheduler="sh", kubeconfig="/x", hostname_override="Bar",
        v="7", vmodule="goo.go=8", master="https://m", cleanup="true",
    )  # fmt: skip
    assert found.configuration == replace(
        DEFAULT,
        mode="nftables",
        node_port_addresses=("primary",),
        hostname_override="bar",
        logging=replace(
            DEFAULT.logging, verbosity=7, vmodule=(VModuleItem("goo.go", 8), VModuleItem("a", 1))
        ),
    )
    assert (found.config_file, found.master, found.cleanup) == ("f", "https://m", True)
    assert options(file).configuration.hostname_override == "foo"


def test_the_settings_of_all_defaults_are_the_proxys_defaults() -> None:
    assert proxy_settings(DEFAULT) == ProxySettings()


def test_settings_of_a_configuration() -> None:
    found = proxy_settings(config(
        proxy_mode="ipvs", cluster_cidr="10.0.0.0/8", detect_local_mode="BridgeInterface", pod_bridge_interface="cni0",
        masquerade_all="true", iptables_masquerade_bit="3", iptables_localhost_nodeports="false",
        nodeport_addresses="10.0.0.0/8", ipvs_sync_period="1m", ipvs_min_sync_period="500ms", ipvs_scheduler="lc",
        ipvs_exclude_cidrs="1.1.1.0/24", ipvs_strict_arp="true", ipvs_tcp_timeout="1s", ipvs_tcpfin_timeout="2s",
        ipvs_udp_timeout="3s", conntrack_max_per_core="1", conntrack_min="2", conntrack_tcp_timeout_established="0",
        conntrack_tcp_timeout_close_wait="4s", conntrack_tcp_be_liberal="true", conntrack_udp_timeout="5s",
        conntrack_udp_timeout_stream="6s", metrics_bind_address="", profiling="true", bind_address_hard_fail="true",
    ))  # fmt: skip
    assert found == ProxySettings(
        mode=ProxyMode.IPVS,
        ipvs=IPVSSettings("lc", ("1.1.1.0/24",), True, 1.0, 2.0, 3.0),
        conntrack=ConntrackSettings(1, 2, 0.0, 4.0, True, 5.0, 6.0),
        cluster_cidr="10.0.0.0/8",
        detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE,
        bridge_interface="cni0",
        masquerade_all=True,
        masquerade_bit=3,
        localhost_node_ports=False,
        node_port_addresses=("10.0.0.0/8",),
        min_sync_period=0.5,
        sync_period=60.0,
        metrics_bind_address="",
        enable_profiling=True,
        bind_address_hard_fail=True,
    )


def test_nftables_has_its_own_section() -> None:
    file = (
        HEADER
        + b"mode: nftables\nnftables: {layout: compact, masqueradeBit: 5, masqueradeAll: true, syncPeriod: 9s}\n"
    )
    found = proxy_settings(options(file).configuration)
    assert (found.nftables_layout, found.masquerade_bit, found.masquerade_all) == (
        NftablesLayout.COMPACT,
        5,
        True,
    )
    assert (found.sync_period, found.min_sync_period) == (9.0, 1.0)


def test_primary_node_ports_are_the_nodes_addresses() -> None:
    primary = config(proxy_mode="nftables")
    assert proxy_settings(primary, [V4, V6]).node_port_addresses == ("192.0.2.7/32", "fd00::7/128")
    assert proxy_settings(primary, [V6, ip_address("fd00::8")]).node_port_addresses == ("fd00::7/128",)
    bound = config(nodeport_addresses="primary", bind_address="1.2.3.4")
    assert proxy_settings(bound, [V4, V6]).node_port_addresses == ("1.2.3.4/32", "fd00::7/128")
    assert proxy_settings(bound, [V4, V6]).node_address == "1.2.3.4,fd00::7"


def test_primary_family_is_that_of_the_bind_address_or_the_nodes_first() -> None:
    assert primary_family(DEFAULT, []) is Family.IPV4
    assert primary_family(DEFAULT, [V6, V4]) is Family.IPV6
    assert primary_family(config(bind_address="::"), [V4]) is Family.IPV4
    assert primary_family(config(bind_address="fd00::1"), [V4]) is Family.IPV6
    assert primary_addresses(config(bind_address="fd00::1"), [V4, V6]) == (ip_address("fd00::1"), V4)


def doubt(dual: bool = True, pod_cidrs: tuple[str, ...] = (), **flags: str) -> list[str]:
    found = config(**flags)
    return doubts(found, proxy_settings(found, [V4]), Family.IPV4, pod_cidrs, dual=dual)


def test_doubts() -> None:
    assert "nodePortAddresses is unset" in doubt()[0]
    assert doubt(nodeport_addresses="primary") == []
    assert "contains only IPv6 addresses" in doubt(nodeport_addresses="fd00::/8")[0]
    both = doubt(nodeport_addresses="10.0.0.0/8", cluster_cidr="10.0.0.0/8,fd00::/48")
    assert "cluster appears to be dual-stack but nodePortAddresses contains only IPv4 addresses" in both[0]
    wrong = doubt(nodeport_addresses="primary", cluster_cidr="fd00::/48")
    assert wrong == ["cluster is IPv4-primary but clusterCIDRs contains only IPv6 addresses"]
    single = doubt(dual=False, nodeport_addresses="primary", metrics_bind_address="[fd00::1]:10249",
                   ipvs_exclude_cidrs="fd00::/48")  # fmt: skip
    assert single == [
        "cluster is IPv4-only but ipvs.excludeCIDRs contains only IPv6 addresses",
        "cluster is IPv4-only but metricsBindAddress is IPv6",
    ]


def test_what_can_never_work_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="clusterCIDRs contains only IPv6"):
        doubt(dual=False, cluster_cidr="fd00::/48")
    with pytest.raises(ConfigurationError, match=r"podCIDRs contains only IPv6"):
        doubt(pod_cidrs=("fd00::/64",), detect_local_mode="NodeCIDR")


def test_a_duration_is_exact() -> None:
    assert config(conntrack_udp_timeout="1.5ms").conntrack.udp_timeout == Duration(1_500_000)
