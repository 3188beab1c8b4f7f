"""Which service ports come out of a Service."""

from ipaddress import ip_address, ip_network

import pytest
from support.proxy import service

from netkit.proxy.addresses import Family, parse_address, parse_network
from netkit.proxy.services import Protocol, ServicePort, TrafficPolicy, service_ports


def only(obj: dict, family: Family = Family.IPV4) -> ServicePort:
    (port,) = service_ports(obj, family)
    return port


def test_plain_service() -> None:
    port = only(service())
    assert port.name.text == "ns1/svc1:p80"
    assert port.protocol is Protocol.TCP
    assert (str(port.cluster_ip), port.port, port.node_port) == ("172.30.0.41", 80, 0)
    assert not port.externally_reachable
    assert port.uses_cluster_list
    assert not port.uses_local_list
    assert port.affinity_seconds is None


def test_a_port_without_name_is_not_in_the_text() -> None:
    assert only(service(ports=[{"port": 80}])).name.text == "ns1/svc1"


def test_two_ports_may_differ_in_protocol_only() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    assert [port.protocol for port in service_ports(service(ports=ports), Family.IPV4)] == ["UDP", "TCP"]


@pytest.mark.parametrize(
    "skipped",
    [
        service(type="ExternalName", externalName="example.com"),
        service(cluster_ip="None"),
        service(cluster_ip="", clusterIPs=[]),
        service(labels={"service.kubernetes.io/service-proxy-name": "cilium"}),
        service(labels={"service.kubernetes.io/service-proxy-name": ""}),
        service(labels={"service.kubernetes.io/headless": ""}),
    ],
)
def test_skipped_services(skipped: dict) -> None:
    assert service_ports(skipped, Family.IPV4) == ()


def test_families_are_kept_apart() -> None:
    obj = service(
        type="LoadBalancer",
        clusterIPs=["172.30.0.41", "fd00::41"],
        externalIPs=["1.2.3.4", "2001:db8::4"],
        loadBalancerSourceRanges=["10.0.0.0/8", "fd00::/8"],
        ingress=[{"ip": "5.6.7.8"}, {"ip": "2001:db8::8"}],
    )
    four, six = only(obj, Family.IPV4), only(obj, Family.IPV6)
    assert (str(four.cluster_ip), str(six.cluster_ip)) == ("172.30.0.41", "fd00::41")
    assert [str(ip) for ip in four.external_ips] == ["1.2.3.4"]
    assert [str(ip) for ip in six.external_ips] == ["2001:db8::4"]
    assert [str(ip) for ip in four.load_balancer_ips] == ["5.6.7.8"]
    assert [str(ip) for ip in six.load_balancer_ips] == ["2001:db8::8"]
    assert [str(net) for net in four.source_ranges] == ["10.0.0.0/8"]
    assert [str(net) for net in six.source_ranges] == ["fd00::/8"]


def test_a_single_stack_service_has_no_port_in_the_other_family() -> None:
    assert service_ports(service(), Family.IPV6) == ()


def test_ingress_of_mode_proxy_or_without_address_is_left_alone() -> None:
    ingress = [
        {"ip": "5.6.7.8", "ipMode": "Proxy"},
        {"hostname": "lb.example.com"},
        {"ip": "5.6.7.9", "ipMode": "VIP"},
    ]
    assert [str(ip) for ip in only(service(type="LoadBalancer", ingress=ingress)).load_balancer_ips] == [
        "5.6.7.9"
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([" 203.0.113.0/25"], ["203.0.113.0/25"]),
        (["203.0.113.7/24"], ["203.0.113.0/24"]),
        (["010.01.0.0/16"], ["10.1.0.0/16"]),
        (["0.0.0.0/0"], []),
        (["10.0.0.0/8", "0.0.0.0/0"], []),
        (["::/0", "10.0.0.0/8"], ["10.0.0.0/8"]),
        (["nonsense", "10.0.0.0/8"], ["10.0.0.0/8"]),
    ],
)
def test_source_ranges(written: list[str], read: list[str]) -> None:
    ranges = only(service(type="LoadBalancer", loadBalancerSourceRanges=written)).source_ranges
    assert [str(network) for network in ranges] == read


def test_affinity_timeout_and_its_default() -> None:
    assert only(service(sessionAffinity="ClientIP")).affinity_seconds == 10800
    config = {"clientIP": {"timeoutSeconds": 7}}
    assert only(service(sessionAffinity="ClientIP", sessionAffinityConfig=config)).affinity_seconds == 7


def test_health_check_port_counts_only_for_load_balancers_with_local_policy() -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30000}
    assert only(service(type="LoadBalancer", **local)).health_check_port == 30000
    assert only(service(type="NodePort", **local)).health_check_port == 0
    cluster = {"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30000}
    assert only(service(type="LoadBalancer", **cluster)).health_check_port == 0


def test_external_local_counts_only_with_an_external_address() -> None:
    bare = only(service(externalTrafficPolicy="Local"))
    assert not bare.external_local
    assert not bare.uses_local_list
    with_address = only(service(externalTrafficPolicy="Local", externalIPs=["1.2.3.4"]))
    assert with_address.external_local
    assert with_address.uses_local_list
    assert with_address.uses_cluster_list


def test_internal_local_needs_the_cluster_list_only_when_reachable_from_outside() -> None:
    assert not only(service(internalTrafficPolicy="Local")).uses_cluster_list
    outside = only(service(internalTrafficPolicy="Local", externalIPs=["1.2.3.4"]))
    assert outside.uses_cluster_list
    assert outside.uses_local_list
    assert outside.internal_policy is TrafficPolicy.LOCAL


def test_leading_zeros_are_decimal() -> None:
    assert parse_address("010.008.0.1") == ip_address("10.8.0.1")
    assert parse_network("010.0.0.0/8") == ip_network("10.0.0.0/8")
    with pytest.raises(ValueError, match="256"):
        parse_address("256.1.1.1")
    with pytest.raises(ValueError, match="prefix length"):
        parse_network("10.0.0.1")


def test_ports_of_unknown_protocols_are_nobodys() -> None:
    ports = [{"name": "a", "port": 80, "protocol": "DCCP"}, {"name": "b", "port": 80}]
    assert [port.name.port for port in service_ports(service(ports=ports), Family.IPV4)] == ["b"]


@pytest.mark.parametrize(
    ("spec", "local"),
    [
        ({"type": "NodePort"}, True),
        ({"type": "LoadBalancer"}, True),
        ({"type": "ClusterIP", "externalIPs": ["1.2.3.4"]}, True),
        ({"type": "ClusterIP"}, False),
    ],
)
def test_the_external_policy_counts_for_kinds_with_external_traffic(spec: dict, local: bool) -> None:
    port = only(service(externalTrafficPolicy="Local", **spec))
    assert (port.external_policy is TrafficPolicy.LOCAL) == local


def test_ipv4_in_the_clothes_of_ipv6_is_ipv4() -> None:
    assert str(parse_address("::ffff:10.0.0.1")) == "10.0.0.1"
    port = only(service(externalIPs=["::ffff:1.2.3.4"]))
    assert [str(address) for address in port.external_ips] == ["1.2.3.4"]
