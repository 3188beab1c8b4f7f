"""What becomes of packets: facts of upstream's packet flow tests, which the iptables and the nftables mode share.

Of `TestNoEndpointsReject`, `TestClusterIPGeneral`, `TestLoadBalancer`, `TestNodePorts`, `TestExternalTrafficPolicy*`,
`TestInternalTrafficPolicy`, `TestTerminatingEndpointsTrafficPolicy*`, `TestInternalExternalMasquerade`,
`TestHealthCheckNodePort` (pkg/proxy/{iptables,nftables}/proxier_test.go). Where the modes differ, a row says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from support.proxy import Object, draining, endpoint, service, slice_of
from unit.proxy.upstream.world import (
    NO_DETECTOR,
    NODE,
    NODE_EXTERNAL_IP,
    NODE_IP,
    NODE_IP6,
    OTHER_NODE_IP,
    OTHER_NODE_IP6,
    OUTSIDE,
    OUTSIDE6,
    OUTSIDE_BLOCKED,
    POD,
    POD6,
    balanced,
    tcp,
)

from netkit.proxy.addresses import Family
from netkit.proxy.settings import ProxyMode

REJECT, DROP, ACCEPT, NOTHING = "REJECT", "DROP", "ACCEPT", ""


@dataclass(frozen=True)
class Row:
    """A packet, the endpoints it may be sent to (or a verdict, or nothing), and whether its source is rewritten."""

    source: str
    target: str
    port: int
    output: str
    masqueraded: bool = False
    protocol: str = "tcp"
    only: ProxyMode | None = None


@dataclass(frozen=True)
class Case:
    """Objects on the test node, and what packets meet there. `settings` are changes of the proxy's."""

    objects: Sequence[Object]
    rows: Sequence[Row]
    settings: Mapping[str, Any] = field(default_factory=dict)
    family: Family = Family.IPV4
    only: ProxyMode | None = None


IPTABLES, NFTABLES = ProxyMode.IPTABLES, ProxyMode.NFTABLES
TWO: Final = "10.180.0.1:80, 10.180.2.1:80"
LOCAL: Final = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30000}
HERE_AND_THERE: Final = slice_of("ns1/svc1", "10.180.0.1", endpoint("10.180.2.1", NODE))


def everywhere(**spec: Any) -> Object:
    """A Service with a node port, a balancer's address and an external IP that is the node's own as well."""
    spec = {"externalIPs": [NODE_EXTERNAL_IP], **spec}
    return balanced("ns1/svc1", "172.30.0.41", tcp(80, 3001), "1.2.3.4", **spec)


def external_rows(pod: tuple[str, bool], outside: tuple[str, bool]) -> list[Row]:
    """Pods and others call each external address; which endpoints they reach, and whether masqueraded."""
    rows = [Row(POD, "172.30.0.41", 80, TWO)]
    for target, port in ((NODE_EXTERNAL_IP, 80), ("1.2.3.4", 80), (NODE_IP, 3001)):
        rows += [Row(POD, target, port, *pod), Row(OUTSIDE, target, port, *outside)]
    return rows


_DNS_PORTS: Final = [
    {"name": "http", "port": 80},
    {"name": "https", "port": 443, "targetPort": 8443},
    {"name": "dns-udp", "port": 53, "protocol": "UDP"},
    {"name": "dns-tcp", "port": 53, "targetPort": 5353},
    {"name": "dns-sctp", "port": 53, "protocol": "SCTP"},
]
_DNS_TARGETS: Final = [
    {"name": "http", "port": 80},
    {"name": "https", "port": 8443},
    {"name": "dns-udp", "port": 53, "protocol": "UDP"},
    {"name": "dns-tcp", "port": 5353},
    {"name": "dns-sctp", "port": 53, "protocol": "SCTP"},
]

