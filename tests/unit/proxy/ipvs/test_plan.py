"""What one port needs: which addresses lead to which endpoints, and which sets know of it."""

from ipaddress import ip_address, ip_network

import pytest
from support.proxy import draining, endpoint, service, slice_of, state_of, unready

from netkit.kernel.ipvs_values import SOURCE_HASH_PORT
from netkit.proxy.choice import NodeView, choose
from netkit.proxy.ipvs.plan import NodeNetwork, PortPlan, plan_port

NODE = NodeView("here", addresses=(ip_address("192.168.0.2"),))
NETWORK = NodeNetwork(
    frozenset({ip_address("192.168.0.2"), ip_address("192.168.1.2")}), (ip_address("192.168.0.2"),)
)
HERE, THERE = endpoint("10.244.1.1", "here"), endpoint("10.244.2.1", "there")


def plan(
    *endpoints, scheduler: str = "rr", network: NodeNetwork = NETWORK, protocol: str = "TCP", **spec
) -> PortPlan:
    port = {"name": "p80", "port": 80, "protocol": protocol}
    if "nodePort" in spec:
        port["nodePort"] = spec.pop("nodePort")
    wanted = service(ports=[port], **spec)
    state = state_of(wanted, slice_of("ns1/svc1", *endpoints, ports=[{**port, "port": 8080}]))
    (found,) = state.ports()
    known = state.endpoints(found.name)
    return plan_port(found, known, choose(found, known, NODE), NODE, network, scheduler)


def leads_to(made: PortPlan) -> dict[str, set[str]]:
    return {
        str(one.server.key).split("/")[0]: {str(target.address) for target in one.targets}
        for one in made.servers
    }


