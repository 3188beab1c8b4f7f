"""Verdict, policy, source ranges and source address: each with the sentence that tells why."""

from __future__ import annotations

from typing import Any

import pytest
from support.explained import explained, reason
from support.proxy import endpoint, service, slice_of, unready

from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.explain.explanation import Outcome
from netkit.proxy.explain.target import To

HERE, THERE = endpoint("10.244.0.5", "here"), endpoint("10.244.1.6", "there")
BALANCED = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 30080}],
    "externalIPs": ["1.2.3.4"],
    "ingress": [{"ip": "5.6.7.8"}],
}
EXTERNAL = (To.NODE_PORT, To.EXTERNAL_IP, To.LOAD_BALANCER)


def asked(origin: str, to: To, *endpoints: Any, settings: dict[str, Any] | None = None, **spec: Any) -> Any:
    endpoints = endpoints or (HERE, THERE)
    source = spec.pop("source", "")
    slices = slice_of("ns1/svc1", *endpoints)
    return explained(
        service(**{**BALANCED, **spec}), slices, origin=origin, to=to, source=source, **(settings or {})
    )


@pytest.mark.parametrize(
    ("origin", "settings", "answer", "because"),
    [
        ("pod", {}, "kept", "a pod calls, and endpoints can answer pods"),
        ("node", {}, "rewritten", "the caller is no pod of the cluster, so answers must come back through here"),
        ("outside", {}, "rewritten", "the caller is no pod of the cluster, so answers must come back through here"),
        ("pod", {"masquerade_all": True}, "rewritten", "masqueradeAll is on"),
        (
            "outside", {"cluster_cidr": ""}, "kept",
            "pods cannot be told from others (no detector), so calls of cluster IPs are never rewritten",
        ),
    ],
)  # fmt: skip
def test_source_of_calls_to_the_cluster_ip(
    origin: str, settings: dict[str, Any], answer: str, because: str
) -> None:
    found = asked(origin, To.CLUSTER_IP, settings=settings)
    assert reason(found, "source address") == (answer, because)
    assert found.source_rewritten is (answer == "rewritten")


@pytest.mark.parametrize("to", EXTERNAL)
@pytest.mark.parametrize(
    ("policy", "origin", "list_", "answer", "because"),
    [
        (
            "Cluster", "outside", "all nodes", "rewritten",
            "externalTrafficPolicy is Cluster: endpoints may be elsewhere, answers must come back through here",
        ),
        (
            "Cluster", "pod", "all nodes", "rewritten",
            "externalTrafficPolicy is Cluster: endpoints may be elsewhere, answers must come back through here",
        ),
        ("Local", "outside", "this node", "kept", "externalTrafficPolicy is Local: endpoints see their clients"),
        ("Local", "pod", "all nodes", "kept", "externalTrafficPolicy is Local, and endpoints can answer pods"),
        (
            "Local", "node", "all nodes", "rewritten",
            "the node calls one of its external addresses; the endpoint must answer to an address it can reach",
        ),
    ],
)  # fmt: skip
def test_source_and_list_of_calls_from_outside_addresses(
    to: To, policy: str, origin: str, list_: str, answer: str, because: str
) -> None:
    found = asked(origin, to, externalTrafficPolicy=policy)
    assert reason(found, "source address") == (answer, because)
    assert reason(found, f"externalTrafficPolicy {policy}")[0] == list_
    assert [item.eligible for item in found.endpoints] == [True, list_ == "all nodes"]


@pytest.mark.parametrize(("origin", "who"), [("pod", "a pod"), ("node", "the node itself")])
def test_the_short_circuit_is_named(origin: str, who: str) -> None:
    found = asked(origin, To.NODE_PORT, externalTrafficPolicy="Local")
    assert reason(found, "externalTrafficPolicy Local")[1] == (
        f"{who} calls: it is served as if a balancer had chosen another node (short circuit)"
    )


def test_hairpin() -> None:
    found = asked("pod", To.CLUSTER_IP, source="10.244.0.5")
    assert reason(found, "hairpin")[1].startswith("if 10.244.0.5:80, the caller itself, is chosen")
    assert "hairpin" not in [item.about for item in asked("pod", To.CLUSTER_IP).reasons]
    rewritten = asked("pod", To.CLUSTER_IP, source="10.244.0.5", settings={"masquerade_all": True})
    assert "hairpin" not in [item.about for item in rewritten.reasons]