CASES: dict[str, Case] = {
    "no endpoints": Case(
        [everywhere()],
        [
            Row(POD, "172.30.0.41", 80, REJECT),
            Row(OUTSIDE, NODE_EXTERNAL_IP, 80, REJECT),
            Row(POD, NODE_IP, 3001, REJECT),
            Row(OUTSIDE, NODE_IP, 3001, REJECT),
            Row(POD, "1.2.3.4", 80, REJECT),
            Row(OUTSIDE, "1.2.3.4", 80, REJECT),
        ],
    ),
    "cluster IPs": Case(
        [
            service("ns1/svc1", "172.30.0.41", [{"name": "http", "port": 80}]),
            service("ns2/svc2", "172.30.0.42", _DNS_PORTS),
            slice_of("ns1/svc1", endpoint("10.180.0.1", NODE), ports=[{"name": "http", "port": 80}]),
            slice_of(
                "ns2/svc2",
                endpoint("10.180.0.1", NODE),
                endpoint("10.180.2.1", "node2"),
                ports=_DNS_TARGETS,
            ),
        ],
        [
            Row("10.180.0.2", "172.30.0.41", 80, "10.180.0.1:80"),
            Row("10.180.0.1", "172.30.0.41", 80, "10.180.0.1:80", True),
            Row("10.180.0.2", "172.30.0.42", 80, TWO),
            Row("10.180.0.2", "172.30.0.42", 443, "10.180.0.1:8443, 10.180.2.1:8443"),
            Row("10.180.0.2", "172.30.0.42", 53, "10.180.0.1:5353, 10.180.2.1:5353"),
            Row("10.180.0.2", "172.30.0.42", 53, "10.180.0.1:53, 10.180.2.1:53", protocol="udp"),
            Row("10.180.0.2", "172.30.0.42", 53, "10.180.0.1:53, 10.180.2.1:53", protocol="sctp"),
            Row("10.180.0.2", "172.30.0.42", 80, NOTHING, protocol="udp", only=IPTABLES),
            Row("10.180.0.2", "172.30.0.41", 443, NOTHING, only=IPTABLES),
            Row("10.180.0.2", "172.30.0.42", 80, REJECT, protocol="udp", only=NFTABLES),
            Row("10.180.0.2", "172.30.0.41", 443, REJECT, only=NFTABLES),
            Row("10.180.0.2", "172.30.0.50", 80, DROP, only=NFTABLES),
        ],
    ),
    "source ranges": Case(
        [
            balanced(
                "ns1/svc1",
                "172.30.0.41",
                tcp(80, 3001),
                "1.2.3.4",
                "5.6.7.8",
                loadBalancerSourceRanges=["192.168.0.0/24", " 203.0.113.0/25"],
            ),
            slice_of("ns1/svc1", "10.180.0.1"),
        ],
        [
            Row(POD, "172.30.0.41", 80, "10.180.0.1:80"),
            Row(OUTSIDE, NODE_IP, 3001, "10.180.0.1:80", True),
            Row(OUTSIDE_BLOCKED, NODE_IP, 3001, "10.180.0.1:80", True),
            *(
                row
                for address in ("1.2.3.4", "5.6.7.8")
                for row in (
                    Row(OUTSIDE, address, 80, "10.180.0.1:80", True),
                    Row(OUTSIDE_BLOCKED, address, 80, DROP),
                    Row(POD, address, 80, DROP),
                    Row(NODE_IP, address, 80, "10.180.0.1:80", True),
                    # The node talks to an address that it owns from that address, and it is in the ranges.
                    Row(address, address, 80, "10.180.0.1:80", True),
                )
            ),
        ],
    ),
    "external Local": Case(
        [everywhere(**LOCAL), HERE_AND_THERE], external_rows((TWO, False), ("10.180.2.1:80", False))
    ),
    "external Cluster": Case(
        [everywhere(externalTrafficPolicy="Cluster"), HERE_AND_THERE], external_rows((TWO, True), (TWO, True))
    ),
    "health check port": Case(
        [balanced("ns1/svc1", "172.30.0.42", tcp(80, 3001), **LOCAL)],
        [Row("1.2.3.4", NODE_IP, 30000, ACCEPT)],
        {"node_port_addresses": ("127.0.0.0/8",)},
        only=IPTABLES,
    ),
    "no health check port": Case(
        [], [Row("1.2.3.4", NODE_IP, 30000, NOTHING)], {"node_port_addresses": ("127.0.0.0/8",)}
    ),
}


