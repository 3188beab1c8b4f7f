"""Rules of one service port, letter by letter."""

from __future__ import annotations

from ipaddress import ip_address

from support.proxy import service

from netkit.proxy.addresses import Family
from netkit.proxy.services import service_ports
from netkit.proxy.userspace.rules import render_port

EVERY = service(
    "ns1/svc1",
    "172.30.0.41",
    [{"name": "p80", "port": 80, "nodePort": 30001}],
    type="LoadBalancer",
    externalIPs=["1.2.3.4"],
    ingress=[{"ip": "5.6.7.8"}, {"ip": "5.6.7.9", "ipMode": "Proxy"}],
)
HOST = ip_address("192.168.0.2")
ABOUT = '-p tcp -m comment --comment "ns1/svc1:p80" -m tcp --dport'


def test_all_addresses() -> None:
    (port,) = service_ports(EVERY, Family.IPV4)
    redirect, dnat = "-j REDIRECT --to-ports 41000", "-j DNAT --to-destination 192.168.0.2:41000"
    local = "-m addrtype --dst-type LOCAL"
    assert render_port(port, 41000, HOST) == {
        "KUBE-PORTALS-CONTAINER": (
            f"-d 172.30.0.41/32 {ABOUT} 80 {redirect}",
            f"-d 5.6.7.8/32 {ABOUT} 80 {redirect}",
            f"-d 1.2.3.4/32 {ABOUT} 80 -m physdev ! --physdev-is-in {redirect}",
            f"-d 1.2.3.4/32 {ABOUT} 80 {local} {redirect}",
        ),
        "KUBE-PORTALS-HOST": (
            f"-d 172.30.0.41/32 {ABOUT} 80 {dnat}",
            f"-d 5.6.7.8/32 {ABOUT} 80 {dnat}",
            f"-d 1.2.3.4/32 {ABOUT} 80 {local} {dnat}",
        ),
        "KUBE-NODEPORT-CONTAINER": (f"{ABOUT} 30001 {redirect}",),
        "KUBE-NODEPORT-HOST": (f"{ABOUT} 30001 {dnat}",),
        "KUBE-NODEPORT-NON-LOCAL": (f"{ABOUT} 41000 -m state --state NEW -j ACCEPT",),
    }


def test_proxy_that_listens_on_the_nodes_address_only() -> None:
    (port,) = service_ports(EVERY, Family.IPV4)
    rules = render_port(port, 41000, HOST, bound=True)
    assert rules["KUBE-NODEPORT-CONTAINER"] == (f"{ABOUT} 30001 -j DNAT --to-destination 192.168.0.2:41000",)
    assert "REDIRECT" not in str(rules)


def test_node_port_that_another_program_has() -> None:
    (port,) = service_ports(EVERY, Family.IPV4)
    rules = render_port(port, 41000, HOST, node_port=False)
    assert set(rules) == {"KUBE-PORTALS-CONTAINER", "KUBE-PORTALS-HOST"}


def test_ipv6_udp_without_a_name() -> None:
    dns = service("kube-system/dns", "fd00:10::a", [{"port": 53, "protocol": "UDP"}])
    (port,) = service_ports(dns, Family.IPV6)
    about = '-d fd00:10::a/128 -p udp -m comment --comment "kube-system/dns" -m udp --dport 53'
    assert render_port(port, 41000, ip_address("fd00::2")) == {
        "KUBE-PORTALS-CONTAINER": (f"{about} -j REDIRECT --to-ports 41000",),
        "KUBE-PORTALS-HOST": (f"{about} -j DNAT --to-destination [fd00::2]:41000",),
    }


def test_address_that_is_named_twice_has_one_rule() -> None:
    twice = service("ns1/svc1", "172.30.0.41", ingress=[{"ip": "172.30.0.41"}])
    (port,) = service_ports(twice, Family.IPV4)
    assert [len(rules) for rules in render_port(port, 1, HOST).values()] == [1, 1]
