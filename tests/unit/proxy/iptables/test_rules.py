"""Rules of single service ports, chain by chain, in the words of kube-proxy."""

from ipaddress import ip_address

import pytest
from support.proxy import draining, endpoint, service, slice_of, state_of

from netkit.proxy.addresses import Family
from netkit.proxy.choice import NodeView, choose
from netkit.proxy.detector import InterfaceDetector
from netkit.proxy.endpoints import Endpoint
from netkit.proxy.iptables.chains import endpoint_chain, is_ours, is_service_chain, port_chains
from netkit.proxy.iptables.rules import IPTablesSettings, PortRules, render_port
from netkit.proxy.services import Protocol, ServicePortName
from netkit.proxy.settings import ProxySettings

PODS = ProxySettings(cluster_cidr="10.0.0.0/8").detector(Family.IPV4)
SETTINGS = IPTablesSettings(detector=PODS)
NODE = NodeView("here", addresses=(ip_address("192.168.0.2"),))
HASH, SEP1 = "XPGD46QRK7WJZT7O", "KUBE-SEP-SXIVWICOYRO3J4NJ"
CLUSTER_IP = '-d 172.30.0.41/32 -p tcp -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80'


def rendered(
    *endpoints,
    settings: IPTablesSettings = SETTINGS,
    node: NodeView = NODE,
    comments: bool = True,
    family: Family = Family.IPV4,
    slice_=None,
    **spec,
) -> PortRules:
    slice_ = slice_ or slice_of("ns1/svc1", *endpoints)
    state = state_of(service(**spec), slice_, family=family)
    (port,) = state.ports()
    choice = choose(port, state.endpoints(port.name), node)
    return render_port(port, choice, node, settings, comments=comments)


def chain(rules: PortRules, name: str) -> list[str]:
    """The rules of one of the port's own chains, without `-A NAME`."""
    lines = rules.own[name].splitlines()
    assert all(line.startswith(f"-A {name} ") for line in lines)
    return [line.removeprefix(f"-A {name} ") for line in lines]


def lines(text: str) -> list[str]:
    return text.splitlines()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ServicePortName("ns1", "svc1", "p80", Protocol.TCP), HASH),
        (ServicePortName("default", "kubernetes", "https", Protocol.TCP), "NPX46M4PTMTKRN6Y"),
        (ServicePortName("kube-system", "kube-dns", "dns", Protocol.UDP), "TCOU7JCQXEZGVUNU"),
    ],
)
def test_names_every_cluster_shows(name: ServicePortName, expected: str) -> None:
    chains = port_chains(name)
    assert chains.cluster == f"KUBE-SVC-{expected}"
    assert chains.local == f"KUBE-SVL-{expected}"
    assert chains.external == f"KUBE-EXT-{expected}"
    assert chains.firewall == f"KUBE-FW-{expected}"


def test_endpoint_chain_name() -> None:
    name = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
    assert endpoint_chain(name, Endpoint(ip_address("10.180.0.1"), 80)) == SEP1