def _node_ports(family: Family, *, other: bool, loopback: str | None) -> list[Row]:
    """Calls of a node port: on the node's second address if `other`, and on loopback (None: not asked)."""
    if family is Family.IPV4:
        node, second, pod, outside, host = NODE_IP, OTHER_NODE_IP, POD, OUTSIDE, "127.0.0.1"
        cluster_ip, output = "172.30.0.41", TWO
    else:
        node, second, pod, outside, host = NODE_IP6, OTHER_NODE_IP6, POD6, OUTSIDE6, "::1"
        cluster_ip, output = "fd00:172:30::41", "[fd00:10:180::1]:80, [fd00:10:180::2:1]:80"
    rows = [
        Row(pod, cluster_ip, 80, output),
        Row(outside, node, 3001, output, True),
        Row(node, node, 3001, output, True),
        Row(outside, second, 3001, output if other else NOTHING, other),
    ]
    if loopback is not None:
        rows.append(Row(host, host, 3001, output if loopback else NOTHING, bool(loopback)))
    return rows


def _node_port_objects(family: Family) -> list[Object]:
    if family is Family.IPV4:
        found = service("ns1/svc1", "172.30.0.41", tcp(80, 3001), type="NodePort")
        return [found, HERE_AND_THERE]
    found = service("ns1/svc1", "fd00:172:30::41", tcp(80, 3001), type="NodePort")
    pods = ("fd00:10:180::1", endpoint("fd00:10:180::2:1", NODE))
    return [found, slice_of("ns1/svc1", *pods, address_type="IPv6")]


_THREE: Final = ("192.168.0.0/24", "192.168.1.0/24", "2001:db8::/64")
_BOTH_HOST: Final = ("192.168.0.0/24", "127.0.0.1/32")
for _family, _mode, _addresses, _localhost, _other, _loopback in (
    # kube-proxy's defaults: every address in iptables, the primary one in nftables
    (Family.IPV4, IPTABLES, (), True, True, "yes"),
    (Family.IPV4, IPTABLES, (), False, True, ""),
    (Family.IPV4, IPTABLES, _BOTH_HOST, False, False, ""),
    (Family.IPV4, IPTABLES, _THREE, False, True, ""),
    (Family.IPV6, IPTABLES, (), True, True, ""),
    (Family.IPV6, IPTABLES, (), False, True, ""),
    (Family.IPV6, IPTABLES, _THREE, False, False, ""),
    (Family.IPV4, NFTABLES, (), True, False, ""),
    (Family.IPV4, NFTABLES, _THREE, True, True, ""),
    (Family.IPV4, NFTABLES, ("0.0.0.0/0", "::/0"), True, True, ""),
    (Family.IPV6, NFTABLES, (), True, False, ""),
    (Family.IPV6, NFTABLES, (*_THREE, "2001:db8:1::2/128"), True, True, ""),
):
    CASES[f"node ports, {_mode} {_family} {','.join(_addresses) or 'default'} localhost {_localhost}"] = Case(
        _node_port_objects(_family),
        _node_ports(_family, other=_other, loopback=_loopback),
        {"node_port_addresses": _addresses, "localhost_node_ports": _localhost},
        _family,
        _mode,
    )


def _spread(*nodes: str) -> Object:
    pods = [endpoint(f"10.0.1.{number}", node) for number, node in enumerate(nodes, 1)]
    return slice_of("ns1/svc1", *pods, ports=tcp(name=""))


for _name, _policy, _nodes, _output in (
    ("Cluster", "Cluster", (NODE, "node1", "node2"), "10.0.1.1:80, 10.0.1.2:80, 10.0.1.3:80"),
    ("Local, one here", "Local", (NODE, "node1", "node2"), "10.0.1.1:80"),
    ("Local, two here", "Local", (NODE, NODE, "node2"), "10.0.1.1:80, 10.0.1.2:80"),
    ("Local, none here", "Local", ("node0", "node1", "node2"), DROP),
    ("Local, none at all", "Local", (), REJECT),
):
    CASES[f"internal {_name}"] = Case(
        [service("ns1/svc1", "172.30.1.1", tcp(name=""), internalTrafficPolicy=_policy), _spread(*_nodes)],
        [Row(POD, "172.30.1.1", 80, _output)],
    )