def test_hairpin_with_nobody_else_is_in_the_summary() -> None:
    found = asked("pod", To.CLUSTER_IP, HERE, source="10.244.0.5")
    assert found.summary == "ns1/svc1:p80: delivered to 10.244.0.5:80, source rewritten (it calls itself)"


def test_refused_when_nothing_is_ready_anywhere() -> None:
    found = asked("pod", To.CLUSTER_IP, unready("10.244.0.5", "here"), unready("10.244.1.6", "there"))
    assert found.outcome is Outcome.REFUSED
    assert not found.delivered
    assert found.summary == (
        "ns1/svc1:p80: refused: none of its 2 endpoints is ready anywhere: an ICMP error says so (connection refused)"
    )


def test_dropped_when_none_is_here() -> None:
    found = asked("outside", To.NODE_PORT, THERE, externalTrafficPolicy="Local")
    assert found.outcome is Outcome.DROPPED
    assert reason(found, "verdict")[1] == (
        "1 endpoint is on other nodes, none on here: silence, so that a balancer tries another node"
    )
    inside = asked("pod", To.CLUSTER_IP, THERE, internalTrafficPolicy="Local")
    assert inside.outcome is Outcome.DROPPED
    assert reason(inside, "internalTrafficPolicy Local")[0] == "this node"


RANGES = {"loadBalancerSourceRanges": ["203.0.113.0/25", "192.168.0.0/24"]}


@pytest.mark.parametrize(
    ("to", "source", "answer", "because"),
    [
        (To.LOAD_BALANCER, "203.0.113.7", "passed", "203.0.113.7 is in 203.0.113.0/25"),
        (To.LOAD_BALANCER, "203.0.113.130", "dropped", "203.0.113.130 is in none of 203.0.113.0/25, 192.168.0.0/24"),
        (
            To.LOAD_BALANCER, "5.6.7.8", "passed",
            "here is in a range, and nodes that own the balancer's address 5.6.7.8 call with it",
        ),
        (To.EXTERNAL_IP, "203.0.113.130", "not asked", "loadBalancerSourceRanges guard load balancer addresses only"),
    ],
)  # fmt: skip
def test_source_ranges(to: To, source: str, answer: str, because: str) -> None:
    found = asked("outside", to, source=source, **RANGES)
    assert reason(found, "source ranges") == (answer, because)
    assert found.delivered is (answer != "dropped")


def test_source_ranges_without_endpoints() -> None:
    found = asked("outside", To.LOAD_BALANCER, unready("10.244.0.5"), **RANGES)
    assert found.outcome is Outcome.REFUSED
    assert reason(found, "source ranges")[0] == "passed over"


def test_affinity() -> None:
    found = asked("pod", To.CLUSTER_IP, sessionAffinity="ClientIP")
    assert reason(found, "sessionAffinity")[1].startswith(
        "a client keeps its endpoint until it has not called for 10800 s; one memory for all its addresses"
    )


@pytest.mark.parametrize(
    ("settings", "source", "answer", "because"),
    [
        ({}, "", "pod of the cluster", "pods are recognised by an address in 10.244.0.0/16"),
        ({"cluster_cidr": ""}, "", "outside", "no way to recognise pods is configured"),
        (
            {"detect_local_mode": DetectLocalMode.BRIDGE_INTERFACE, "bridge_interface": "cni0"}, "",
            "pod of the cluster", "pods are recognised by the interface cni0 they come in by",
        ),
        (
            {"detect_local_mode": DetectLocalMode.INTERFACE_NAME_PREFIX, "interface_name_prefix": "veth"}, "",
            "pod of the cluster", "pods are recognised by the interface veth* they come in by",
        ),
        ({}, "10.99.0.1", "outside", "pods are recognised by an address in 10.244.0.0/16"),
        ({}, "192.168.0.2", "the node itself", "192.168.0.2 is an address of here"),
    ],
)  # fmt: skip
def test_what_the_caller_is_taken_for(
    settings: dict[str, Any], source: str, answer: str, because: str
) -> None:
    assert reason(asked("pod", To.CLUSTER_IP, source=source, settings=settings), "caller") == (
        answer,
        because,
    )


def test_a_caller_outside_with_a_pod_address_is_taken_for_a_pod() -> None:
    assert reason(asked("outside", To.CLUSTER_IP, source="10.244.3.3"), "caller")[0] == "pod of the cluster"