def test_whose_chains_are_ours() -> None:
    assert is_service_chain(SEP1)
    assert is_ours("KUBE-SERVICES")
    assert not is_service_chain("KUBE-SERVICES")
    for other in ("KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "FLANNEL-POSTRTG", "KUBE-ROUTER-INPUT"):
        assert not is_ours(other)


def test_cluster_ip_with_one_endpoint() -> None:
    rules = rendered("10.180.0.1")
    assert lines(rules.nat_services) == [f"-A KUBE-SERVICES {CLUSTER_IP} -j KUBE-SVC-{HASH}"]
    assert list(rules.own) == [f"KUBE-SVC-{HASH}", SEP1]
    assert chain(rules, f"KUBE-SVC-{HASH}") == [
        f"! -s 10.0.0.0/8 {CLUSTER_IP} -j KUBE-MARK-MASQ",
        f'-m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -j {SEP1}',
    ]
    assert chain(rules, SEP1) == [
        '-s 10.180.0.1/32 -m comment --comment "ns1/svc1:p80" -j KUBE-MARK-MASQ',
        '-p tcp -m comment --comment "ns1/svc1:p80" -m tcp -j DNAT --to-destination 10.180.0.1:80',
    ]
    assert rules.filter_services == rules.filter_external == rules.nat_node_ports == ""


@pytest.mark.parametrize(
    ("count", "shares"), [(2, ["0.50000000000"]), (3, ["0.33333333349", "0.50000000000"]), (1, [])]
)
def test_endpoints_share_evenly(count: int, shares: list[str]) -> None:
    rules = rendered(*[f"10.180.0.{host}" for host in range(1, count + 1)])
    found = [line for line in chain(rules, f"KUBE-SVC-{HASH}") if " -> " in line]
    assert len(found) == count
    for line, share in zip(found, shares, strict=False):
        assert f" -m statistic --mode random --probability {share} -j KUBE-SEP-" in line
    assert "statistic" not in found[-1]


def test_masquerading_of_cluster_ip_traffic() -> None:
    first = lambda **changes: chain(  # noqa: E731
        rendered("10.180.0.1", settings=IPTablesSettings(**changes)), f"KUBE-SVC-{HASH}"
    )[0]
    assert first(masquerade_all=True, detector=PODS) == f"{CLUSTER_IP} -j KUBE-MARK-MASQ"
    assert (
        first(detector=InterfaceDetector("cni0"))
        == CLUSTER_IP.replace("-p", "! -i cni0 -p", 1) + " -j KUBE-MARK-MASQ"
    )
    assert (
        first(detector=InterfaceDetector("veth", True))
        == CLUSTER_IP.replace("-p", "! -i veth+ -p", 1) + " -j KUBE-MARK-MASQ"
    )
    assert "KUBE-MARK-MASQ" not in first()


def test_no_endpoints_writes_refusals_and_no_chain() -> None:
    rules = rendered(
        type="LoadBalancer",
        ports=[{"name": "p80", "port": 80, "nodePort": 3001}],
        externalIPs=["192.168.99.11"],
        ingress=[{"ip": "1.2.3.4"}],
        loadBalancerSourceRanges=["10.0.0.0/8"],
    )
    why = '-m comment --comment "ns1/svc1:p80 has no endpoints"'
    refuse = "-j REJECT --reject-with icmp-port-unreachable"
    assert lines(rules.filter_services) == [
        f"-A KUBE-SERVICES -d 172.30.0.41/32 -p tcp {why} -m tcp --dport 80 {refuse}"
    ]
    assert lines(rules.filter_external) == [
        f"-A KUBE-EXTERNAL-SERVICES -d 192.168.99.11/32 -p tcp {why} -m tcp --dport 80 {refuse}",
        f"-A KUBE-EXTERNAL-SERVICES -d 1.2.3.4/32 -p tcp {why} -m tcp --dport 80 {refuse}",
        f"-A KUBE-EXTERNAL-SERVICES -p tcp {why} -m addrtype --dst-type LOCAL -m tcp --dport 3001 {refuse}",
    ]
    assert rules.own == {}
    assert rules.nat_services == rules.nat_node_ports == rules.filter_firewall == ""


EXTERNAL = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 3001}],
    "externalIPs": ["192.168.99.11"],
    "ingress": [{"ip": "1.2.3.4"}],
}


def test_external_cluster_policy_masquerades_all() -> None:
    rules = rendered("10.180.0.1", **EXTERNAL)
    what = '"masquerade traffic for ns1/svc1:p80 external destinations"'
    assert chain(rules, f"KUBE-EXT-{HASH}") == [
        f"-m comment --comment {what} -j KUBE-MARK-MASQ",
        f"-j KUBE-SVC-{HASH}",
    ]
    targets = [line.split(" -j ")[1] for line in lines(rules.nat_services)]
    assert targets == [f"KUBE-SVC-{HASH}", f"KUBE-EXT-{HASH}", f"KUBE-EXT-{HASH}"]
    assert lines(rules.nat_node_ports) == [
        f'-A KUBE-NODEPORTS -p tcp -m comment --comment "ns1/svc1:p80" -m tcp --dport 3001 -j KUBE-EXT-{HASH}'
    ]


