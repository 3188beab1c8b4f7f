"""The rules of the IPVS mode, letter by letter where users grep."""

import re
from ipaddress import ip_address

import pytest

from netkit.proxy.addresses import Family
from netkit.proxy.detector import InterfaceDetector
from netkit.proxy.ipvs import sets
from netkit.proxy.ipvs.chains import CHAINS, JUMPS, ChainSettings, KeptFromNode, canonical, chains
from netkit.proxy.ipvs.documents import cleanup_document, read_saved
from netkit.proxy.services import Protocol
from netkit.proxy.settings import ProxySettings

SETTINGS = ChainSettings(ProxySettings(cluster_cidr="10.244.0.0/16").detector(Family.IPV4))
KEPT = [KeptFromNode(ip_address("5.6.7.8"), Protocol.UDP, 53)]


def short(rules: tuple[str, ...]) -> list[str]:
    """Rules without their comments."""
    return [re.sub(r'-m comment --comment "[^"]*" ', "", rule) for rule in rules]


def test_every_rule_at_once() -> None:
    found = chains(Family.IPV4, SETTINGS, sets.SETS, KEPT)
    assert tuple(found) == CHAINS
    assert short(found["nat", "KUBE-SERVICES"]) == [
        "-s 127.0.0.0/8 -j RETURN",
        "-m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER",
        "! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
        "-m set --match-set KUBE-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ",
        "-m set --match-set KUBE-EXTERNAL-IP dst,dst -m physdev ! --physdev-is-in "
        "-m addrtype ! --src-type LOCAL -j ACCEPT",
        "-m set --match-set KUBE-EXTERNAL-IP dst,dst -m addrtype --dst-type LOCAL -j ACCEPT",
        "-m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -m physdev ! --physdev-is-in "
        "-m addrtype ! --src-type LOCAL -j ACCEPT",
        "-m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -m addrtype --dst-type LOCAL -j ACCEPT",
        "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
        "-m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT",
        "-m set --match-set KUBE-LOAD-BALANCER dst,dst -j ACCEPT",
    ]
    assert short(found["nat", "KUBE-NODE-PORT"]) == [
        "-p tcp -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN",
        "-p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ",
        "-p udp -m set --match-set KUBE-NODE-PORT-LOCAL-UDP dst -j RETURN",
        "-p udp -m set --match-set KUBE-NODE-PORT-UDP dst -j KUBE-MARK-MASQ",
        "-p sctp -m set --match-set KUBE-NODE-PORT-LOCAL-SCTP-HASH dst,dst -j RETURN",
        "-p sctp -m set --match-set KUBE-NODE-PORT-SCTP-HASH dst,dst -j KUBE-MARK-MASQ",
    ]
    assert short(found["nat", "KUBE-POSTROUTING"]) == [
        "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        "-j MASQUERADE --random-fully",
    ]
    assert short(found["filter", "KUBE-SOURCE-RANGES-FIREWALL"]) == [
        "-m set --match-set KUBE-LOAD-BALANCER-SOURCE-CIDR dst,dst,src -j RETURN",
        "-m set --match-set KUBE-LOAD-BALANCER-SOURCE-IP dst,dst,src -j RETURN",
        "-j DROP",
    ]
    assert found["filter", "KUBE-IPVS-OUT-FILTER"] == (
        "-s 5.6.7.8/32 -m ipvs --vproto 17 --vaddr 5.6.7.8 --vport 53 -j DROP",
    )
    assert found["filter", "KUBE-IPVS-FILTER"][-1] == (
        "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst "
        "-j REJECT --reject-with icmp-port-unreachable"
    )


def test_rules_of_empty_sets_are_left_out() -> None:
    found = chains(Family.IPV4, SETTINGS, [], [])
    assert found["nat", "KUBE-SERVICES"] == (
        "-s 127.0.0.0/8 -j RETURN",
        "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
    )
    assert found["nat", "KUBE-NODE-PORT"] == ()
    assert len(found["filter", "KUBE-IPVS-FILTER"]) == 6, "those are always there"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ChainSettings(masquerade_all=True), "dst,dst -j KUBE-MARK-MASQ"),
        (ChainSettings(), "src,dst -j KUBE-MARK-MASQ"),
        (ChainSettings(InterfaceDetector("cni0")), "! -i cni0 "),
        (ChainSettings(InterfaceDetector("veth", prefix=True)), "! -i veth+ "),
    ],
)
def test_whose_source_is_rewritten(settings: ChainSettings, expected: str) -> None:
    rule = chains(Family.IPV4, settings, [sets.CLUSTER_IP], [])["nat", "KUBE-SERVICES"][1]
    assert expected in rule


def test_ipv6_has_its_own_sets() -> None:
    found = chains(Family.IPV6, SETTINGS, sets.SETS, [])
    assert found["nat", "KUBE-SERVICES"][0] == "-s ::1/128 -j RETURN"
    assert "KUBE-6-CLUSTER-IP" in found["nat", "KUBE-SERVICES"][2]
    assert found["filter", "KUBE-IPVS-FILTER"][-1].endswith("--reject-with icmp6-port-unreachable")
    assert all(len(kind.name_for(Family.IPV6)) <= 31 for kind in sets.SETS)
    assert len({kind.name_for(Family.IPV6) for kind in sets.SETS}) == len(sets.SETS)


def test_rules_are_written_as_they_are_printed() -> None:
    for family in Family:
        for rules in chains(family, SETTINGS, sets.SETS, KEPT).values():
            for rule in rules:
                assert canonical(rule) == rule
    for _, rule in JUMPS:
        assert canonical(rule) == rule
    assert canonical(r"""--comment "type \'hash ip:port\'" --comment k""") == (
        """--comment "type 'hash ip:port'" --comment k"""
    )


SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A OUTPUT -j KUBE-SERVICES
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A MINE -j KUBE-MARK-MASQ
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-SERVICES
COMMIT
"""


def test_reading_what_stands() -> None:
    found = read_saved(SAVED)
    assert found.chains == {
        ("nat", "KUBE-SERVICES"): ("-s 127.0.0.0/8 -j RETURN",),
        ("nat", "KUBE-MARK-MASQ"): (),
    }
    assert [place for place, _ in found.jumps] == [("nat", "PREROUTING")]


def test_cleanup_takes_our_chains_and_all_that_leads_there() -> None:
    lines = cleanup_document(SAVED).splitlines()
    assert lines == [
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-MARK-MASQ - [0:0]",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-D OUTPUT -j KUBE-SERVICES",
        "-D MINE -j KUBE-MARK-MASQ",
        "-X KUBE-SERVICES",
        "-X KUBE-MARK-MASQ",
        "COMMIT",
    ]