_GONE: Final = {"ready": False, "serving": False, "terminating": True}
_READY: Final = {"ready": True, "serving": True, "terminating": False}


def _leaving(policy: str, *pods: Object) -> list[Object]:
    ports = tcp(name="", targetPort=80)
    found = balanced(
        "ns1/svc1", "172.30.1.1", ports, "1.2.3.4", externalTrafficPolicy=policy, healthCheckNodePort=30000
    )
    return [found, slice_of("ns1/svc1", *pods, ports=tcp(name=""))]


_LEAVING: Final = {
    "Local, some ready": (
        "Local",
        [
            endpoint("10.0.1.1", NODE, **_READY),
            endpoint("10.0.1.2", NODE, **_READY),
            draining("10.0.1.3", NODE),
            endpoint("10.0.1.4", NODE, **_GONE),
            endpoint("10.0.1.5", "node-1", **_READY),
        ],
        "10.0.1.1:80, 10.0.1.2:80, 10.0.1.5:80",
        "10.0.1.1:80, 10.0.1.2:80",
    ),
    "Local, here all leaving": (
        "Local",
        [
            draining("10.0.1.2", NODE),
            draining("10.0.1.3", NODE),
            endpoint("10.0.1.4", NODE, **_GONE),
            endpoint("10.0.1.5", "node-1", **_READY),
        ],
        "10.0.1.5:80",
        "10.0.1.2:80, 10.0.1.3:80",
    ),
    "Local, leaving elsewhere": ("Local", [draining("10.0.1.5", "node-1")], "10.0.1.5:80", DROP),
    "Local, all gone": (
        "Local",
        [endpoint("10.0.1.5", NODE, **_GONE), endpoint("10.0.1.5", "node-1", **_GONE)],
        REJECT,
        REJECT,
    ),
    "Cluster, some ready": (
        "Cluster",
        [
            endpoint("10.0.1.1", NODE, **_READY),
            endpoint("10.0.1.2", NODE, **_READY),
            draining("10.0.1.3", "another-node"),
            endpoint("10.0.1.4", "another-node", **_GONE),
            endpoint("10.0.1.5", "another-node", **_READY),
        ],
        "10.0.1.1:80, 10.0.1.2:80, 10.0.1.5:80",
        "10.0.1.1:80, 10.0.1.2:80, 10.0.1.5:80",
    ),
    "Cluster, all leaving": (
        "Cluster",
        [
            draining("10.0.1.2", NODE),
            draining("10.0.1.3", NODE),
            endpoint("10.0.1.4", "another-node", **_GONE),
            draining("10.0.1.5", "another-node"),
        ],
        "10.0.1.2:80, 10.0.1.3:80, 10.0.1.5:80",
        "10.0.1.2:80, 10.0.1.3:80, 10.0.1.5:80",
    ),
    "Cluster, leaving elsewhere": ("Cluster", [draining("10.0.1.5", "node-1")], "10.0.1.5:80", "10.0.1.5:80"),
    "Cluster, all gone": (
        "Cluster",
        [endpoint("10.0.1.5", NODE, **_GONE), endpoint("10.0.1.5", "node-1", **_GONE)],
        REJECT,
        REJECT,
    ),
}
for _name, (_policy, _pods, _inside, _balanced) in _LEAVING.items():
    _rewritten = _policy == "Cluster" and _balanced != REJECT
    CASES[f"terminating endpoints, {_name}"] = Case(
        _leaving(_policy, *_pods),
        [Row(POD, "172.30.1.1", 80, _inside), Row(OUTSIDE, "1.2.3.4", 80, _balanced, _rewritten)],
    )


def _three_policies() -> list[Object]:
    found: list[Object] = []
    for number, address, spec in (
        (1, "1.2.3.4", {}),
        (2, "5.6.7.8", {"externalTrafficPolicy": "Local"}),
        (3, "9.10.11.12", {"internalTrafficPolicy": "Local"}),
    ):
        name = f"ns{number}/svc{number}"
        ports = tcp(80, 3000 + number)
        health = {"healthCheckNodePort": 30000 + number}
        found.append(balanced(name, f"172.30.0.4{number}", ports, address, **health, **spec))
        pods = endpoint(f"10.180.0.{number}", NODE), endpoint(f"10.180.1.{number}", "remote")
        found.append(slice_of(name, *pods))
    return found


