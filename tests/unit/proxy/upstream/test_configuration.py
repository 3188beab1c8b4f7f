"""Addresses, local detectors, doubts and flags, as upstream's `cmd/kube-proxy/app` tests expect them.

What is not here is in `unit/proxy/configuration`: reading files, defaults, and what validation refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netkit.proxy.addresses import Family
from netkit.proxy.configuration.apply import doubts, primary_addresses, primary_family, proxy_settings
from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.defaults import for_linux, with_defaults, with_port
from netkit.proxy.configuration.document import KubeProxyConfiguration
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.flags import complete, read
from netkit.proxy.conntrack_sysctls import wanted_sysctls
from netkit.proxy.detector import DetectLocalMode, Detector, InterfaceDetector, SourceDetector
from netkit.proxy.settings import ConntrackSettings, ProxySettings

V4, V6 = Family.IPV4, Family.IPV6
DEFAULT = for_linux(with_defaults(KubeProxyConfiguration()))

IP, IP_B, IP6, IP6_B = "90.90.90.90", "80.80.80.80", "2001:db8::2", "2001:db8::555"


@pytest.mark.parametrize(
    ("node", "bind", "family", "addresses"),
    [
        ([], "10.0.0.1", V4, ["10.0.0.1"]),
        ([], "fd00:4321::2", V6, ["fd00:4321::2"]),
        ([], "", V4, []),
        ([], "0.0.0.0", V4, []),
        ([IP], "0.0.0.0", V4, [IP]),
        ([IP], "::", V4, [IP]),
        ([IP6], "0.0.0.0", V6, [IP6]),
        ([IP6], "::", V6, [IP6]),
        ([IP, IP6], "::", V4, [IP, IP6]),
        ([IP6, IP], "0.0.0.0", V6, [IP6, IP]),
        ([IP6, IP], IP_B, V4, [IP_B, IP6]),
        ([IP, IP6], IP6_B, V6, [IP6_B, IP]),
        ([IP6, IP], "127.0.0.1", V4, ["127.0.0.1", IP6]),
        ([IP, IP6], "::1", V6, ["::1", IP]),
    ],
)
def test_the_nodes_addresses(
    node: Sequence[str], bind: str, family: Family, addresses: Sequence[str]
) -> None:
    """Where upstream would assume loopback there is none."""
    config = replace(DEFAULT, bind_address=bind)
    found = [ip_address(text) for text in node]
    assert primary_family(config, found) is family
    assert primary_addresses(config, found) == tuple(ip_address(text) for text in addresses)


def by(text: str) -> Detector:
    return SourceDetector(ip_network(text))


POD4, POD6, NODE4, NODE6 = (
    "10.0.0.0/14",
    "2002:0:0:1234::/64",
    "10.0.0.0/24",
    "2002::1234:abcd:ffff:0:0/96",
)
LONG = "1234567890123456789"


@pytest.mark.parametrize(
    ("settings", "pod_cidrs", "ipv4", "ipv6"),
    [
        ({"cluster_cidr": POD4}, (), by(POD4), None),
        ({"cluster_cidr": POD6}, (), None, by(POD6)),
        ({"cluster_cidr": f"{POD4},{POD6}"}, (), by(POD4), by(POD6)),
        ({"cluster_cidr": f"{POD6},{POD4}"}, (), by(POD4), by(POD6)),
        ({"cluster_cidr": ""}, (), None, None),
        ({"cluster_cidr": POD4, "detect_local_mode": "NodeCIDR"}, (NODE4,), by(NODE4), None),
        ({"cluster_cidr": POD6, "detect_local_mode": "NodeCIDR"}, (NODE6,), None, by(NODE6)),
        ({"cluster_cidr": POD4, "detect_local_mode": "NodeCIDR"}, (NODE4, NODE6), by(NODE4), by(NODE6)),
        ({"cluster_cidr": POD4, "detect_local_mode": "NodeCIDR"}, (NODE6, NODE4), by(NODE4), by(NODE6)),
        ({"detect_local_mode": "NodeCIDR"}, (), None, None),
        (
            {"detect_local_mode": "BridgeInterface", "bridge_interface": "eth"},
            (),
            *[InterfaceDetector("eth")] * 2,
        ),
        (
            {"detect_local_mode": "BridgeInterface", "bridge_interface": LONG},
            (),
            *[InterfaceDetector(LONG)] * 2,
        ),
        (
            {"detect_local_mode": "InterfaceNamePrefix", "interface_name_prefix": "eth"},
            (),
            *[InterfaceDetector("eth", prefix=True)] * 2,
        ),
        (
            {"detect_local_mode": "InterfaceNamePrefix", "interface_name_prefix": LONG},
            (),
            *[InterfaceDetector(LONG, prefix=True)] * 2,
        ),
    ],
)
def test_local_detectors(
    settings: dict[str, Any], pod_cidrs: Sequence[str], ipv4: Detector | None, ipv6: Detector | None
) -> None:
    mode = DetectLocalMode(settings.pop("detect_local_mode", "ClusterCIDR"))
    found = ProxySettings(detect_local_mode=mode, **settings)
    assert (found.detector(V4, pod_cidrs), found.detector(V6, pod_cidrs)) == (ipv4, ipv6)


FINE, DOUBTFUL, FATAL = "fine", "doubtful", "fatal"


@dataclass(frozen=True)
class Doubt:
    """A configuration, and what is thought of it in a cluster of one family and of two."""

    single: str
    dual: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    pods: Sequence[str] = ()
    primary: Family = V4
    ipvs_excluded: Sequence[str] = ()
    local: DetectLocalMode = DetectLocalMode.BRIDGE_INTERFACE


NODE_CIDR = DetectLocalMode.NODE_CIDR
RANGE4, RANGE6 = "10.0.0.0/8", "fd01:2345::/64"
DOUBTS = {
    "nothing": Doubt(FINE, FINE),
    "pods of one family": Doubt(FINE, FINE, {"cluster_cidr": RANGE4}),
    "pods of both": Doubt(FINE, FINE, {"cluster_cidr": f"{RANGE4},{RANGE6}"}),
    "pods of both, the other first": Doubt(FINE, FINE, {"cluster_cidr": f"{RANGE6},{RANGE4}"}),
    "pods of the other": Doubt(DOUBTFUL, DOUBTFUL, {"cluster_cidr": RANGE6}),
    "pods of the other, needed": Doubt(
        FATAL, DOUBTFUL, {"cluster_cidr": RANGE6}, local=DetectLocalMode.CLUSTER_CIDR
    ),
    "node's pods": Doubt(FINE, FINE, pods=[RANGE4], local=NODE_CIDR),
    "node's pods, both": Doubt(FINE, FINE, pods=[RANGE4, RANGE6], local=NODE_CIDR),
    "node's pods, the other first": Doubt(FINE, FINE, pods=[RANGE6, RANGE4], local=NODE_CIDR),
    "node's pods, the other": Doubt(FATAL, FATAL, pods=[RANGE6], local=NODE_CIDR),
    "metrics": Doubt(FINE, FINE, {"metrics_bind_address": "10.0.0.1:9999"}),
    "metrics, IPv6": Doubt(FINE, FINE, {"metrics_bind_address": "[fd01:2345::1]:9999"}, primary=V6),
    "metrics anywhere": Doubt(FINE, FINE, {"metrics_bind_address": "0.0.0.0:9999"}, primary=V6),
    "metrics of the other": Doubt(DOUBTFUL, FINE, {"metrics_bind_address": "10.0.0.1:9999"}, primary=V6),
    "excluded servers": Doubt(FINE, FINE, ipvs_excluded=[RANGE4]),
    "excluded servers of the other": Doubt(DOUBTFUL, FINE, ipvs_excluded=[RANGE4, "192.168.0.0/24"], primary=V6),
}  # fmt: skip


def thought(case: Doubt, ranges: Sequence[str], *, dual: bool) -> str:
    config = replace(
        DEFAULT,
        detect_local_mode=case.local,
        node_port_addresses=tuple(ranges),
        ipvs=replace(DEFAULT.ipvs, exclude_cidrs=tuple(case.ipvs_excluded)),
        **{"metrics_bind_address": "", **case.changes},
    )
    try:
        found = doubts(config, proxy_settings(config), case.primary, case.pods, dual=dual)
    except ConfigurationError:
        return FATAL
    return DOUBTFUL if found else FINE


@pytest.mark.parametrize("case", DOUBTS.values(), ids=list(DOUBTS))
def test_doubtful_configurations(case: Doubt) -> None:
    both = ("0.0.0.0/0", "::/0")
    assert (thought(case, both, dual=False), thought(case, both, dual=True)) == (case.single, case.dual)


@pytest.mark.parametrize(
    ("cluster", "ranges", "primary", "expected"),
    [
        ("10.0.0.0/8", ["192.168.0.0/24"], V4, FINE),
        ("10.0.0.0/8,fd09::/64", ["192.168.0.0/24", "fd03::/64"], V4, FINE),
        ("", [], V4, DOUBTFUL),
        ("10.0.0.0/8,fd09::/64", ["192.168.0.0/24"], V4, DOUBTFUL),
        ("fd09::/64", ["192.168.0.0/24"], V6, DOUBTFUL),
    ],
)
def test_doubtful_node_ports(cluster: str, ranges: Sequence[str], primary: Family, expected: str) -> None:
    case = Doubt("", "", {"cluster_cidr": cluster}, primary=primary)
    assert thought(case, ranges, dual=True) == expected


def config_of(**flags: str) -> KubeProxyConfiguration:
    return complete(read({name.replace("_", "-"): [text] for name, text in flags.items()})).configuration


IPTABLES = {"iptables_sync_period": "36s", "iptables_min_sync_period": "3s"}
IPVS = {"ipvs_sync_period": "16s", "ipvs_min_sync_period": "7s"}


@pytest.mark.parametrize(
    ("flags", "periods"),
    [
        ({**IPTABLES, "proxy_mode": "iptables"}, (36, 3)),
        ({**IPTABLES, **IPVS, "proxy_mode": "iptables"}, (36, 3)),
        ({**IPTABLES, **IPVS, "proxy_mode": "ipvs"}, (16, 7)),
        ({**IPVS, "proxy_mode": "ipvs"}, (16, 7)),
        # Upstream's nftables mode is written to its own section by the flags that are named after iptables.
        ({**IPTABLES, **IPVS, "proxy_mode": "nftables"}, (36, 3)),
    ],
)
def test_the_periods_of_the_mode(flags: Mapping[str, str], periods: tuple[int, int]) -> None:
    section = config_of(**flags).sync_section
    assert (section.sync_period, section.min_sync_period) == tuple(map(Duration.of, periods))


def test_ranges_on_the_command_line() -> None:
    assert config_of(cluster_cidr="2002:0:0:1234::/64,10.0.0.0/14").cluster_cidrs == (POD6, POD4)


@pytest.mark.parametrize(
    ("address", "port", "served_at"),
    [
        ("1.2.3.4", 12345, "1.2.3.4:12345"),
        ("1.2.3.4:12345", 23456, "1.2.3.4:12345"),
        ("fd00:1::5", 12345, "[fd00:1::5]:12345"),
        ("[fd00:1::5]:12345", 56789, "[fd00:1::5]:12345"),
        ("[fd00:1::5]", 12345, "[fd00:1::5]"),
    ],
)
def test_addresses_with_the_ports_of_other_flags(address: str, port: int, served_at: str) -> None:
    assert with_port(address, port) == served_at


NOTHING = ConntrackSettings(0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, set()),
        ({"max_per_core": 12}, {"max"}),
        ({"max_per_core": 0, "minimum": 123456}, set()),
        ({"tcp_established_timeout": 5.0}, {"tcp_timeout_established"}),
        ({"tcp_close_wait_timeout": 5.0}, {"tcp_timeout_close_wait"}),
        ({"tcp_be_liberal": True}, {"tcp_be_liberal"}),
        ({"udp_timeout": 5.0}, {"udp_timeout"}),
        ({"udp_stream_timeout": 5.0}, {"udp_timeout_stream"}),
    ],
)
def test_conntrack_settings(changes: Mapping[str, Any], names: set[str]) -> None:
    assert set(wanted_sysctls(replace(NOTHING, **changes), 4)) == names


@pytest.mark.parametrize(
    ("per_core", "minimum", "limit"),
    [(0, 0, None), (67890, 1, 4 * 67890), (1, 123456, 123456), (0, 123456, None)],
)
def test_the_conntrack_limit(per_core: int, minimum: int, limit: int | None) -> None:
    settings = replace(NOTHING, max_per_core=per_core, minimum=minimum)
    assert wanted_sysctls(settings, 4).get("max") == limit


ETH, LO = ["10.20.30.51", "100.200.201.1", "1.2.3.4", "2001:db8::1"], ["127.0.0.1", "127.0.1.1", "::1"]
ALL = "every address"


@pytest.mark.parametrize(
    ("ranges", "ipv4", "ipv6"),
    [
        (["10.20.30.0/24"], {"10.20.30.51"}, ALL),
        (["0.0.0.0/0"], ALL, ALL),
        (["2001:db8::/64", "::1/128"], ALL, {"2001:db8::1", "::1"}),
        (["::/0"], ALL, ALL),
        (["127.0.0.1/32"], {"127.0.0.1"}, ALL),
        (["127.0.0.0/8"], {"127.0.0.1", "127.0.1.1"}, ALL),
        (["10.20.30.0/24", "100.200.201.0/24"], {"10.20.30.51", "100.200.201.1"}, ALL),
        (["10.20.31.0/24", "100.200.202.0/24"], set(), ALL),
        ([], ALL, ALL),
        (["1.2.3.0/24", "0.0.0.0/0"], ALL, ALL),
        (["0.0.0.0/0", "1.2.3.0/24", "2001:db8::1/128"], ALL, {"2001:db8::1"}),
        (["::/0", "1.2.3.0/24", "2001:db8::1/128"], {"1.2.3.4"}, ALL),
    ],
)
def test_where_node_ports_answer(ranges: Sequence[str], ipv4: set[str] | str, ipv6: set[str] | str) -> None:
    settings = ProxySettings(node_port_addresses=tuple(ranges))
    for family, expected in ((V4, ipv4), (V6, ipv6)):
        networks = settings.node_port_ranges(family)
        chosen = {one for one in ETH + LO if any(ip_address(one) in network for network in networks)}
        assert (chosen if networks else ALL) == expected


@pytest.mark.parametrize(
    ("ranges", "loopback"),
    [
        ([], True),
        (["224.0.0.0/24", "192.168.0.0/16", "fd00:1:d::/64", "0.0.0.0/0"], True),
        (["224.0.0.0/24", "192.168.0.0/16", "fd00:1:d::/64", "::/0"], False),
        (["192.168.0.0/16", "127.0.0.0/8"], True),
        (["192.168.0.0/16", "::1/128"], False),
        (["192.168.0.0/16", "127.0.2.0/28"], True),
        (["192.168.0.0/16", "64.0.0.0/2"], True),
        (["128.0.2.0/28", "224.0.0.0/24", "192.168.0.0/16"], False),
    ],
)
def test_whether_node_ports_answer_on_loopback(ranges: Sequence[str], loopback: bool) -> None:
    settings = ProxySettings(node_port_addresses=tuple(ranges))
    assert settings.loopback_node_ports(V4) is loopback
    assert settings.loopback_node_ports(V6) is False
