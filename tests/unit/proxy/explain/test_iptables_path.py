"""The way through the rules of the iptables mode."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from support.explained import explained
from support.proxy import endpoint, service, slice_of

from netkit.proxy.explain.explanation import Outcome
from netkit.proxy.explain.iptables_rule import Flowing, parse_rule, takes
from netkit.proxy.explain.steps import Action, Match, Packet
from netkit.proxy.explain.target import To
from netkit.proxy.services import Protocol

BALANCED = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 30080}],
    "externalIPs": ["1.2.3.4"],
    "ingress": [{"ip": "5.6.7.8"}],
}
HERE, THERE = endpoint("10.244.0.5", "here"), endpoint("10.244.1.6", "there")


def test_what_kube_proxy_has_no_rule_for() -> None:
    found = explained(service(**BALANCED), slice_of("ns1/svc1"), origin="node", to=To.EXTERNAL_IP)
    assert found.outcome is Outcome.IGNORED
    assert "the packet leaves here for whoever has 1.2.3.4" in found.summary


def test_hairpin_may_be_rewritten() -> None:
    found = explained(service(), slice_of("ns1/svc1", HERE, THERE), source="10.244.0.5")
    marks = [step for step in found.steps if step.action is Action.MARK]
    assert [step.certain for step in marks if "hairpin" in step.meaning] == [False]
    assert any(step.action is Action.MASQUERADE and not step.certain for step in found.steps)
    alone = explained(service(), slice_of("ns1/svc1", HERE), source="10.244.0.5")
    assert any(step.action is Action.MASQUERADE and step.certain for step in alone.steps)


def test_choice_is_uncertain_with_several_endpoints_only() -> None:
    several = explained(service(), slice_of("ns1/svc1", HERE, THERE))
    assert not any(step.certain for step in several.steps if step.action is Action.TRANSLATE)
    alone = explained(service(), slice_of("ns1/svc1", HERE))
    assert all(step.certain for step in alone.steps)


def test_hooks_in_order() -> None:
    inside = explained(service(), slice_of("ns1/svc1", HERE))
    assert list(dict.fromkeys(step.hook for step in inside.steps)) == ["PREROUTING", "POSTROUTING"]
    node = explained(service(), slice_of("ns1/svc1", HERE), origin="node")
    assert list(dict.fromkeys(step.hook for step in node.steps)) == ["OUTPUT", "POSTROUTING"]
    outside = explained(service(**BALANCED), slice_of("ns1/svc1", HERE), origin="outside")
    assert list(dict.fromkeys(step.hook for step in outside.steps)) == [
        "PREROUTING",
        "FORWARD",
        "POSTROUTING",
    ]


def test_every_rule_is_met_or_among_the_others() -> None:
    found = explained(service(**BALANCED), slice_of("ns1/svc1", HERE, THERE), origin="outside")
    met = {(step.section, step.entry) for step in found.steps}
    others = {(section.name, entry) for section in found.other_rules for entry in section.entries}
    assert met
    assert others
    assert not met & others
    services = [entry for name, entry in others if name == "nat KUBE-SERVICES"]
    assert any('"ns1/svc1:p80 cluster IP"' in entry for entry in services)


def test_a_rule_that_the_kernel_lacks() -> None:
    found = explained(service(), slice_of("ns1/svc1", HERE), lacking=["nat KUBE-SERVICES"])
    assert found.outcome is Outcome.DELIVERED
    assert not found.delivered
    assert [step.section for step in found.steps if not step.standing] == ["nat KUBE-SERVICES"]
    assert found.summary.endswith("but 1 rule on the way is missing from the kernel of here")


PACKET = Packet(ip_address("10.244.0.9"), ip_address("10.96.0.10"), 80, Protocol.TCP, "veth1")


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ("-d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j X", Match.YES),
        ("-A CHAIN -d 10.96.0.10/32 -j X", Match.YES),
        ("-d 10.96.0.11/32 -j X", Match.NO),
        ("! -d 10.96.0.11/32 -j X", Match.YES),
        ("-p udp -j X", Match.NO),
        ("-m tcp --dport 81 -j X", Match.NO),
        ("! -s 10.244.0.0/16 -j X", Match.NO),
        ("-i veth+ -j X", Match.YES),
        ("! -i cni0 -j X", Match.YES),
        ("-m addrtype --src-type LOCAL -j X", Match.NO),
        ("-m addrtype ! --dst-type LOCAL -j X", Match.YES),
        ("-m statistic --mode random --probability 0.5 -j X", Match.MAYBE),
        ("-m mark --mark 0x4000/0x4000 -j X", Match.NO),
        ("-m mark ! --mark 0x4000/0x4000 -j RETURN", Match.YES),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j X", Match.NO),
        ("-m conntrack --ctstate NEW -j X", Match.YES),
        ("-m set --match-set IPS dst,dst -j X", Match.YES),
        ("-m set --match-set IPS dst,dst,src -j X", Match.NO),
        ("-m set ! --match-set OTHER dst,dst -j X", Match.YES),
        ("-m set --match-set PORTS dst -j X", Match.YES),
        ("-m set --match-set RANGES dst,dst,src -j X", Match.YES),
        ('-m comment --comment "a -d 1.2.3.4 b" -j X', Match.YES),
        ("-m unheard --of 3 -j X", Match.MAYBE),
    ],
)
def test_one_rule(rule: str, match: Match) -> None:
    sets = {
        "IPS": ["10.96.0.9,tcp:80", "10.96.0.10,tcp:80"],
        "OTHER": ["10.96.0.10,udp:80"],
        "PORTS": ["80"],
        "RANGES": ["10.96.0.10,tcp:80,10.0.0.0/8"],
    }
    assert takes(parse_rule(rule), Flowing(PACKET, sets)) is match
