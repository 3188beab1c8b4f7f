"""The `proxy` section of a cluster's file: KubeProxyConfiguration's words, and what nodes make of them."""

from __future__ import annotations

from typing import Any

import pytest

from netkit.cluster.config import ClusterConfig, parse
from netkit.cluster.errors import ConfigError
from netkit.cluster.node_proxy import configuration
from netkit.cluster.proxy_choice import Choice
from netkit.proxy.configuration.apply import proxy_settings
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ConntrackSettings, IPVSSettings, NftablesLayout, ProxyMode, ProxySettings

ADDRESS = "172.18.0.11"


def settings(config: ClusterConfig, choice: Choice) -> ProxySettings:
    return proxy_settings(configuration(config, "node1", ADDRESS, choice))


def parsed(**proxy: Any) -> ClusterConfig:
    return parse({"proxy": proxy})


def test_defaults_are_kube_proxys_but_quicker_and_for_a_namespace() -> None:
    assert settings(ClusterConfig(), Choice(ProxyMode.IPTABLES)) == ProxySettings(
        cluster_cidr="10.244.0.0/16",
        node_address=ADDRESS,
        min_sync_period=0.1,
        conntrack=ConntrackSettings(max_per_core=0),
    )


def test_nftables_by_choice_answers_on_the_primary_address_only() -> None:
    found = settings(ClusterConfig(), Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT))
    assert found.mode is ProxyMode.NFTABLES
    assert found.nftables_layout is NftablesLayout.COMPACT
    assert found.node_port_addresses == (f"{ADDRESS}/32",)


def test_every_field_is_read() -> None:
    config = parsed(
        mode="ipvs",
        masqueradeAll=True,
        syncPeriod="1m",
        minSyncPeriod="200ms",
        iptables={"masqueradeBit": 3, "localhostNodePorts": False, "masqueradeAll": False},
        nftables={"masqueradeBit": 4, "layout": "compact", "minSyncPeriod": "1s", "syncPeriod": "10s"},
        ipvs={"scheduler": "sh", "strictARP": True, "excludeCIDRs": ["10.0.0.0/8"], "tcpTimeout": "1s",
              "tcpFinTimeout": "2s", "udpTimeout": "3s"},
        nodePortAddresses=["10.0.0.0/8"],
        detectLocalMode="BridgeInterface",
        detectLocal={"bridgeInterface": "cni0", "interfaceNamePrefix": "veth"},
        conntrack={"maxPerCore": 5, "min": 6, "tcpEstablishedTimeout": "7s", "tcpCloseWaitTimeout": "8s",
                   "tcpBeLiberal": True, "udpTimeout": "9s", "udpStreamTimeout": "10s"},
        healthzBindAddress="127.0.0.1:1",
        metricsBindAddress="127.0.0.1:2",
        enableProfiling=True,
    )  # fmt: skip
    ipvs = settings(config, Choice(ProxyMode(config.proxy.mode), config.proxy.layout))
    assert ipvs == ProxySettings(
        mode=ProxyMode.IPVS,
        nftables_layout=NftablesLayout.COMPACT,
        ipvs=IPVSSettings("sh", ("10.0.0.0/8",), True, 1.0, 2.0, 3.0),
        conntrack=ConntrackSettings(5, 6, 7.0, 8.0, True, 9.0, 10.0),
        cluster_cidr="10.244.0.0/16",
        detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE,
        bridge_interface="cni0",
        interface_name_prefix="veth",
        masquerade_bit=3,
        localhost_node_ports=False,
        node_port_addresses=("10.0.0.0/8",),
        node_address=ADDRESS,
        min_sync_period=0.2,
        sync_period=60.0,
        healthz_bind_address="127.0.0.1:1",
        metrics_bind_address="127.0.0.1:2",
        enable_profiling=True,
    )
    nftables = settings(config, Choice(ProxyMode.NFTABLES))
    assert (nftables.masquerade_all, nftables.masquerade_bit) == (True, 4)
    assert (nftables.sync_period, nftables.min_sync_period) == (10.0, 1.0)
    assert nftables.nftables_layout is NftablesLayout.KUBE_PROXY


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ({"mode": "ebpf"}, "proxy.mode: 'ebpf' is not one of iptables, nftables, ipvs, userspace"),
        ({"iptables": {"masqueradebit": 3}}, "proxy.iptables.masqueradebit: unknown field"),
        ({"iptables": {"masqueradeBit": 32}}, "proxy.iptables.masqueradeBit: 32 is not between 0 and 31"),
        ({"nftables": {"layout": "wide"}}, "proxy.nftables.layout: 'wide' is not one of kube-proxy, compact"),
        ({"ipvs": {"scheduler": "best"}}, "proxy.ipvs.scheduler: 'best' is not one of rr, wrr, lc, wlc, lblc, lblcr, "
         "sh, dh, sed, nq, mh"),
        ({"clusterCIDR": "10.0.0.0/8"}, "proxy.clusterCIDR: unknown field"),
        ({"nodePortAddresses": ["primary", "10.0.0.0/8"]},
         "proxy: KubeProxyConfiguration.NodePortAddresses[0]: Invalid value: \"primary\": can't use both 'primary' and "
         "CIDRs"),
        ({"syncPeriod": "1s", "minSyncPeriod": "2s"},
         "proxy: KubeProxyConfiguration.SyncPeriod: Invalid value: 2s: must be greater than or equal to "
         "KubeProxyConfiguration.MinSyncPeriod"),
        ({"detectLocalMode": "BridgeInterface"},
         "proxy: KubeProxyConfiguration.DetectLocalConfiguration.InterfaceName: Invalid value: \"\": "
         "must not be empty"),
    ],
)  # fmt: skip
def test_mistakes_are_named(proxy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**proxy)
    assert caught.value.message == message