def test_external_local_policy_keeps_the_source_and_short_circuits_pods_and_node() -> None:
    rules = rendered(endpoint("10.180.0.1", "here"), "10.180.0.2", externalTrafficPolicy="Local", **EXTERNAL)
    assert chain(rules, f"KUBE-EXT-{HASH}") == [
        '-s 10.0.0.0/8 -m comment --comment "pod traffic for ns1/svc1:p80 external destinations" '
        f"-j KUBE-SVC-{HASH}",
        '-m comment --comment "masquerade LOCAL traffic for ns1/svc1:p80 external destinations" '
        "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
        '-m comment --comment "route LOCAL traffic for ns1/svc1:p80 external destinations" '
        f"-m addrtype --src-type LOCAL -j KUBE-SVC-{HASH}",
        f"-j KUBE-SVL-{HASH}",
    ]
    assert len(chain(rules, f"KUBE-SVL-{HASH}")) == 1
    assert rules.filter_external == ""


def test_external_local_without_local_endpoint_drops_what_was_not_short_circuited() -> None:
    rules = rendered("10.180.0.2", externalTrafficPolicy="Local", **EXTERNAL)
    assert chain(rules, f"KUBE-EXT-{HASH}")[-1].endswith(f"-j KUBE-SVC-{HASH}")
    assert f"KUBE-SVL-{HASH}" not in rules.own
    assert all(
        "has no local endpoints" in line and line.endswith("-j DROP") for line in lines(rules.filter_external)
    )
    assert len(lines(rules.filter_external)) == 3
    assert rules.nat_node_ports


def test_internal_local_uses_the_local_chain_and_masquerades_in_it() -> None:
    rules = rendered(endpoint("10.180.0.1", "here"), "10.180.0.2", internalTrafficPolicy="Local")
    assert rules.nat_services.rstrip().endswith(f"-j KUBE-SVL-{HASH}")
    assert chain(rules, f"KUBE-SVL-{HASH}")[0].startswith("! -s 10.0.0.0/8 ")
    assert f"KUBE-SVC-{HASH}" not in rules.own
    assert sum(name.startswith("KUBE-SEP-") for name in rules.own) == 1


def test_internal_local_without_local_endpoint_still_has_the_cluster_chain_for_outside() -> None:
    rules = rendered("10.180.0.2", internalTrafficPolicy="Local", **EXTERNAL)
    assert lines(rules.filter_services)[0].endswith("-j DROP")
    assert f"KUBE-SVC-{HASH}" in rules.own
    assert "KUBE-MARK-MASQ" not in chain(rules, f"KUBE-SVC-{HASH}")[0]


def test_source_ranges() -> None:
    ranges = ["203.0.113.0/25", "192.168.0.0/24"]
    rules = rendered("10.180.0.1", loadBalancerSourceRanges=ranges, **EXTERNAL)
    what = '-m comment --comment "ns1/svc1:p80 loadbalancer IP"'
    assert chain(rules, f"KUBE-FW-{HASH}") == [
        f"-s 203.0.113.0/25 {what} -j KUBE-EXT-{HASH}",
        f"-s 192.168.0.0/24 {what} -j KUBE-EXT-{HASH}",
        f"-s 1.2.3.4/32 {what} -j KUBE-EXT-{HASH}",
        '-m comment --comment "other traffic to ns1/svc1:p80 will be dropped by KUBE-PROXY-FIREWALL"',
    ]
    assert lines(rules.filter_firewall) == [
        "-A KUBE-PROXY-FIREWALL -d 1.2.3.4/32 -p tcp "
        f'-m comment --comment "ns1/svc1:p80 traffic not accepted by KUBE-FW-{HASH}" -m tcp --dport 80 -j DROP'
    ]
    assert f"--dport 80 -j KUBE-FW-{HASH}\n" in rules.nat_services
    elsewhere = rendered("10.180.0.1", loadBalancerSourceRanges=ranges[:1], **EXTERNAL)
    assert "-s 1.2.3.4" not in str(elsewhere.own)


