"""The table for one set of Services, as kube-proxy's own would be listed by nft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.proxy import Object, draining, endpoint, service, slice_of, state_of

from netkit.kernel.nft.replay import Replay
from netkit.proxy.addresses import Family
from netkit.proxy.choice import NodeView
from netkit.proxy.detector import InterfaceDetector, SourceDetector
from netkit.proxy.listing import Section, listing
from netkit.proxy.nftables.book import RuleBook
from netkit.proxy.nftables.compact import CompactLayout
from netkit.proxy.nftables.kube_proxy import KubeProxyLayout
from netkit.proxy.nftables.layout import NftablesSettings
from netkit.proxy.nftables.listing import sections
from netkit.proxy.services import ServicePortName

SETTINGS = NftablesSettings(
    node=NodeView("node1", addresses=(ip_address("192.168.0.2"),)),
    detector=SourceDetector(ip_network("10.0.0.0/8")),
    node_port_ips=(ip_address("192.168.0.2"),),
    service_ranges=(ip_network("172.30.0.0/16"),),
)
SETTINGS6 = NftablesSettings(
    node=NodeView("node1", addresses=(ip_address("2001:db8::1"),)),
    detector=SourceDetector(ip_network("fd00:10::/64")),
    service_ranges=(ip_network("fd00:10:96::/112"),),
)
EVERY: dict[str, Any] = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 3001}],
    "ingress": [{"ip": "1.2.3.4"}],
    "externalIPs": ["192.168.99.22"],
}
LOCAL = {"externalTrafficPolicy": "Local"}
X1, X2 = "ULMVA6XW-ns1/svc1/tcp/p80", "42NFTM6N-ns2/svc2/tcp/p80"
E1 = "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
Table = Mapping[str, Section]


def table(
    *objects: Object,
    settings: NftablesSettings = SETTINGS,
    family: Family = Family.IPV4,
    compact: bool = False,
) -> Table:
    layout = (CompactLayout if compact else KubeProxyLayout)(family, settings)
    replay = Replay()
    for transaction in RuleBook(layout).full(state_of(*objects, family=family), None):
        replay.apply(transaction)
    assert replay.contents is not None
    return listing(sections(replay.contents, layout.writer.family))


def entries(found: Table, name: str) -> Sequence[str]:
    return found[name].entries


def test_frame() -> None:
    found = table()
    lines = {
        name.removeprefix("chain "): item.entries for name, item in found.items() if name.startswith("chain ")
    }
    assert lines == {
        "filter-prerouting-pre-dnat": ("ct state new jump firewall-check",),
        "filter-output-pre-dnat": ("ct state new jump firewall-check",),
        "filter-input": (
            "ct state new jump nodeport-endpoints-check",
            "ct state new jump service-endpoints-check",
        ),
        "filter-forward": (
            "ct state new jump service-endpoints-check",
            "ct state new jump cluster-ips-check",
        ),
        "filter-output": ("ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"),
        "nat-prerouting": ("jump services",),
        "nat-output": ("jump services",),
        "nat-postrouting": ("jump masquerading",),
        "cluster-ips-check": (
            'ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"',
            'ip daddr 172.30.0.0/16 drop comment "Drop traffic to unallocated ClusterIPs"',
        ),
        "firewall-check": ("ip daddr . meta l4proto . th dport vmap @firewall-ips",),
        "mark-for-masquerade": ("meta mark set meta mark | 0x00004000",),
        "masquerading": (
            "meta mark & 0x00004000 == 0x00000000 return",
            "meta mark set meta mark ^ 0x00004000",
            "masquerade fully-random",
        ),
        "nodeport-endpoints-check": (
            "ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports",
        ),
        "reject-chain": ("reject",),
        "service-endpoints-check": ("ip daddr . meta l4proto . th dport vmap @no-endpoint-services",),
        "services": (
            "ip daddr . meta l4proto . th dport vmap @service-ips",
            "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
        ),
    }
    assert found["chain nat-output"].note == "type nat hook output priority -100; policy accept;"
    assert found["chain filter-prerouting-pre-dnat"].note == (
        "type filter hook prerouting priority -110; policy accept;"
    )
    assert found["chain reject-chain"].note == (
        'comment "helper for @no-endpoint-services / @no-endpoint-nodeports"'
    )
    assert found["map service-ips"].note == (
        "type ipv4_addr . inet_proto . inet_service : verdict; "
        'comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"'
    )
    assert entries(found, "set nodeport-ips") == ("192.168.0.2",)


def test_cluster_ip() -> None:
    found = table(service("ns1/svc1"), slice_of("ns1/svc1", "10.180.0.1", "10.180.0.2"))
    second = "2ZNDXFAB-ns1/svc1/tcp/p80__10.180.0.2/80"
    assert entries(found, "map service-ips") == (f"172.30.0.41 . tcp . 80 : goto service-{X1}",)
    assert entries(found, "set cluster-ips") == ("172.30.0.41",)
    assert entries(found, f"chain service-{X1}") == (
        "ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade",
        f"numgen random mod 2 vmap {{ 0 : goto endpoint-{E1}, 1 : goto endpoint-{second} }}",
    )
    assert entries(found, f"chain endpoint-{E1}") == (
        "ip saddr 10.180.0.1 jump mark-for-masquerade",
        "meta l4proto tcp dnat to 10.180.0.1:80",
    )


def test_external_local_without_a_local_endpoint() -> None:
    found = table(service("ns2/svc2", "172.30.0.42", **EVERY, **LOCAL), slice_of("ns2/svc2", "10.180.0.2"))
    assert entries(found, f"chain external-{X2}") == (
        f'ip saddr 10.0.0.0/8 goto service-{X2} comment "short-circuit pod traffic"',
        'fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"',
        f'fib saddr type local goto service-{X2} comment "short-circuit local traffic"',
    )
    assert entries(found, "map service-ips") == (
        f"1.2.3.4 . tcp . 80 : goto external-{X2}",
        f"172.30.0.42 . tcp . 80 : goto service-{X2}",
        f"192.168.99.22 . tcp . 80 : goto external-{X2}",
    )
    assert entries(found, "map service-nodeports") == (f"tcp . 3001 : goto external-{X2}",)
    assert entries(found, "map no-endpoint-nodeports") == ('tcp . 3001 comment "ns2/svc2:p80" : drop',)
    assert entries(found, "map no-endpoint-services") == (
        '1.2.3.4 . tcp . 80 comment "ns2/svc2:p80" : drop',
        '192.168.99.22 . tcp . 80 comment "ns2/svc2:p80" : drop',
    )
    assert f"chain local-{X2}" not in found


def test_external_local_with_one() -> None:
    here = endpoint("10.180.0.2", "node1")
    found = table(
        service("ns2/svc2", "172.30.0.42", **EVERY, **LOCAL), slice_of("ns2/svc2", here, "10.180.0.9")
    )
    assert entries(found, f"chain external-{X2}")[-1] == f"goto local-{X2}"
    assert entries(found, f"chain local-{X2}")[0].startswith("numgen random mod 1 vmap")
    assert not entries(found, "map no-endpoint-services")


def test_source_ranges_and_affinity() -> None:
    spec = {**EVERY, "loadBalancerSourceRanges": [" 203.0.113.0/25"], "sessionAffinity": "ClientIP"}
    found = table(service("ns1/svc1", **spec), slice_of("ns1/svc1", "10.180.0.1"))
    assert entries(found, f"chain firewall-{X1}") == ("ip saddr != 203.0.113.0/25 drop",)
    assert entries(found, "map firewall-ips") == (f"1.2.3.4 . tcp . 80 : goto firewall-{X1}",)
    assert found[f"set affinity-{E1}"].note == "type ipv4_addr; size 65535; flags dynamic,timeout; timeout 3h"
    assert entries(found, f"chain service-{X1}")[1:] == (
        f"ip saddr @affinity-{E1} goto endpoint-{E1}",
        f"numgen random mod 1 vmap {{ 0 : goto endpoint-{E1} }}",
    )
    assert entries(found, f"chain endpoint-{E1}")[1] == f"update @affinity-{E1} {{ ip saddr }}"
    assert entries(found, f"chain external-{X1}") == ("jump mark-for-masquerade", f"goto service-{X1}")
    # The node's own address in a range lets in the balancer's address as well; nobody is told apart twice.
    several = {**spec, "loadBalancerSourceRanges": ["203.0.113.0/25", "203.0.113.128/25", "192.168.0.0/24"]}
    found = table(service("ns1/svc1", **several), slice_of("ns1/svc1", "10.180.0.1"))
    assert entries(found, f"chain firewall-{X1}") == (
        "ip saddr != { 1.2.3.4, 192.168.0.0/24, 203.0.113.0/24 } drop",
    )


def test_no_endpoints() -> None:
    ranges = {"loadBalancerSourceRanges": ["203.0.113.0/25"]}
    found = table(service("ns1/svc1", **EVERY, **ranges))
    reject = 'comment "ns1/svc1:p80" : goto reject-chain'
    assert entries(found, "map no-endpoint-services") == (
        f"1.2.3.4 . tcp . 80 {reject}",
        f"172.30.0.41 . tcp . 80 {reject}",
        f"192.168.99.22 . tcp . 80 {reject}",
    )
    assert entries(found, "map no-endpoint-nodeports") == (f"tcp . 3001 {reject}",)
    assert not entries(found, "map service-ips")
    # Unlike in iptables the source ranges are asked first.
    assert entries(found, "map firewall-ips") == (f"1.2.3.4 . tcp . 80 : goto firewall-{X1}",)
    assert [name for name in found if "/" in name] == [f"chain firewall-{X1}"]


def test_internal_local() -> None:
    internal = {"internalTrafficPolicy": "Local"}
    found = table(service("ns1/svc1", **internal), slice_of("ns1/svc1", "10.180.0.1"))
    assert entries(found, "map no-endpoint-services") == (
        '172.30.0.41 . tcp . 80 comment "ns1/svc1:p80" : drop',
    )
    found = table(service("ns1/svc1", **internal), slice_of("ns1/svc1", endpoint("10.180.0.1", "node1")))
    assert entries(found, "map service-ips") == (f"172.30.0.41 . tcp . 80 : goto local-{X1}",)
    assert entries(found, f"chain local-{X1}")[0] == (
        "ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade"
    )
    assert f"chain service-{X1}" not in found


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"masquerade_all": True}, "ip daddr 172.30.0.41 jump mark-for-masquerade"),
        (
            {"detector": InterfaceDetector("cni0")},
            'ip daddr 172.30.0.41 iifname != "cni0" jump mark-for-masquerade',
        ),
        (
            {"detector": InterfaceDetector("veth", prefix=True)},
            'ip daddr 172.30.0.41 iifname != "veth*" jump mark-for-masquerade',
        ),
        (
            {"detector": SourceDetector(ip_network("10.16.0.0/12"))},
            "ip daddr 172.30.0.41 ip saddr != 10.16.0.0/12 jump mark-for-masquerade",
        ),
    ],
)
def test_who_is_masqueraded(change: dict[str, Any], line: str) -> None:
    found = table(
        service("ns1/svc1"), slice_of("ns1/svc1", "10.180.0.1"), settings=replace(SETTINGS, **change)
    )
    assert entries(found, f"chain service-{X1}")[0] == line


def test_no_detector_masquerades_nobody_and_knows_no_pods() -> None:
    settings = replace(SETTINGS, detector=None)
    found = table(
        service("ns1/svc1", **EVERY, **LOCAL), slice_of("ns1/svc1", "10.180.0.1"), settings=settings
    )
    assert len(entries(found, f"chain service-{X1}")) == 1
    assert all("pod" not in line for line in entries(found, f"chain external-{X1}"))


def test_node_ports_on_every_address_and_another_bit() -> None:
    settings = replace(SETTINGS, node_port_ips=None, masquerade_bit=5, service_ranges=())
    found = table(settings=settings)
    assert entries(found, "chain services")[1] == (
        "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports"
    )
    assert entries(found, "chain nodeport-endpoints-check") == (
        "ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports",
    )
    assert "set nodeport-ips" not in found
    assert entries(found, "chain mark-for-masquerade") == ("meta mark set meta mark | 0x00000020",)
    assert len(entries(found, "chain cluster-ips-check")) == 1


def test_several_service_ranges() -> None:
    ranges = (ip_network("172.30.0.0/16"), ip_network("10.96.0.0/12"))
    found = table(settings=replace(SETTINGS, service_ranges=ranges))
    assert entries(found, "chain cluster-ips-check")[1].startswith(
        "ip daddr { 10.96.0.0/12, 172.30.0.0/16 } drop"
    )


def test_ipv6() -> None:
    spec: dict[str, Any] = {
        **EVERY,
        "clusterIPs": ["fd00:10:96::41"],
        "ingress": [{"ip": "fd00::1:2"}],
        "externalIPs": ["2001:db8::99"],
        "sessionAffinity": "ClientIP",
    }
    found = table(
        service("ns1/svc1", "fd00:10:96::41", **spec),
        slice_of("ns1/svc1", "fd00:10::5", address_type="IPv6"),
        settings=SETTINGS6,
        family=Family.IPV6,
    )
    (chain,) = (name for name in found if name.startswith("chain endpoint-"))
    assert chain.endswith("-ns1/svc1/tcp/p80__fd00.10..5/80")
    base = chain.removeprefix("chain endpoint-")
    assert found[chain].entries == (
        "ip6 saddr fd00:10::5 jump mark-for-masquerade",
        f"update @affinity-{base} {{ ip6 saddr }}",
        "meta l4proto tcp dnat to [fd00:10::5]:80",
    )
    assert entries(found, f"chain service-{X1}")[0] == (
        "ip6 daddr fd00:10:96::41 ip6 saddr != fd00:10::/64 jump mark-for-masquerade"
    )
    assert entries(found, "chain services") == (
        "ip6 daddr . meta l4proto . th dport vmap @service-ips",
        "fib daddr type local ip6 daddr != ::1 meta l4proto . th dport vmap @service-nodeports",
    )
    assert found["map service-ips"].note.startswith("type ipv6_addr . inet_proto . inet_service : verdict")


def test_of_two_claims_the_older_services_counts() -> None:
    both = {"externalIPs": ["192.168.99.22"]}
    found = table(
        service("ns2/svc2", "172.30.0.42", **both, created="2026-01-02T00:00:00Z"),
        slice_of("ns2/svc2", "10.180.0.2"),
        service("ns1/svc1", **both),
        slice_of("ns1/svc1", "10.180.0.1"),
    )
    assert f"192.168.99.22 . tcp . 80 : goto external-{X1}" in entries(found, "map service-ips")
    assert len(entries(found, "map service-ips")) == 3


# the other layout


def test_compact_holds_endpoints_in_maps() -> None:
    found = table(
        service("ns1/svc1", **EVERY),
        slice_of("ns1/svc1", "10.180.0.1", "10.180.0.2", "10.180.0.3"),
        compact=True,
    )
    assert not [name for name in found if "/" in name]
    assert "172.30.0.41 . tcp . 80" in entries(found, "set internal-cluster-services")
    assert entries(found, "set external-cluster-services") == (
        "1.2.3.4 . tcp . 80",
        "192.168.99.22 . tcp . 80",
    )
    assert entries(found, "set external-cluster-nodeports") == ("tcp . 3001",)
    assert entries(found, "set cluster-4-services") == (
        "1.2.3.4 . tcp . 80",
        "172.30.0.41 . tcp . 80",
        "192.168.99.22 . tcp . 80",
    )
    assert "172.30.0.41 . tcp . 80 . 0x00000002 : 10.180.0.3 . 80" in entries(found, "map cluster-services")
    assert len(entries(found, "map cluster-services")) == 9
    assert entries(found, "map cluster-nodeports")[0] == "tcp . 3001 . 0x00000000 : 10.180.0.1 . 80"
    assert "10.180.0.2 . 10.180.0.2 . tcp . 80" in entries(found, "set hairpin-connections")
    assert entries(found, "chain cluster-2-services") == (
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @cluster-services",
    )


def test_compact_draws_until_there_is_an_endpoint_of_that_number() -> None:
    found = table(compact=True)
    key = "ip daddr . meta l4proto . th dport"
    draw = f"dnat ip to {key} . numgen random mod 8 map @cluster-services"
    last = f"dnat ip to {key} . numgen random mod 4 map @cluster-services"
    assert entries(found, "chain draw-cluster-8-services") == (draw,) * 4
    assert entries(found, "chain cluster-8-services") == ("jump draw-cluster-8-services",) * 5 + (last,)
    assert (
        entries(found, "chain pick-cluster-services")[3]
        == f"{key} @cluster-8-services goto cluster-8-services"
    )


def test_compact_external_local_keeps_short_cuts() -> None:
    found = table(
        service("ns2/svc2", "172.30.0.42", **EVERY, **LOCAL), slice_of("ns2/svc2", "10.180.0.2"), compact=True
    )
    assert entries(found, "set external-local-services") == ("1.2.3.4 . tcp . 80", "192.168.99.22 . tcp . 80")
    assert entries(found, "set drop-nodeports") == ('tcp . 3001 comment "ns2/svc2:p80"',)
    assert not entries(found, "map local-services")
    assert "1.2.3.4 . tcp . 80 . 0x00000000 : 10.180.0.2 . 80" in entries(found, "map cluster-services")


def test_compact_leaves_affinity_to_chains() -> None:
    found = table(
        service("ns1/svc1", sessionAffinity="ClientIP"),
        slice_of("ns1/svc1", "10.180.0.1"),
        service("ns2/svc2", "172.30.0.42"),
        slice_of("ns2/svc2", draining("10.180.0.2")),
        compact=True,
    )
    assert entries(found, "map service-ips") == (f"172.30.0.41 . tcp . 80 : goto service-{X1}",)
    assert f"set affinity-{E1}" in found
    assert entries(found, "set internal-cluster-services") == ("172.30.0.42 . tcp . 80",)
    assert entries(found, "set cluster-1-services") == ("172.30.0.42 . tcp . 80",)


def test_ports_of_one_service_share_its_address() -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "UDP"}]
    state = state_of(service("ns1/svc1", ports=ports))
    assert {port.name for port in state.ports()} == {
        ServicePortName("ns1", "svc1", "a", "TCP"),  # type: ignore[arg-type]
        ServicePortName("ns1", "svc1", "b", "UDP"),  # type: ignore[arg-type]
    }
    found = table(service("ns1/svc1", ports=ports))
    assert entries(found, "set cluster-ips") == ("172.30.0.41",)
