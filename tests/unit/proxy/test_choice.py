"""Which endpoints a service port leads to: readiness, fallback, hints, policies, verdicts."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.proxy import draining, endpoint, service, slice_of, state_of, unready

from netkit.proxy.choice import Choice, NodeView, Topology, Verdict, choose
from netkit.proxy.endpoints import Endpoint, merge_endpoints
from netkit.proxy.services import ServicePort, ServicePortName, TrafficPolicy

NODE = NodeView("here", "zone-a")
EXTERNAL = {"type": "NodePort", "ports": [{"name": "p80", "port": 80, "nodePort": 3001}]}


def chosen(endpoints: list, node: NodeView = NODE, **spec) -> Choice:
    state = state_of(service(**spec), slice_of("ns1/svc1", *endpoints))
    (port,) = state.ports()
    return choose(port, state.endpoints(port.name), node)


def hosts(endpoints: tuple[Endpoint, ...]) -> list[int]:
    return [int(endpoint.address) & 0xFF for endpoint in endpoints]


def test_cluster_list_is_every_ready_endpoint() -> None:
    choice = chosen(["10.0.0.1", endpoint("10.0.0.2", "there"), unready("10.0.0.3")])
    assert hosts(choice.cluster) == [1, 2]
    assert choice.local == ()
    assert choice.reachable == choice.cluster


def test_missing_conditions_mean_ready() -> None:
    assert hosts(chosen([{"addresses": ["10.0.0.1"]}]).cluster) == [1]


def test_only_the_first_address_of_an_endpoint_counts() -> None:
    assert hosts(chosen([{"addresses": ["10.0.0.1", "10.0.0.2"]}]).cluster) == [1]


def test_no_endpoint_anywhere_is_a_refusal() -> None:
    for policy in TrafficPolicy:
        choice = chosen([unready("10.0.0.1", "here")], internalTrafficPolicy=policy.value)
        assert not choice.has_any
        assert choice.verdict(policy) is Verdict.REJECT


def test_local_policy_without_local_endpoint_is_silence() -> None:
    choice = chosen([endpoint("10.0.0.1", "there")], internalTrafficPolicy="Local")
    assert choice.verdict(TrafficPolicy.LOCAL) is Verdict.DROP


def test_an_endpoint_without_node_is_local_nowhere() -> None:
    assert chosen(["10.0.0.1"], NodeView(""), internalTrafficPolicy="Local").local == ()


def test_draining_endpoints_are_used_when_nothing_is_ready() -> None:
    assert hosts(chosen([draining("10.0.0.1"), unready("10.0.0.2")]).cluster) == [1]
    assert hosts(chosen([draining("10.0.0.1"), "10.0.0.2"]).cluster) == [2]


def test_local_list_falls_back_alone() -> None:
    """A local endpoint that drains is used for Local traffic although others are ready elsewhere."""
    found = [draining("10.0.0.1", "here"), endpoint("10.0.0.2", "there")]
    choice = chosen(found, externalTrafficPolicy="Local", **EXTERNAL)
    assert hosts(choice.cluster) == [2]
    assert hosts(choice.local) == [1]
    assert hosts(choice.reachable) == [2, 1]


def test_terminating_but_ready_is_ready() -> None:
    """publishNotReadyAddresses: the slice says ready, and that is all that counts."""
    found = [endpoint("10.0.0.1", ready=True, serving=True, terminating=True), "10.0.0.2"]
    assert hosts(chosen(found).cluster) == [1, 2]


@pytest.mark.parametrize(
    ("endpoints", "node", "expected", "topology"),
    [
        ([("a", ""), ("b", "")], NODE, [0], Topology.ZONE),
        ([("a", ""), ("", "")], NODE, [0, 1], Topology.CLUSTER),
        ([("b", ""), ("b", "")], NODE, [0, 1], Topology.CLUSTER),
        ([("a", ""), ("b", "")], NodeView("here"), [0, 1], Topology.CLUSTER),
        ([("a", "here"), ("b", "there")], NODE, [0], Topology.NODE),
        ([("b", "here"), ("a", "there")], NODE, [0], Topology.NODE),
        ([("b", "there"), ("a", "there")], NODE, [1], Topology.ZONE),
        ([("a", "here"), ("b", "")], NODE, [0], Topology.ZONE),
        ([("", "here"), ("", "")], NODE, [0, 1], Topology.CLUSTER),
    ],
)
def test_hints(
    endpoints: list[tuple[str, str]], node: NodeView, expected: list[int], topology: Topology
) -> None:
    found = [
        endpoint(
            f"10.0.0.{index}",
            zones=[f"zone-{zone}"] if zone else [],
            nodes=[hinted] if hinted else [],
        )
        for index, (zone, hinted) in enumerate(endpoints)
    ]
    choice = chosen(found, node)
    assert hosts(choice.cluster) == expected
    assert choice.topology is topology


def test_an_unready_endpoint_without_hints_does_not_switch_hints_off() -> None:
    found = [
        endpoint("10.0.0.1", zones=["zone-a"]),
        endpoint("10.0.0.2", zones=["zone-b"]),
        unready("10.0.0.3"),
    ]
    assert hosts(chosen(found).cluster) == [1]


def test_hints_never_narrow_the_local_list() -> None:
    found = [endpoint("10.0.0.1", "here", zones=["zone-b"]), endpoint("10.0.0.2", "there", zones=["zone-a"])]
    choice = chosen(found, externalTrafficPolicy="Local", **EXTERNAL)
    assert hosts(choice.cluster) == [2]
    assert hosts(choice.local) == [1]


def test_hints_are_ignored_when_only_draining_endpoints_are_left() -> None:
    found = [draining("10.0.0.1"), draining("10.0.0.2")]
    found[0]["hints"] = {"forZones": [{"name": "zone-b"}]}
    assert hosts(chosen(found).cluster) == [1, 2]


def test_the_entry_that_is_not_terminating_wins() -> None:
    address = ip_address("10.0.0.1")
    going = Endpoint(address, 80, ready=False, serving=True, terminating=True)
    staying = Endpoint(address, 80)
    assert merge_endpoints([[going], [staying]]) == (staying,)
    assert merge_endpoints([[staying], [going]]) == (staying,)


ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        address=st.integers(0, 9).map(lambda host: ip_address(0x0A000000 + host)),
        port=st.sampled_from([80, 81]),
        ready=st.booleans(),
        serving=st.booleans(),
        terminating=st.booleans(),
        node=st.sampled_from(["", "here", "there"]),
        zone_hints=st.frozensets(st.sampled_from(["zone-a", "zone-b"])),
        node_hints=st.frozensets(st.sampled_from(["here", "there"])),
    ),
    max_size=8,
)
PORTS = st.builds(
    ServicePort,
    name=st.just(ServicePortName("ns", "svc", "", "TCP")),
    family=st.just("IPv4"),
    cluster_ip=st.just(ip_address("172.30.0.1")),
    port=st.just(80),
    node_port=st.sampled_from([0, 3001]),
    internal_policy=st.sampled_from(TrafficPolicy),
    external_policy=st.sampled_from(TrafficPolicy),
)


@given(port=PORTS, raw=ENDPOINTS, node=st.sampled_from([NODE, NodeView("here"), NodeView("there", "zone-b")]))
def test_invariants_of_the_choice(port: ServicePort, raw: list[Endpoint], node: NodeView) -> None:
    found = merge_endpoints([raw])
    choice = choose(port, found, node)
    ready = {item for item in found if item.ready}
    usable = {item for item in found if item.usable}
    assert choice.has_any == bool(usable)
    # One list never mixes ready and draining endpoints, and every listed endpoint is usable.
    for group in (choice.cluster, choice.local):
        assert set(group) <= usable
        assert len({item.ready for item in group}) <= 1
    assert bool(choice.cluster) == (bool(usable) and port.uses_cluster_list)
    assert all(item.node == node.name for item in choice.local)
    if port.uses_local_list:
        here = {item for item in usable if item.node == node.name}
        assert set(choice.local) == ({item for item in here if item in ready} or here)
    else:
        assert choice.local == ()
    assert set(choice.reachable) == {*choice.cluster, *choice.local}
    assert len(choice.reachable) == len(set(choice.reachable))
    # Without hints for this node or zone the cluster list is all of the ready ones.
    if choice.topology is Topology.CLUSTER and port.uses_cluster_list and ready:
        assert set(choice.cluster) == ready
    # Readiness alone decides over hints: dropping the unready changes nothing of the cluster list.
    if ready:
        assert choose(port, tuple(item for item in found if item.ready), node).cluster == choice.cluster


@given(raw=ENDPOINTS)
def test_merging_keeps_each_target_once_in_order(raw: list[Endpoint]) -> None:
    merged = merge_endpoints([raw[:3], raw[3:]])
    targets = [item.target for item in merged]
    assert targets == sorted({item.target for item in raw})
    for item in merged:
        entries = [other for other in raw if other.target == item.target]
        assert item in entries
        assert item.terminating == all(other.terminating for other in entries)
