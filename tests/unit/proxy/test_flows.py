"""The table of what becomes of a connection: every cell once."""

from ipaddress import ip_address

import pytest
from support.proxy import draining, endpoint, service, slice_of, state_of

from netkit.proxy.choice import NodeView, Verdict, choose
from netkit.proxy.flows import Caller, Destination, Flow, FlowSettings, answer

HERE, THERE = endpoint("10.0.0.1", "here"), endpoint("10.0.0.2", "there")
OUTSIDE = ip_address("203.0.113.130")
PLAIN = FlowSettings()
NODE = NodeView("here", addresses=(ip_address("192.168.0.2"),))
LOAD_BALANCER = {
    "type": "LoadBalancer",
    "ports": [{"name": "p80", "port": 80, "nodePort": 3001}],
    "externalIPs": ["1.2.3.4"],
    "ingress": [{"ip": "5.6.7.8"}],
}
EXTERNAL = (Destination.NODE_PORT, Destination.EXTERNAL_IP, Destination.LOAD_BALANCER)


def flow(
    destination: Destination,
    caller: Caller,
    endpoints: tuple = (HERE, THERE),
    settings: FlowSettings = PLAIN,
    source=OUTSIDE,
    node: NodeView = NODE,
    **spec,
) -> Flow:
    state = state_of(service(**{**LOAD_BALANCER, **spec}), slice_of("ns1/svc1", *endpoints))
    (port,) = state.ports()
    choice = choose(port, state.endpoints(port.name), node)
    return answer(port, choice, destination, caller, source, node, settings)


def short(found: Flow) -> tuple[str, list[str], bool]:
    return found.verdict.value, [str(item.address) for item in found.endpoints], found.masqueraded


BOTH, ONLY_HERE = ["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
@pytest.mark.parametrize(
    ("caller", "masqueraded"), [(Caller.POD, False), (Caller.NODE, True), (Caller.OUTSIDE, True)]
)
def test_cluster_ip_whatever_the_external_policy(policy: str, caller: Caller, masqueraded: bool) -> None:
    found = flow(Destination.CLUSTER_IP, caller, externalTrafficPolicy=policy)
    assert short(found) == ("forward", BOTH, masqueraded)


@pytest.mark.parametrize("destination", EXTERNAL)
@pytest.mark.parametrize(
    ("policy", "caller", "hosts", "masqueraded"),
    [
        ("Cluster", Caller.OUTSIDE, BOTH, True),
        ("Cluster", Caller.POD, BOTH, True),
        ("Cluster", Caller.NODE, BOTH, True),
        ("Local", Caller.OUTSIDE, ONLY_HERE, False),
        ("Local", Caller.POD, BOTH, False),
        ("Local", Caller.NODE, BOTH, True),
    ],
)
def test_external_addresses(
    destination: Destination, policy: str, caller: Caller, hosts: list[str], masqueraded: bool
) -> None:
    assert short(flow(destination, caller, externalTrafficPolicy=policy)) == ("forward", hosts, masqueraded)


@pytest.mark.parametrize("destination", EXTERNAL)
def test_external_local_without_local_endpoint(destination: Destination) -> None:
    spec = {"externalTrafficPolicy": "Local", "endpoints": (THERE,)}
    assert flow(destination, Caller.OUTSIDE, **spec).verdict is Verdict.DROP
    assert short(flow(destination, Caller.POD, **spec)) == ("forward", ["10.0.0.2"], False)
    assert short(flow(destination, Caller.NODE, **spec)) == ("forward", ["10.0.0.2"], True)


@pytest.mark.parametrize("destination", Destination)
@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_no_endpoints_is_a_refusal_for_everybody(destination: Destination, policy: str) -> None:
    for caller in Caller:
        found = flow(
            destination,
            caller,
            (),
            externalTrafficPolicy=policy,
            internalTrafficPolicy=policy,
            loadBalancerSourceRanges=["10.0.0.0/8"],
        )
        assert found.verdict is Verdict.REJECT


def test_internal_local() -> None:
    spec = {"internalTrafficPolicy": "Local"}
    assert short(flow(Destination.CLUSTER_IP, Caller.POD, **spec)) == ("forward", ONLY_HERE, False)
    assert short(flow(Destination.CLUSTER_IP, Caller.NODE, **spec)) == ("forward", ONLY_HERE, True)
    assert flow(Destination.CLUSTER_IP, Caller.POD, (THERE,), **spec).verdict is Verdict.DROP
    assert short(flow(Destination.NODE_PORT, Caller.OUTSIDE, **spec)) == ("forward", BOTH, True)


def test_local_draining_endpoint_serves_external_local() -> None:
    found = flow(
        Destination.NODE_PORT,
        Caller.OUTSIDE,
        (draining("10.0.0.1", "here"), THERE),
        externalTrafficPolicy="Local",
    )
    assert short(found) == ("forward", ONLY_HERE, False)


def test_masquerade_all_touches_cluster_ips_only() -> None:
    every = FlowSettings(masquerade_all=True)
    assert flow(Destination.CLUSTER_IP, Caller.POD, settings=every).masqueraded
    assert not flow(
        Destination.NODE_PORT, Caller.OUTSIDE, settings=every, externalTrafficPolicy="Local"
    ).masqueraded


def test_without_detector_cluster_ips_are_never_masqueraded() -> None:
    blind = FlowSettings(detects_local=False)
    assert not flow(Destination.CLUSTER_IP, Caller.OUTSIDE, settings=blind).masqueraded


def test_source_ranges_guard_load_balancer_addresses_only() -> None:
    ranges = {"loadBalancerSourceRanges": ["203.0.113.0/25"]}
    inside, balancer = ip_address("203.0.113.5"), ip_address("5.6.7.8")
    for caller in Caller:
        assert flow(Destination.LOAD_BALANCER, caller, **ranges).verdict is Verdict.DROP
        assert flow(Destination.LOAD_BALANCER, caller, source=inside, **ranges).verdict is Verdict.FORWARD
        assert flow(Destination.NODE_PORT, caller, **ranges).verdict is Verdict.FORWARD
        assert flow(Destination.EXTERNAL_IP, caller, **ranges).verdict is Verdict.FORWARD
    assert flow(Destination.LOAD_BALANCER, Caller.NODE, source=balancer, **ranges).verdict is Verdict.DROP
    ranges["loadBalancerSourceRanges"].append("192.168.0.0/24")
    assert flow(Destination.LOAD_BALANCER, Caller.NODE, source=balancer, **ranges).verdict is Verdict.FORWARD


def test_an_endpoint_that_reaches_itself_is_masqueraded() -> None:
    found = flow(Destination.CLUSTER_IP, Caller.POD, source=ip_address("10.0.0.1"))
    assert [found.masquerades(ip_address("10.0.0.1"), item) for item in found.endpoints] == [True, False]
