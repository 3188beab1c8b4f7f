from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.podnet.attach import Attach
from netkit.podnet.host_port import JUMPS, Forwarded, document, forwarded, is_ours, rules
from netkit.podnet.ipam import Lease
from netkit.podnet.pod import PodRef, PortMapping

WEB = Forwarded(
    PodRef("default", "web", "icee6giejonei6so"),
    IPv4Interface("10.244.1.2/24"),
    (PortMapping(8080, 80), PortMapping(8081, 80, host_ip="172.18.0.2"), PortMapping(53, 53, "udp")),
    "cni0",
)


def test_chains_are_named_as_portmap_names_them() -> None:
    # printf cbr0icee6giejonei6so | sha512sum
    assert WEB.chain == "CNI-DN-992496dca1e6e92c5d3a0"
    assert len(WEB.chain) == 28


def test_the_rules_are_portmaps_and_say_whose_they_are() -> None:
    chain = WEB.chain
    comment = r'-m comment --comment "dnat name: \"cbr0\" id: \"icee6giejonei6so\""'
    assert rules([WEB]) == [
        '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark"'
        " -j MARK --set-xmark 0x2000/0x2000",
        "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
        f"-A CNI-HOSTPORT-DNAT -p tcp {comment} -m multiport --dports 8080,8081 -j {chain}",
        f"-A CNI-HOSTPORT-DNAT -p udp {comment} -m multiport --dports 53 -j {chain}",
        f"-A {chain} -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        f"-A {chain} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
        f'-A {chain} -p tcp -m tcp --dport 8080 -m comment --comment "default/web"'
        " -j DNAT --to-destination 10.244.1.2:80",
        f"-A {chain} -s 10.244.1.0/24 -d 172.18.0.2/32 -p tcp -m tcp --dport 8081 -j CNI-HOSTPORT-SETMARK",
        f"-A {chain} -s 127.0.0.1/32 -d 172.18.0.2/32 -p tcp -m tcp --dport 8081 -j CNI-HOSTPORT-SETMARK",
        f'-A {chain} -d 172.18.0.2/32 -p tcp -m tcp --dport 8081 -m comment --comment "default/web"'
        " -j DNAT --to-destination 10.244.1.2:80",
        f"-A {chain} -s 10.244.1.0/24 -p udp -m udp --dport 53 -j CNI-HOSTPORT-SETMARK",
        f"-A {chain} -s 127.0.0.1/32 -p udp -m udp --dport 53 -j CNI-HOSTPORT-SETMARK",
        f'-A {chain} -p udp -m udp --dport 53 -m comment --comment "default/web"'
        " -j DNAT --to-destination 10.244.1.2:53",
    ]


def test_sixteen_ports_take_two_rules() -> None:
    many = replace(WEB, ports=tuple(PortMapping(9000 + n, 80) for n in range(16)))
    entries = [rule for rule in rules([many]) if rule.startswith("-A CNI-HOSTPORT-DNAT")]
    assert [rule.split("--dports ")[1].split()[0].count(",") for rule in entries] == [14, 0]


async def test_documents_lead_from_one_state_to_the_next() -> None:
    kernel = FakeIPTables()
    other = replace(WEB, pod=PodRef("default", "dns", "u2"))
    for pods in ([WEB], [WEB, other], [other], []):
        chains = kernel.tables.get("nat", {})
        await kernel.restore(document(pods, list(chains)))
        table = kernel.tables["nat"]
        left = {chain for chain in table if is_ours(chain)}
        tops = {"CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"}
        assert left == ({*tops, *(pod.chain for pod in pods)} if pods else set())
        assert sorted(f"-A {chain} {rule}" for chain in left for rule in table[chain]) == sorted(rules(pods))
        assert all("KUBE" not in chain for chain in left)


def test_only_the_masquerading_comes_before_what_stands() -> None:
    assert [(chain, prepended) for chain, _, prepended in JUMPS] == [
        ("PREROUTING", False), ("OUTPUT", False), ("POSTROUTING", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("attach", "neighbourhood", "device"),
    [(Attach.BRIDGE, "10.244.1.7/24", "cni0"), (Attach.PTP, "10.244.1.7/32", "veth01")],
)
def test_pods_without_ports_are_left_out(attach: Attach, neighbourhood: str, device: str) -> None:
    node_range, address = IPv4Network("10.244.1.0/24"), IPv4Address("10.244.1.7")
    plain = Lease("u1", "default", "plain", IPv4Address("10.244.1.6"), "ns1", "veth00")
    lease = Lease("u2", "default", "web", address, "ns2", "veth01", (PortMapping(8080, 80),))
    (found,) = forwarded(attach, node_range, [plain, lease])
    assert (str(found.neighbourhood), found.device, found.pod.name) == (neighbourhood, device, "web")
    assert forwarded(attach, None, [lease]) == []
