"""From what people write to Services, ports and addresses; what is not there is said in one line."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from support.explained import explained
from support.proxy import service, slice_of

from netkit.proxy.addresses import Family
from netkit.proxy.explain.errors import NotExplainable
from netkit.proxy.explain.explanation import Outcome
from netkit.proxy.explain.standpoint import Origin
from netkit.proxy.explain.target import To, called, find

TWO_PORTS = [
    {"name": "http", "port": 80, "nodePort": 30080},
    {"name": "dns", "port": 53, "protocol": "UDP"},
    {"name": "dns-tcp", "port": 53},
]
WEB = service("default/web", "10.96.0.10", TWO_PORTS, type="LoadBalancer", ingress=[{"ip": "5.6.7.8"}])
SIX = service("six/web", "fd00::10", [{"port": 80}], ipFamilies=["IPv6"])
NODES = [
    {
        "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.11"}, {"address": "node1"}]},
    }
]


def found(text: str) -> list[tuple[str, str]]:
    return [(str(target.name), target.name.protocol) for target in find(text, "default", [WEB, SIX], NODES)]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("web", [("default/web:http", "TCP"), ("default/web:dns", "UDP"), ("default/web:dns-tcp", "TCP")]),
        ("web:http", [("default/web:http", "TCP")]),
        ("default/web:80", [("default/web:http", "TCP")]),
        ("web:53", [("default/web:dns", "UDP"), ("default/web:dns-tcp", "TCP")]),
        ("six/web", [("six/web", "TCP")]),
        ("10.96.0.10:80", [("default/web:http", "TCP")]),
        ("5.6.7.8:53", [("default/web:dns", "UDP"), ("default/web:dns-tcp", "TCP")]),
        ("172.18.0.11:30080", [("default/web:http", "TCP")]),
        ("127.0.0.1:30080", [("default/web:http", "TCP")]),
        ("[fd00::10]:80", [("six/web", "TCP")]),
    ],
)
def test_found(text: str, ports: list[tuple[str, str]]) -> None:
    assert found(text) == ports


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("web:81", "Service default/web has no port 81", "it has: http (80/TCP), dns (53/UDP), dns-tcp (53/TCP)"),
        ("db", "there is no Service default/db", "there are: web"),
        ("none/web", "there is no Service none/web", "there is default/web, six/web"),
        ("none/db", "there is no Service none/db", "namespace none has no Services"),
        ("10.96.0.10:81", "no Service has port 81 on 10.96.0.10",
         "the address belongs to default/web (cluster IP), which has http (80/TCP), dns (53/UDP), dns-tcp (53/TCP)"),
        ("10.96.0.11:80", "10.96.0.11:80 is no address and port of any Service", ""),
        ("172.18.0.12:30080", "172.18.0.12 is an address of no node",
         "port 30080 is a NodePort of default/web:http; the nodes have: node1 172.18.0.11"),
        ("300.1.1.1:80", "300.1.1.1 is not an IP address", ""),
    ],
)  # fmt: skip
def test_not_found(text: str, message: str, hint: str) -> None:
    with pytest.raises(NotExplainable) as caught:
        find(text, "default", [WEB, SIX], NODES)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def address(
    text: str, to: To | None, origin: Origin = Origin.POD, services: Any = (WEB,)
) -> tuple[str, str, int]:
    answer = called(find(text, "default", services, NODES)[0], to, origin, Family.IPV4)
    return answer.destination.value, str(answer.address), answer.port


def test_the_address_that_is_called() -> None:
    assert address("web:http", None) == ("cluster IP", "10.96.0.10", 80)
    assert address("web:http", None, Origin.NODE) == ("cluster IP", "10.96.0.10", 80)
    assert address("web:http", None, Origin.OUTSIDE) == ("load balancer IP", "5.6.7.8", 80)
    assert address("web:http", To.NODE_PORT) == ("node port", "None", 30080)
    assert address("172.18.0.11:30080", None) == ("node port", "172.18.0.11", 30080)
    plain = service("default/web", "10.96.0.10", TWO_PORTS, type="NodePort")
    assert address("web:http", None, Origin.OUTSIDE, [plain]) == ("node port", "None", 30080)
    external = service("default/web", "10.96.0.10", TWO_PORTS, type="NodePort", externalIPs=["1.2.3.4"])
    assert address("web:http", None, Origin.OUTSIDE, [external]) == ("external IP", "1.2.3.4", 80)


@pytest.mark.parametrize(
    ("spec", "to", "origin", "message"),
    [
        ({}, To.NODE_PORT, Origin.POD, "Service default/web has no node port of family IPv4 (type ClusterIP)"),
        ({}, To.EXTERNAL_IP, Origin.POD,
         "Service default/web has no external IP of family IPv4: spec.externalIPs names none"),
        ({"type": "LoadBalancer"}, To.LOAD_BALANCER, Origin.POD,
         "Service default/web has no load balancer IP of family IPv4: its status names none yet (pending)"),
        ({}, None, Origin.OUTSIDE,
         "Service default/web has no address for callers outside the cluster (type ClusterIP)"),
    ],
)  # fmt: skip
def test_addresses_that_are_not_there(spec: Any, to: To | None, origin: Origin, message: str) -> None:
    plain = service("default/web", "10.96.0.10", [{"name": "http", "port": 80}], **spec)
    with pytest.raises(NotExplainable) as caught:
        address("web", to, origin, [plain])
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("made", "because"),
    [
        (
            service(type="ExternalName", externalName="example.org", clusterIP="", clusterIPs=[]),
            "type ExternalName is a name in DNS for example.org; there is no address to translate",
        ),
        (
            service(cluster_ip="None"),
            "it is headless (clusterIP None): DNS names its endpoints, and clients call them directly",
        ),
        (
            service(labels={"service.kubernetes.io/service-proxy-name": "mesh"}),
            "the label service.kubernetes.io/service-proxy-name=mesh gives it to another proxy",
        ),
        (
            service(labels={"service.kubernetes.io/headless": ""}),
            "the label service.kubernetes.io/headless keeps proxies away",
        ),
        (service(clusterIP="", clusterIPs=[]), "it has no cluster IP yet"),
        (service(cluster_ip="fd00::41"), "it has no IPv4 cluster IP, only fd00::41"),
    ],
)
def test_services_that_no_proxy_handles(made: Any, because: str) -> None:
    found = explained(made, slice_of("ns1/svc1", "10.244.0.5"))
    assert found.outcome is Outcome.IGNORED
    assert found.summary == f"ns1/svc1:p80: not handled by the proxy: {because}"
    assert not found.delivered


BALANCED = {"type": "LoadBalancer", "ports": [{"name": "p80", "port": 80, "nodePort": 30080}]}


@pytest.mark.parametrize(
    ("asks", "spec", "settings", "because"),
    [
        ("5.6.7.8:80", {"ingress": [{"ip": "5.6.7.8", "ipMode": "Proxy"}]}, {},
         "ipMode Proxy: nodes leave 5.6.7.8 to the balancer"),
        ("127.0.0.1:30080", {}, {"localhost_node_ports": False}, "iptables.localhostNodePorts is off"),
        ("192.168.0.2:30080", {}, {"node_port_addresses": ("10.0.0.0/8",)}, "nodePortAddresses has only 10.0.0.0/8"),
        ("192.168.0.3:30080", {}, {}, "192.168.0.3 is not an address of here"),
    ],
)  # fmt: skip
def test_addresses_that_the_proxy_leaves_alone(asks: str, spec: Any, settings: Any, because: str) -> None:
    nodes = [
        {
            "metadata": {"name": "n"},
            "status": {"addresses": [{"address": "192.168.0.3"}, {"address": "192.168.0.2"}]},
        }
    ]
    found = explained(
        service(**BALANCED, **spec),
        slice_of("ns1/svc1", "10.244.0.5"),
        asks=asks,
        nodes=nodes,
        origin="node",
        **settings,
    )
    assert found.summary == f"ns1/svc1:p80: not handled by the proxy: {because}"


def test_an_external_address_that_an_older_service_has() -> None:
    older = service("ns1/old", "172.30.0.50", externalIPs=["1.2.3.4"], created="2025-01-01T00:00:00Z")
    found = explained(
        service(externalIPs=["1.2.3.4"]), older, slice_of("ns1/svc1", "10.244.0.5"), to=To.EXTERNAL_IP
    )
    assert found.summary.endswith("Service ns1/old:p80 is older and has 1.2.3.4:80 too")


def test_a_node_port_of_a_node_without_address() -> None:
    with pytest.raises(NotExplainable, match="node here has no IPv4 address"):
        explained(service(**BALANCED), slice_of("ns1/svc1", "10.244.0.5"), to=To.NODE_PORT, addresses=())


def test_ipv6() -> None:
    six = service(cluster_ip="fd00:10::41")
    slices = slice_of("ns1/svc1", "fd00:244::5", address_type="IPv6")
    found = explained(six, slices, family=Family.IPV6, source=str(ip_address("fd00:244::9")))
    assert found.summary == "ns1/svc1:p80: delivered to [fd00:244::5]:80, source kept"
