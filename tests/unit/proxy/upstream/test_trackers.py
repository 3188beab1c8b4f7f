"""What becomes of Services and slices, as in upstream's `TestServiceToServiceMap`, `TestBuildServiceMap*`,
`TestUpdateEndpointsMap`, `TestEndpointSliceUpdate`, `TestGetLocalEndpointIPs` and `TestLastChangeTriggerTime`
(pkg/proxy/servicechangetracker_test.go, endpointschangetracker_test.go).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.proxy import Object, draining, endpoint, service, slice_of, unready
from unit.proxy.upstream.world import NODE, balanced

from netkit.proxy.addresses import Family, parse_address, parse_network
from netkit.proxy.conntrack import concerns_udp
from netkit.proxy.health.service_health import ServiceHealth
from netkit.proxy.services import ServicePort, service_ports
from netkit.proxy.state import Changes, ProxyState

V4, V6 = Family.IPV4, Family.IPV6


def port(name: str, protocol: str, number: int, node_port: int = 0) -> Object:
    return {
        "name": name,
        "protocol": protocol,
        "port": number,
        **({"nodePort": node_port} if node_port else {}),
    }


# Services


@dataclass(frozen=True)
class Ports:
    """What all ports of a Service have in common."""

    cluster_ip: str
    numbers: Mapping[str, int]
    balancers: Sequence[str] = ()
    external_ips: Sequence[str] = ()
    ranges: Sequence[str] = ()
    health: int = 0

    def same(self, found: Sequence[ServicePort]) -> None:
        assert {f"{item.name.port}/{item.protocol}": item.port for item in found} == dict(self.numbers)
        for item in found:
            assert item.cluster_ip == parse_address(self.cluster_ip)
            assert item.load_balancer_ips == tuple(map(parse_address, self.balancers))
            assert item.external_ips == tuple(map(parse_address, self.external_ips))
            assert item.source_ranges == tuple(map(parse_network, self.ranges))
            assert item.health_check_port == self.health


IP4, OUTER4, RANGE4 = "10.0.0.1", "8.8.8.8", "0.0.0.0/1"
IP6, OUTER6, RANGE6 = "2001:db8:85a3:0:0:8a2e:370:7334", "2001:db8:85a3:0:0:8a2e:370:7335", "2001:db8::/32"
BALANCED = (port("port3", "UDP", 8675, 30061), port("port4", "UDP", 8676, 30062))
TEST_PORT = [port("testPort", "TCP", 12345)]
BOTH = [{"ip": OUTER4}, {"ip": OUTER6}]


def with_mode(mode: str | None) -> Object:
    ingress = {"ip": "10.1.2.4", **({"ipMode": mode} if mode else {})}
    return service("ns1/load-balancer", "172.16.55.11", BALANCED, type="LoadBalancer", ingress=[ingress])


def dual(cluster_ip: str, external: Sequence[str] = (), ranges: Sequence[str] = ()) -> Object:
    spec: dict[str, Any] = {"externalIPs": list(external), "loadBalancerSourceRanges": list(ranges)}
    return service("test/dual", cluster_ip, TEST_PORT, ingress=BOTH, **spec)


_NUMBERS = {"port3/UDP": 8675, "port4/UDP": 8676}
_CAPTURED = Ports("172.16.55.11", _NUMBERS, ["10.1.2.4"])
_LOCAL = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 345}
_TEST = {"testPort/TCP": 12345}
SERVICES: Mapping[str, tuple[Object, Family, Ports | None]] = {
    "headless": (service("ns2/headless", "None", [port("rpc", "UDP", 1234)]), V4, None),
    "headless SCTP": (service("ns2/headless", "None", [port("sip", "SCTP", 7777)]), V4, None),
    "headless without port": (service("ns2/headless-without-port", "None", []), V4, None),
    "cluster IP": (
        service("ns2/cluster-ip", "172.16.55.4", [port("p1", "UDP", 1234), port("p2", "UDP", 1235)]),
        V4,
        Ports("172.16.55.4", {"p1/UDP": 1234, "p2/UDP": 1235}),
    ),
    "node ports": (
        service(
            "ns2/node-port",
            "172.16.55.10",
            [port("port1", "UDP", 345, 678), port("port2", "TCP", 344, 677)],
            type="NodePort",
        ),
        V4,
        Ports("172.16.55.10", {"port1/UDP": 345, "port2/TCP": 344}),
    ),
    "load balancer": (with_mode(None), V4, _CAPTURED),
    "load balancer VIP": (with_mode("VIP"), V4, _CAPTURED),
    "load balancer Proxy": (with_mode("Proxy"), V4, Ports("172.16.55.11", _NUMBERS)),
    "load balancer Local": (
        balanced("ns1/only-local", "172.16.55.12", [port("x", "UDP", 8677, 30063)], "10.1.2.3", **_LOCAL),
        V4,
        Ports("172.16.55.12", {"x/UDP": 8677}, ["10.1.2.3"], health=345),
    ),
    "external name": (
        service("ns2/external-name", "172.16.55.4", [port("portz", "UDP", 1235)], type="ExternalName"),
        V4,
        None,
    ),
    "of IPv6, in IPv4": (dual(IP6), V4, None),
    "of IPv4, in IPv6": (dual(IP4), V6, None),
    "IPv4": (dual(IP4, [OUTER4], [RANGE4]), V4, Ports(IP4, _TEST, [OUTER4], [OUTER4], [RANGE4])),
    "IPv6": (dual(IP6, [OUTER6], [RANGE6]), V6, Ports(IP6, _TEST, [OUTER6], [OUTER6], [RANGE6])),
    "both, in IPv4": (
        dual(IP4, [OUTER4, OUTER6], [RANGE4, RANGE6]),
        V4,
        Ports(IP4, _TEST, [OUTER4], [OUTER4], [RANGE4]),
    ),
    "both, in IPv6": (
        dual(IP6, [OUTER4, OUTER6], [RANGE4, RANGE6]),
        V6,
        Ports(IP6, _TEST, [OUTER6], [OUTER6], [RANGE6]),
    ),
    "space in a range": (
        service("test/extra-space", IP4, TEST_PORT, loadBalancerSourceRanges=[" 10.1.2.0/28"]),
        V4,
        Ports(IP4, _TEST, ranges=["10.1.2.0/28"]),
    ),
}


@pytest.mark.parametrize(("made", "family", "expected"), SERVICES.values(), ids=SERVICES)
def test_ports_of_a_service(made: Object, family: Family, expected: Ports | None) -> None:
    found = service_ports(made, family)
    if expected is None:
        assert found == ()
    else:
        expected.same(found)


def health_ports(state: ProxyState) -> dict[str, int]:
    """As a health server that has seen all ports finds them."""
    health = ServiceHealth(NODE)
    health.take(state, Changes(frozenset(item.name for item in state.ports()), frozenset()))
    return {"/".join(key): number for key, number in health.ports().items()}


def changed_services(changes: Changes) -> set[str]:
    return {f"{name.namespace}/{name.name}" for name in changes.updated | changes.removed}


def collected(state: ProxyState) -> Changes:
    changes = state.collect()
    state.mark_synced()
    return changes


def test_services_come_and_go() -> None:
    state = ProxyState(V4)
    first = service("ns2/cluster-ip", "172.16.55.4", [port("port1", "UDP", 1234), port("port2", "UDP", 1235)])
    second = service(
        "ns2/node-port",
        "172.16.55.10",
        [port("port1", "UDP", 345, 678), port("port2", "TCP", 344, 677)],
        type="NodePort",
    )
    third = balanced(
        "ns1/load-balancer",
        "172.16.55.11",
        [port("foobar", "UDP", 8675, 30061), port("baz", "UDP", 8676, 30062)],
        "10.1.2.4",
    )
    fourth = balanced(
        "ns1/only-local-load-balancer",
        "172.16.55.12",
        [port("foobar2", "UDP", 8677, 30063), port("baz", "UDP", 8678, 30064)],
        "10.1.2.3",
        **_LOCAL,
    )
    for item in (first, second, third, fourth):
        state.upsert_service(item)
    names = {"ns2/cluster-ip", "ns2/node-port", "ns1/load-balancer", "ns1/only-local-load-balancer"}
    assert changed_services(collected(state)) == names
    assert len(list(state.ports())) == 8
    assert health_ports(state) == {"ns1/only-local-load-balancer": 345}
    state.upsert_service(service("ns2/cluster-ip", "172.16.55.4", [port("p2", "UDP", 1235)]))
    for name in names - {"ns2/cluster-ip"}:
        state.delete_service(*name.split("/"))
    assert changed_services(collected(state)) == names
    assert len(list(state.ports())) == 1
    assert health_ports(state) == {}


def test_a_service_changes_its_type_and_back() -> None:
    state = ProxyState(V4)
    ports = [port("p1", "UDP", 1234, 4321), port("p2", "TCP", 1235, 5321)]
    plain = service("ns1/svc1", "172.16.55.4", ports)
    exposed = balanced("ns1/svc1", "172.16.55.4", ports, "10.1.2.3", **_LOCAL)
    for item, changed, health in (
        (plain, {"ns1/svc1"}, {}),
        (exposed, {"ns1/svc1"}, {"ns1/svc1": 345}),
        (exposed, set(), {"ns1/svc1": 345}),
        (plain, {"ns1/svc1"}, {}),
    ):
        state.upsert_service(item)
        assert changed_services(collected(state)) == changed
        assert len(list(state.ports())) == 2
        assert health_ports(state) == health


# Slices


def pods(*addresses: str) -> list[Object]:
    """Endpoints; those with a star are on this node, with a tilde they are leaving."""
    found = []
    for text in addresses:
        node = NODE if "*" in text else ""
        address = text.strip("*~")
        found.append(draining(address, node) if "~" in text else endpoint(address, node))
    return found


def part(suffix: int, ports: Mapping[str, int], *addresses: str, name: str = "ns1/ep1") -> Object:
    numbers = [port(key, "UDP", number) for key, number in ports.items()]
    return slice_of(name, *pods(*addresses), suffix=str(suffix), ports=numbers)


Known = Mapping[str, Sequence[str]]
"""By `namespace/name:port` the endpoints, with a star where they are here."""


@dataclass(frozen=True)
class Step:
    """Slices before and after. `cleanup`: flows of UDP have to be looked at. `here`: ready addresses on this node."""

    before: Sequence[Object]
    after: Sequence[Object]
    known: Known
    cleanup: bool = True
    here: Mapping[str, int] = field(default_factory=dict)


def _one(*addresses: str, **ports: int) -> Object:
    return part(1, {key.replace("_", "-"): number for key, number in ports.items()}, *addresses)


_SEVERAL = (
    part(1, {"p11": 11, "p12": 12}, "10.1.1.1", "10.1.1.2*"),
    part(2, {"p13": 13, "p14": 14}, "10.1.1.3", "10.1.1.4*"),
    part(1, {"p21": 21, "p22": 22}, "10.2.2.1", "10.2.2.2*", name="ns2/ep2"),
)
_SEVERAL_KNOWN = {
    "ns1/ep1:p11": ["10.1.1.1:11", "10.1.1.2:11*"],
    "ns1/ep1:p12": ["10.1.1.1:12", "10.1.1.2:12*"],
    "ns1/ep1:p13": ["10.1.1.3:13", "10.1.1.4:13*"],
    "ns1/ep1:p14": ["10.1.1.3:14", "10.1.1.4:14*"],
    "ns2/ep2:p21": ["10.2.2.1:21", "10.2.2.2:21*"],
    "ns2/ep2:p22": ["10.2.2.1:22", "10.2.2.2:22*"],
}
_LOCAL_PORT = _one("10.1.1.1*", p11=11)
_TWO_PORTS = _one("10.1.1.1", "10.1.1.2*", p11=11, p12=12)
_TWO_PORTS_KNOWN = {
    "ns1/ep1:p11": ["10.1.1.1:11", "10.1.1.2:11*"],
    "ns1/ep1:p12": ["10.1.1.1:12", "10.1.1.2:12*"],
}
_PLAIN = _one("10.1.1.1", p11=11)
_PLAIN_KNOWN = {"ns1/ep1:p11": ["10.1.1.1:11"]}
_SECOND, _SECOND_LOCAL = part(2, {"p12": 12}, "10.1.1.2"), part(2, {"p12": 12}, "10.1.1.2*")
_PARTS_LOCAL = (
    part(1, {"p11": 11, "p12": 12}, "10.1.1.1*"),
    part(2, {"p13": 13}, "10.1.1.3"),
)
STEPS: Mapping[str, Step] = {
    "nothing": Step([], [], {}, cleanup=False),
    "no change, local": Step(
        [_LOCAL_PORT], [_LOCAL_PORT], {"ns1/ep1:p11": ["10.1.1.1:11*"]}, cleanup=False, here={"ns1/ep1": 1}
    ),
    "no change, two slices": Step(
        [_PLAIN, _SECOND],
        [_PLAIN, _SECOND],
        {**_PLAIN_KNOWN, "ns1/ep1:p12": ["10.1.1.2:12"]},
        cleanup=False,
    ),
    "no change, several ports, local": Step(
        _PARTS_LOCAL,
        _PARTS_LOCAL,
        {
            "ns1/ep1:p11": ["10.1.1.1:11*"],
            "ns1/ep1:p12": ["10.1.1.1:12*"],
            "ns1/ep1:p13": ["10.1.1.3:13"],
        },
        cleanup=False,
        here={"ns1/ep1": 1},
    ),
    "no change, several of all": Step(
        _SEVERAL, _SEVERAL, _SEVERAL_KNOWN, cleanup=False, here={"ns1/ep1": 2, "ns2/ep2": 1}
    ),
    "added": Step([], [_LOCAL_PORT], {"ns1/ep1:p11": ["10.1.1.1:11*"]}, here={"ns1/ep1": 1}),
    "removed": Step([_LOCAL_PORT], [], {}),
    "address and port added": Step([_PLAIN], [_TWO_PORTS], _TWO_PORTS_KNOWN, here={"ns1/ep1": 1}),
    "address and port removed": Step([_TWO_PORTS], [_PLAIN], _PLAIN_KNOWN),
    "slice added": Step(
        [_PLAIN],
        [_PLAIN, _SECOND_LOCAL],
        {**_PLAIN_KNOWN, "ns1/ep1:p12": ["10.1.1.2:12*"]},
        here={"ns1/ep1": 1},
    ),
    "slice removed": Step([_PLAIN, _SECOND], [_PLAIN], _PLAIN_KNOWN),
    "port renamed": Step([_PLAIN], [_one("10.1.1.1", p11_2=11)], {"ns1/ep1:p11-2": ["10.1.1.1:11"]}),
    "port renumbered": Step([_PLAIN], [_one("10.1.1.1", p11=22)], {"ns1/ep1:p11": ["10.1.1.1:22"]}),
    "much at once": Step(
        [
            _PLAIN,
            part(1, {"p22": 22}, "10.2.2.2*", "10.2.2.22*", name="ns2/ep2"),
            part(2, {"p23": 23}, "10.2.2.3*", name="ns2/ep2"),
            part(1, {"p44": 44}, "10.4.4.4*", "10.4.4.5*", name="ns4/ep4"),
            part(2, {"p45": 45}, "10.4.4.6*", name="ns4/ep4"),
        ],
        [
            _one("10.1.1.1", "10.1.1.11", p11=11),
            part(2, {"p12": 12, "p122": 122}, "10.1.1.2"),
            part(1, {"p33": 33}, "10.3.3.3", name="ns3/ep3"),
            part(1, {"p44": 44}, "10.4.4.4*", name="ns4/ep4"),
        ],
        {
            # Ordered by their texts, in which a digit comes before a colon.
            "ns1/ep1:p11": ["10.1.1.11:11", "10.1.1.1:11"],
            "ns1/ep1:p12": ["10.1.1.2:12"],
            "ns1/ep1:p122": ["10.1.1.2:122"],
            "ns3/ep3:p33": ["10.3.3.3:33"],
            "ns4/ep4:p44": ["10.4.4.4:44*"],
        },
        here={"ns4/ep4": 1},
    ),
    "from no address to an unnamed port": Step(
        [part(1, {})], [part(1, {"": 11}, "10.1.1.1")], {"ns1/ep1": ["10.1.1.1:11"]}
    ),
    "from ready to leaving": Step(
        [part(1, {"": 11}, "10.1.1.1")], [part(1, {"": 11}, "~10.1.1.1")], {"ns1/ep1": ["10.1.1.1:11"]}
    ),
    "from leaving to gone": Step([part(1, {"": 11}, "~10.1.1.1")], [part(1, {"": 11})], {}),
}


def _services(*slices: Object) -> list[Object]:
    """The Services of all slices, with all their ports, health checked."""
    names: dict[str, dict[str, Object]] = {}
    for item in slices:
        name = item["metadata"]["labels"]["kubernetes.io/service-name"]
        known = names.setdefault(f"{item['metadata']['namespace']}/{name}", {})
        known.update({found["name"]: port(found["name"], "UDP", found["port"]) for found in item["ports"]})
    return [
        balanced(name, f"172.30.9.{index}", list(ports.values()), "1.2.3.4", **_LOCAL)
        for index, (name, ports) in enumerate(names.items(), 1)
    ]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_endpoints_of_slices(step: Step) -> None:
    state, health = ProxyState(V4), ServiceHealth(NODE)
    for item in (*_services(*step.before, *step.after), *step.before):
        take = state.upsert_service if item["kind"] == "Service" else state.upsert_slice
        take(item)
    health.take(state, collected(state))
    gone = {_key(item) for item in step.before} - {_key(item) for item in step.after}
    for namespace, name in gone:
        state.delete_slice(namespace, name)
    for item in step.after:
        state.upsert_slice(item)
    changes = collected(state)
    health.take(state, changes)
    assert concerns_udp(changes) == step.cleanup
    known = {
        str(item.name): [found.target + "*" * (found.node == NODE) for found in state.endpoints(item.name)]
        for item in state.ports()
        if state.endpoints(item.name)
    }
    assert known == dict(step.known)
    here = {"/".join(key): number for key in health.ports() if (number := health.local_endpoints(key))}
    assert here == dict(step.here)


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def test_only_ready_addresses_here_count_each_once() -> None:
    numbers = {"p22": 22, "p23": 23}
    made = [
        part(1, numbers, "2.2.2.2*", "2.2.2.22*", "~2.2.2.3*", "2.2.2.4", name="ns2/ep2"),
        part(1, numbers, "~4.4.4.4*", "~4.4.4.5*", name="ns4/ep4"),
    ]
    state, health = ProxyState(V4), ServiceHealth(NODE)
    for item in _services(*made):
        state.upsert_service(item)
    for item in made:
        state.upsert_slice(item)
    health.take(state, collected(state))
    assert health.local_endpoints(("ns2", "ep2")) == 2
    assert health.local_endpoints(("ns4", "ep4")) == 0


PORTS = ({"name": "port-0", "port": 80}, {"name": "port-1", "port": 443})


def generated(
    number: int, count: int, *, here: Callable[[int], bool], suffix: int = 0, **made: Any
) -> Object:
    """A slice of endpoints 10.0.NUMBER.1 and so on, of which some are here."""
    ports = made.pop("ports", PORTS)
    address_type = made.pop("address_type", "IPv4")
    kind = made.pop("kind", endpoint)
    found = [
        kind(f"10.0.{number}.{index}", NODE if here(index) else "host2") for index in range(1, count + 1)
    ]
    return slice_of("ns1/svc1", *found, suffix=str(suffix or number), ports=ports, address_type=address_type)


def every(_: int) -> bool:
    return True


def second(index: int) -> bool:
    return index % 2 == 0


FIRST3, SECOND2 = generated(1, 3, here=second), generated(2, 2, here=second)
UPDATES: Mapping[str, tuple[Sequence[Object], Object, bool, Mapping[str, Sequence[str]] | None]] = {
    # What was known, the slice that comes (or goes, if True), and the last numbers of what each port has then.
    "first": ([], FIRST3, False, {"port-0": ["1.1", "1.2", "1.3"], "port-1": ["1.1", "1.2", "1.3"]}),
    "the same": ([FIRST3], FIRST3, False, None),
    "host names": ([FIRST3], generated(2, 5, here=every, address_type="FQDN"), False, None),
    "longer": (
        [FIRST3, SECOND2],
        generated(1, 5, here=every),
        False,
        {name: ["1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2"] for name in ("port-0", "port-1")},
    ),
    "overlapping, one port": (
        [FIRST3, SECOND2],
        generated(1, 5, here=every, suffix=3, ports=PORTS[:1]),
        False,
        {
            "port-0": ["1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2"],
            "port-1": ["1.1", "1.2", "1.3", "2.1", "2.2"],
        },
    ),
    "removed": ([FIRST3, SECOND2], FIRST3, True, {"port-0": ["2.1", "2.2"], "port-1": ["2.1", "2.2"]}),
    "removed, not known": ([FIRST3, SECOND2], generated(3, 5, here=every), True, None),
    "all not ready": (
        [FIRST3],
        generated(1, 3, here=every, kind=unready),
        False,
        {name: ["1.1", "1.2", "1.3"] for name in ("port-0", "port-1")},
    ),
    "all ready": (
        [generated(1, 2, here=second, kind=unready)],
        generated(1, 2, here=every),
        False,
        {name: ["1.1", "1.2"] for name in ("port-0", "port-1")},
    ),
}


@pytest.mark.parametrize(("known", "slice_", "removed", "expected"), UPDATES.values(), ids=UPDATES)
def test_a_slice_is_a_change_only_if_it_differs(
    known: Sequence[Object], slice_: Object, removed: bool, expected: Mapping[str, Sequence[str]] | None
) -> None:
    state = ProxyState(V4)
    state.upsert_service(service("ns1/svc1", "172.30.0.41", PORTS))
    for item in known:
        state.upsert_slice(item)
    collected(state)
    if removed:
        state.delete_slice(*_key(slice_))
    else:
        state.upsert_slice(slice_)
    assert state.pending == (expected is not None)
    changes = collected(state)
    assert bool(changes) == (expected is not None)
    if expected is not None:
        found = {
            item.name.port: [str(one.address).removeprefix("10.0.") for one in state.endpoints(item.name)]
            for item in state.ports()
        }
        assert found == dict(expected)


def test_of_an_endpoint_in_two_slices_the_running_one_counts() -> None:
    """As from 1.35 on: pods may get an address of which the last owner is not quite gone."""
    for order in (("a", "b"), ("b", "a")):
        state = ProxyState(V4)
        state.upsert_service(service("ns1/svc1", "172.30.0.41", PORTS[:1]))
        for suffix, made in zip(
            order, (draining("10.0.1.1", NODE), endpoint("10.0.1.1", "host2")), strict=True
        ):
            state.upsert_slice(slice_of("ns1/svc1", made, suffix=suffix, ports=PORTS[:1]))
        state.collect()
        (found,) = state.ports()
        assert [(one.ready, one.node) for one in state.endpoints(found.name)] == [(True, "host2")]


# The times by which network programming is measured. What is older than the process is left out by the loop.

START = datetime(2018, 1, 1, tzinfo=UTC)
T0, T1, T2, T3 = (START + timedelta(seconds=number) for number in (1, 2, 3, 4))


def stamped(name: str, moment: datetime | None, number: int = 11) -> Object:
    annotations = {}
    if moment is not None:
        annotations["endpoints.kubernetes.io/last-change-trigger-time"] = moment.isoformat().replace(
            "+00:00", "Z"
        )
    ports = [{"name": "p11", "port": number}]
    return slice_of(f"ns/{name}", "1.1.1.1", ports=ports, annotations=annotations)


GONE = "gone"
TRIGGERS: Mapping[str, tuple[Sequence[Object | str], Sequence[datetime]]] = {
    "added": ([stamped("ep1", T0)], [T0]),
    "added and changed": ([stamped("ep1", T0), stamped("ep1", T1, 12)], [T0, T1]),
    "two added, one changed": (
        [stamped("ep1", T1), stamped("ep2", T2), stamped("ep1", T3, 12)],
        [T1, T2, T3],
    ),
    "without annotation": ([stamped("ep1", None)], []),
    "added and deleted": ([stamped("ep1", T1), GONE], []),
    "added, deleted, added": ([stamped("ep1", T1), GONE, stamped("ep1", T2, 12)], [T2]),
    "deleted": ([GONE], []),
}


@pytest.mark.parametrize(("events", "expected"), TRIGGERS.values(), ids=TRIGGERS)
def test_times_of_changes(events: Sequence[Object | str], expected: Sequence[datetime]) -> None:
    state = ProxyState(V4)
    for event in events:
        if isinstance(event, str):
            state.delete_slice("ns", "ep1-a")
        else:
            state.upsert_slice(event)
    found = sorted(datetime.fromtimestamp(moment, UTC) for moment in state.collect().triggered)
    assert found == list(expected)
