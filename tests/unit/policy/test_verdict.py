"""What people are told about a connection is what the API's definition says of it."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_objects import NAMESPACES, OUTSIDE, namespace, pod, policy, specs
from support.policy_oracle import connects
from support.properties import examples

from netkit.policy.model import pod_of, policy_of
from netkit.policy.verdict import End, Judge

PODS = [pod(space, name, number) for number, (space, name) in enumerate(product(NAMESPACES, "ab"), 1)]
SPACES = [namespace(name) for name in NAMESPACES]


def judge(policies: list[dict[str, Any]]) -> Judge:
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in SPACES}
    return Judge(map(policy_of, policies), labels)


def end(address: str) -> End:
    found = next((item for item in PODS if address == item["status"]["podIPs"][0]["ip"]), None)
    return End(address, ip_address(address), pod_of(found) if found else None)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMESPACES), specs), max_size=4))
def test_verdicts(found: list[tuple[str, dict[str, Any]]]) -> None:
    policies = [policy(space, f"p{number}", **spec) for number, (space, spec) in enumerate(found)]
    asked = judge(policies)
    addresses = [item["status"]["podIPs"][0]["ip"] for item in PODS] + [OUTSIDE[0]]
    for source, destination in product(addresses, repeat=2):
        for protocol, port in (("TCP", 80), ("UDP", 80), ("SCTP", 81)):
            verdict = asked.judge(end(source), end(destination), protocol, port)
            wanted = connects(policies, SPACES, PODS, source, destination, protocol, port)
            assert verdict.allowed is wanted, (source, destination, protocol, policies, verdict)


def test_the_reason_is_named() -> None:
    friends = policy("x", "friends", ingress=[{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}])
    asked = judge([friends])
    allowed = asked.judge(end("10.244.1.2"), end("10.244.1.1"), "TCP", 80)
    assert (allowed.allowed, allowed.halves[1].by) == (True, "x/friends ingress rule 1")
    denied = asked.judge(end("10.244.1.3"), end("10.244.1.1"), "TCP", 80)
    assert denied.halves[1].why == ("x/friends ingress rule 1: 10.244.1.3 is none of: pod=b in namespace x",)
    own_node = End("node:node1", ip_address("172.18.0.3"), None, "node1")
    assert asked.judge(own_node, end("10.244.1.1"), "TCP", 80).allowed