def _here(number: int) -> str:
    return f"10.180.0.{number}:80"


def _all(number: int) -> str:
    return f"10.180.0.{number}:80, 10.180.1.{number}:80"


_Answer = tuple[str, bool]
_BASE: Final[Mapping[tuple[str, str, int], _Answer]] = {
    # who calls which kind of address of which service: no policy, external Local, internal Local
    ("pod", "cluster IP", 1): (_all(1), False),
    ("pod", "node port", 1): (_all(1), True),
    ("pod", "balancer", 1): (_all(1), True),
    ("node", "cluster IP", 1): (_all(1), True),
    ("node", "node port", 1): (_all(1), True),
    ("node", "balancer", 1): (_all(1), True),
    ("outside", "cluster IP", 1): (_all(1), True),
    ("outside", "node port", 1): (_all(1), True),
    ("outside", "balancer", 1): (_all(1), True),
    ("pod", "cluster IP", 2): (_all(2), False),
    ("pod", "node port", 2): (_all(2), False),
    ("pod", "balancer", 2): (_all(2), False),
    ("node", "cluster IP", 2): (_all(2), True),
    ("node", "node port", 2): (_all(2), True),
    ("node", "balancer", 2): (_all(2), True),
    ("outside", "cluster IP", 2): (_all(2), True),
    ("outside", "node port", 2): (_here(2), False),
    ("outside", "balancer", 2): (_here(2), False),
    ("pod", "cluster IP", 3): (_here(3), False),
    ("pod", "node port", 3): (_all(3), True),
    ("pod", "balancer", 3): (_all(3), True),
    ("node", "cluster IP", 3): (_here(3), True),
    ("node", "node port", 3): (_all(3), True),
    ("node", "balancer", 3): (_all(3), True),
    ("outside", "cluster IP", 3): (_here(3), True),
    ("outside", "node port", 3): (_all(3), True),
    ("outside", "balancer", 3): (_all(3), True),
}
_PODS_UNKNOWN: Final = {
    ("pod", "node port", 2): (_here(2), False),
    ("pod", "balancer", 2): (_here(2), False),
}
_NOBODY_FOREIGN: Final = {
    (caller, "cluster IP", number): (_BASE[caller, "cluster IP", number][0], False)
    for caller in ("node", "outside")
    for number in (1, 2, 3)
}
_ALL_MASQUERADED: Final = {
    ("pod", "cluster IP", number): (_BASE["pod", "cluster IP", number][0], True) for number in (1, 2, 3)
}
_SOURCES: Final = {"pod": POD, "node": NODE_IP, "outside": OUTSIDE}
_BALANCERS: Final = {1: "1.2.3.4", 2: "5.6.7.8", 3: "9.10.11.12"}


def _called(kind: str, number: int) -> tuple[str, int]:
    match kind:
        case "cluster IP":
            return f"172.30.0.4{number}", 80
        case "node port":
            return NODE_IP, 3000 + number
        case _:
            return _BALANCERS[number], 80


def _masquerading(changes: Mapping[tuple[str, str, int], _Answer]) -> list[Row]:
    return [
        Row(_SOURCES[caller], *_called(kind, number), *answer)
        for (caller, kind, number), answer in {**_BASE, **changes}.items()
    ]


_ALL: Final = {"masquerade_all": True}
CASES["masquerading"] = Case(_three_policies(), _masquerading({}))
CASES["masquerading without detector"] = Case(
    _three_policies(), _masquerading({**_PODS_UNKNOWN, **_NOBODY_FOREIGN}), NO_DETECTOR
)
CASES["masquerading of all"] = Case(_three_policies(), _masquerading(_ALL_MASQUERADED), _ALL)
CASES["masquerading of all without detector"] = Case(
    _three_policies(), _masquerading({**_PODS_UNKNOWN, **_ALL_MASQUERADED}), {**NO_DETECTOR, **_ALL}
)

END_OF_ENDPOINTS: Final = [name for name in CASES if name.startswith(("internal ", "terminating "))]
"""Cases of which upstream also asks what is left once the slice is deleted."""