def test_affinity() -> None:
    rules = rendered(
        "10.180.0.1",
        "10.180.0.2",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
    )
    remembered = [line for line in chain(rules, f"KUBE-SVC-{HASH}") if "recent" in line]
    assert remembered[0] == (
        '-m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" '
        f"-m recent --rcheck --seconds 60 --reap --name {SEP1} --mask 255.255.255.255 --rsource -j {SEP1}"
    )
    assert len(remembered) == 2
    order = ["recent" in line for line in chain(rules, f"KUBE-SVC-{HASH}")[1:]]
    assert order == [True, True, False, False]
    assert chain(rules, SEP1)[1] == (
        f'-p tcp -m comment --comment "ns1/svc1:p80" -m recent --set --name {SEP1} --mask 255.255.255.255 '
        "--rsource -m tcp -j DNAT --to-destination 10.180.0.1:80"
    )


def test_health_check_port_is_let_in() -> None:
    rules = rendered(externalTrafficPolicy="Local", healthCheckNodePort=30000, **EXTERNAL)
    assert lines(rules.filter_node_ports) == [
        '-A KUBE-NODEPORTS -p tcp -m comment --comment "ns1/svc1:p80 health check node port" '
        "-m tcp --dport 30000 -j ACCEPT"
    ]


def test_without_comments_only_those_of_endpoints_go() -> None:
    rules = rendered("10.180.0.1", comments=False, **EXTERNAL)
    assert chain(rules, SEP1)[0] == "-s 10.180.0.1/32 -j KUBE-MARK-MASQ"
    assert chain(rules, f"KUBE-SVC-{HASH}")[1] == f"-j {SEP1}"
    assert "cluster IP" in rules.nat_services


def test_draining_endpoint_here_and_ready_one_elsewhere() -> None:
    """Both are reachable, so both have a chain: the local one for Local traffic, the other for pods."""
    rules = rendered(draining("10.180.0.1", "here"), "10.180.0.2", externalTrafficPolicy="Local", **EXTERNAL)
    assert chain(rules, f"KUBE-SVL-{HASH}") == [
        f'-m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -j {SEP1}'
    ]
    assert "10.180.0.1" not in "".join(chain(rules, f"KUBE-SVC-{HASH}"))
    assert sum(name.startswith("KUBE-SEP-") for name in rules.own) == 2


def test_ipv6_targets_have_brackets() -> None:
    rules = rendered(
        family=Family.IPV6,
        settings=IPTablesSettings(),
        cluster_ip="fd00::41",
        slice_=slice_of("ns1/svc1", "fd00:1::1", address_type="IPv6"),
    )
    assert "-d fd00::41/128 -p tcp " in rules.nat_services
    assert "-s fd00:1::1/128 " in str(rules.own)
    assert "-j DNAT --to-destination [fd00:1::1]:80" in str(rules.own)


def test_udp() -> None:
    udp = [{"name": "p80", "port": 80, "protocol": "UDP"}]
    rules = rendered(ports=udp, slice_=slice_of("ns1/svc1", "10.180.0.1", ports=udp))
    assert "-d 172.30.0.41/32 -p udp " in rules.nat_services
    assert "-m udp --dport 80 " in rules.nat_services
    assert "-m udp -j DNAT --to-destination 10.180.0.1:80" in str(rules.own)
    assert HASH not in rules.nat_services, "the protocol is part of the name"