def entries(made: PortPlan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for kind, entry in made.entries:
        found.setdefault(kind.name, set()).add(entry)
    return found


ALL = {"type": "LoadBalancer", "nodePort": 30001, "externalIPs": ["1.2.3.4"], "ingress": [{"ip": "5.6.7.8"}]}
INSIDE, OUTSIDE = "172.30.0.41:80", ("1.2.3.4:80", "5.6.7.8:80", "192.168.0.2:30001")
BOTH = {"10.244.1.1", "10.244.2.1"}


@pytest.mark.parametrize(
    ("internal", "external", "endpoints", "inside", "outside"),
    [
        ("Cluster", "Cluster", (HERE, THERE), BOTH, BOTH),
        ("Cluster", "Local", (HERE, THERE), BOTH, {"10.244.1.1"}),
        ("Local", "Cluster", (HERE, THERE), {"10.244.1.1"}, BOTH),
        ("Cluster", "Local", (THERE,), {"10.244.2.1"}, {"10.244.2.1"}),
        ("Local", "Local", (THERE,), {"10.244.2.1"}, {"10.244.2.1"}),
        ("Cluster", "Cluster", (), set(), set()),
        ("Cluster", "Cluster", (draining("10.244.1.1", "here"), unready("10.244.2.1")), {"10.244.1.1"}, {"10.244.1.1"}),
        ("Local", "Cluster", (draining("10.244.1.1", "here"), THERE), {"10.244.1.1"}, {"10.244.2.1"}),
    ],
)  # fmt: skip
def test_policies(internal: str, external: str, endpoints: tuple, inside: set, outside: set) -> None:
    made = plan(*endpoints, internalTrafficPolicy=internal, externalTrafficPolicy=external, **ALL)
    assert leads_to(made) == {INSIDE: inside, **dict.fromkeys(OUTSIDE, outside)}


def test_internal_local_of_a_service_without_outside_falls_back_to_nobody() -> None:
    assert leads_to(plan(THERE, internalTrafficPolicy="Local")) == {INSIDE: set()}


def test_sets_of_policy_cluster() -> None:
    assert entries(plan(HERE, THERE, **ALL)) == {
        "KUBE-LOOP-BACK": {"10.244.1.1,tcp:8080,10.244.1.1"},
        "KUBE-CLUSTER-IP": {"172.30.0.41,tcp:80"},
        "KUBE-EXTERNAL-IP": {"1.2.3.4,tcp:80"},
        "KUBE-LOAD-BALANCER": {"5.6.7.8,tcp:80"},
        "KUBE-NODE-PORT-TCP": {"30001"},
    }


def test_sets_of_policy_local() -> None:
    assert entries(plan(THERE, externalTrafficPolicy="Local", healthCheckNodePort=30100, **ALL)) == {
        "KUBE-CLUSTER-IP": {"172.30.0.41,tcp:80"},
        "KUBE-EXTERNAL-IP-LOCAL": {"1.2.3.4,tcp:80"},
        "KUBE-LOAD-BALANCER": {"5.6.7.8,tcp:80"},
        "KUBE-LOAD-BALANCER-LOCAL": {"5.6.7.8,tcp:80"},
        "KUBE-NODE-PORT-TCP": {"30001"},
        "KUBE-NODE-PORT-LOCAL-TCP": {"30001"},
        "KUBE-HEALTH-CHECK-NODE-PORT": {"30100"},
    }


def test_hairpin_counts_local_endpoints_in_any_condition() -> None:
    made = plan(unready("10.244.1.1", "here"), endpoint("10.244.1.2"))
    assert entries(made)["KUBE-LOOP-BACK"] == {"10.244.1.1,tcp:8080,10.244.1.1"}


@pytest.mark.parametrize(("ranges", "admitted"), [(["203.0.113.0/25"], False), (["192.168.0.0/24"], True)])
def test_source_ranges(ranges: list[str], admitted: bool) -> None:
    made = plan(HERE, loadBalancerSourceRanges=ranges, **ALL)
    found = entries(made)
    assert found["KUBE-LOAD-BALANCER-FW"] == {"5.6.7.8,tcp:80"}
    assert found["KUBE-LOAD-BALANCER-SOURCE-CIDR"] == {f"5.6.7.8,tcp:80,{ip_network(ranges[0])}"}
    assert found.get("KUBE-LOAD-BALANCER-SOURCE-IP", set()) == (
        {"5.6.7.8,tcp:80,5.6.7.8"} if admitted else set()
    )
    assert made.kept_from_node == (() if admitted else (ip_address("5.6.7.8"),))


def test_sctp_node_ports_are_known_by_address() -> None:
    made = plan(HERE, protocol="SCTP", externalTrafficPolicy="Local", **ALL)
    found = entries(made)
    assert (
        found["KUBE-NODE-PORT-SCTP-HASH"]
        == found["KUBE-NODE-PORT-LOCAL-SCTP-HASH"]
        == {"192.168.0.2,sctp:30001"}
    )


def test_without_node_addresses_there_are_no_node_ports() -> None:
    made = plan(HERE, network=NodeNetwork(), **ALL)
    assert "KUBE-NODE-PORT-TCP" not in entries(made)
    assert set(leads_to(made)) == {INSIDE, "1.2.3.4:80", "5.6.7.8:80"}


def test_addresses_of_the_node_are_not_bound() -> None:
    made = plan(
        HERE, externalIPs=["1.2.3.4", "192.168.1.2"], ingress=[{"ip": "192.168.0.2"}, {"ip": "5.6.7.8"}]
    )
    assert made.bound == {ip_address(text) for text in ("172.30.0.41", "1.2.3.4", "5.6.7.8")}


def test_one_address_twice_is_one_server() -> None:
    made = plan(HERE, externalIPs=["1.2.3.4"], ingress=[{"ip": "1.2.3.4"}])
    assert len(made.servers) == 2


def test_affinity_and_the_flags_of_mh() -> None:
    (one,) = plan(HERE, scheduler="mh", sessionAffinity="ClientIP").servers
    assert (one.server.persistence, one.server.flags) == (10800, SOURCE_HASH_PORT)
    (one,) = plan(HERE, scheduler="sh").servers
    assert (one.server.persistence, one.server.flags) == (0, 0)
