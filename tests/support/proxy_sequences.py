"""Random sequences of what happens to a proxy: objects that change, Nodes, restarts, failures, time.

Services, slices and Nodes are drawn from small pools, so that they clash, move, double and lack what they need.
`proxy_player` plays the sequences. `NETKIT_SEQUENCES` in the environment says how many each test plays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import chain
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from support.proxy import Object, endpoint, service, slice_of

from netkit.proxy.addresses import Family
from netkit.proxy.backend import NodeFacts
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ProxySettings

HERE, THERE = "here", "there"

_T = TypeVar("_T")


def sequences(unless_told: int) -> settings:
    """Decorates a test that is given one of `PLAYS` at a time."""
    return settings(
        max_examples=int(os.environ.get("NETKIT_SEQUENCES", unless_told)),
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )


Play = tuple[Family, ProxySettings, list["Step"]]


@dataclass(frozen=True)
class Upsert:
    """A Service or EndpointSlice is new or changed."""

    obj: Object


@dataclass(frozen=True)
class Delete:
    """A Service or EndpointSlice is gone (or was never there)."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Sync:
    """What is known so far is written; `full` as after a lost canary."""

    full: bool = False


@dataclass(frozen=True)
class NodeChange:
    """The Node object says something else."""

    facts: NodeFacts


@dataclass(frozen=True)
class Restart:
    """The agent ends, and another one starts with other settings on what stands."""

    settings: ProxySettings


@dataclass(frozen=True)
class Failure:
    """A write to the kernel will fail. Which one of those that a sync makes, or of which part, is the mode's."""

    place: int


@dataclass(frozen=True)
class Minute:
    """A minute passes, and the agent looks after what stands."""


@dataclass(frozen=True)
class Traffic:
    """So many connections are open to each real server from now on, where the kernel counts them."""

    connections: int


Step = Upsert | Delete | Sync | NodeChange | Restart | Failure | Minute | Traffic


_NAMES = ("ns1/a", "ns1/b", "ns2/a", "ns2/c")
_CLUSTER_IPS = {name: (f"172.30.0.{index}", f"fd00:30::{index}") for index, name in enumerate(_NAMES, 1)}
_PORTS: tuple[tuple[Object, ...], ...] = (
    ({"name": "p80", "port": 80},),
    ({"port": 80},),
    ({"name": "p80", "port": 80, "nodePort": 30001},),
    ({"name": "p80", "port": 80, "nodePort": 30001}, {"name": "p443", "port": 443, "nodePort": 30002}),
    ({"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}),
    *(
        (
            {"name": "p80", "port": 80, "nodePort": 30001},
            {"name": "p443", "port": 443},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30001},
            {"name": "dns-tcp", "port": 53, "nodePort": 30002},
        ),
    )
    * 3,
    ({"name": "p80", "port": 81, "protocol": "SCTP", "nodePort": 30003},),
    (),
)
_ALL_PORTS: tuple[Object, ...] = (
    {"name": "p80", "port": 8080},
    {"name": "", "port": 8080},
    {"name": "p443", "port": 8443},
    {"name": "dns", "port": 5353, "protocol": "UDP"},
    {"name": "dns-tcp", "port": 5353},
    {"name": "p80", "port": 8080, "protocol": "SCTP"},
)
_SLICE_PORTS: tuple[tuple[Object, ...], ...] = (
    *(_ALL_PORTS,) * 7,
    ({"name": "p80", "port": 8080},),
    ({"name": "", "port": 8080},),
    ({"name": "p80", "port": 8080}, {"name": "p443", "port": 8443}),
    ({"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5353}),
    ({"name": "p80", "port": 8080}, {"name": "p80", "port": 8081}),
    ({"name": "p80", "port": None}, {"name": None, "port": 8080}),
)
_EXTERNAL = ((), ("1.2.3.4", "2001:db8::4"), ("1.2.3.5", "not an address", "1.2.3.4"), ("10.0.0.1",))
_INGRESS: tuple[tuple[Object, ...], ...] = (
    (),
    ({"ip": "5.6.7.8"}, {"ip": "2001:db8::8"}),
    ({"ip": "5.6.7.8", "ipMode": "Proxy"}, {"hostname": "balancer.example"}),
    ({"ip": "5.6.7.9", "ipMode": "VIP"}, {"ip": "5.6.7.8"}),
)
_RANGES = (
    (),
    ("203.0.113.0/25", " fd00:113::/64"),
    ("10.0.0.0/8", "fd00::/8"),
    ("0.0.0.0/0",),
    ("nonsense",),
)
_LABELS = (
    *({},) * 10,
    {"service.kubernetes.io/headless": ""},
    {"service.kubernetes.io/service-proxy-name": "other"},
)
_POLICIES = ("Cluster", "Local")


def _service(
    name: str,
    kind: str,
    ports: tuple[Object, ...],
    external: tuple[str, ...],
    balancer: tuple[Any, ...],
    **more: Any,
) -> Object:
    ingress, ranges = balancer
    four, six = _CLUSTER_IPS[name]
    headless, internal, external_policy, affinity, timeout, created, labels = more["rest"]
    affine = {"clientIP": {"timeoutSeconds": timeout}} if affinity == "ClientIP" else None
    return service(
        name,
        "None" if headless else four,
        ports,
        labels=labels,
        ingress=ingress if kind == "LoadBalancer" else (),
        created=f"2026-01-0{created}T00:00:00Z",
        type=kind,
        clusterIPs=["None"] if headless else [four, six],
        ipFamilies=["IPv4", "IPv6"],
        externalIPs=list(external),
        loadBalancerSourceRanges=list(ranges),
        internalTrafficPolicy=internal,
        externalTrafficPolicy=external_policy,
        sessionAffinity=affinity,
        sessionAffinityConfig=affine,
        healthCheckNodePort=31000 if kind == "LoadBalancer" and external_policy == "Local" else 0,
    )


_any_name = st.sampled_from(_NAMES)


def _services(names: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    service_of = st.builds(
        _service,
        names,
        st.sampled_from((*("ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer") * 3, "ExternalName")),
        st.sampled_from(_PORTS),
        st.sampled_from(_EXTERNAL),
        st.tuples(st.sampled_from(_INGRESS), st.sampled_from(_RANGES)),
        rest=st.tuples(
            st.sampled_from((False,) * 14 + (True,)),
            st.sampled_from(_POLICIES),
            st.sampled_from(_POLICIES),
            st.sampled_from(("None", "ClientIP")),
            st.sampled_from((60, 10800)),
            st.integers(1, 3),
            st.sampled_from(_LABELS),
        ),
    )
    return st.builds(Upsert, service_of)


_CONDITIONS = (
    *((True, None, None),) * 3,
    (None, None, None),
    (False, True, True),
    (False, False, True),
    (False, None, None),
)
_HINTS = (((), ()), ((), ()), (("zone-a",), ()), (("zone-a", "zone-b"), (HERE,)), (("zone-b",), (THERE,)))


def _endpoints(family: Family) -> st.SearchStrategy[Object]:
    address = "10.1.0.{}" if family is Family.IPV4 else "fd00:1::{}"
    wrong = "fd00:1::1" if family is Family.IPV4 else "10.1.0.1"
    addresses = (*(address.format(host) for host in range(1, 7)), wrong)

    def made(where: str, node: str, conditions: tuple[Any, ...], hints: tuple[Any, ...]) -> Object:
        ready, serving, terminating = conditions
        zones, nodes = hints
        return endpoint(
            where, node, ready=ready, serving=serving, terminating=terminating, zones=zones, nodes=nodes
        )

    return st.builds(
        made,
        st.sampled_from(addresses),
        st.sampled_from((HERE, THERE, THERE, "")),
        st.sampled_from(_CONDITIONS),
        st.sampled_from(_HINTS),
    )


def _slices(family: Family, names: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    other = "IPv6" if family is Family.IPV4 else "IPv4"

    def made(
        name: str, suffix: str, owner: str, kind: str, ports: tuple[Object, ...], found: list[Object]
    ) -> Step:
        labels = {} if owner == "own" else {"kubernetes.io/service-name": owner}
        labels |= {"service.kubernetes.io/headless": ""} if owner == "headless" else {}
        return Upsert(slice_of(name, *found, suffix=suffix, ports=ports, address_type=kind, labels=labels))

    return st.builds(
        made,
        names,
        st.sampled_from("xy"),
        st.sampled_from(("own",) * 12 + ("a", "", "headless")),
        st.sampled_from((str(family),) * 12 + (other, "FQDN")),
        st.sampled_from(_SLICE_PORTS),
        st.lists(_endpoints(family), max_size=4),
    )


_deletions = st.builds(
    lambda name, suffix: (
        Delete("EndpointSlice", name.split("/")[0], f"{name.split('/')[1]}-{suffix}")
        if suffix
        else Delete("Service", *name.split("/"))
    ),
    _any_name,
    st.sampled_from(("", "x", "y")),
)

_NODES = (
    NodeFacts(),
    NodeFacts("zone-a", (ip_address("10.0.0.1"), ip_address("fd00::1")), ("10.1.0.0/24", "fd00:1::/64")),
    NodeFacts("zone-b", (ip_address("10.0.0.1"), ip_address("fd00::1")), ("10.1.0.0/24", "fd00:1::/64")),
    NodeFacts("zone-a", (ip_address("203.0.113.7"),), ("10.2.0.0/24",), ("172.30.0.0/29", "fd00:30::/120")),
)

_PLAIN = ProxySettings(cluster_cidr="10.1.0.0/16,fd00:1::/64")
SETTINGS = (
    _PLAIN,
    replace(_PLAIN, masquerade_all=True),
    replace(_PLAIN, localhost_node_ports=False, masquerade_bit=9),
    replace(_PLAIN, node_port_addresses=("10.0.0.0/24", "fd00::/64")),
    replace(_PLAIN, node_port_addresses=("127.0.0.0/8", "10.0.0.0/24")),
    ProxySettings(detect_local_mode=DetectLocalMode.NODE_CIDR),
    ProxySettings(detect_local_mode=DetectLocalMode.BRIDGE_INTERFACE, bridge_interface="cni0"),
    ProxySettings(detect_local_mode=DetectLocalMode.INTERFACE_NAME_PREFIX, interface_name_prefix="veth"),
    ProxySettings(),
)
"""What a sequence may start or restart with; a mode may map it further (its own mode, its own layout)."""


def _weighted(*weighted: tuple[int, st.SearchStrategy[_T]]) -> st.SearchStrategy[_T]:
    """One of the strategies, each as often as its weight says."""
    repeated = [strategy for weight, strategy in weighted for _ in range(weight)]
    return st.sampled_from(repeated).flatmap(lambda strategy: strategy)


_rare = _weighted(
    (4, st.builds(NodeChange, st.sampled_from(_NODES))),
    (4, st.builds(Restart, st.sampled_from(SETTINGS))),
    (4, st.builds(Failure, st.integers(0, 3))),
    (4, st.builds(Traffic, st.sampled_from((0, 1, 1)))),
    (4, st.just(Minute())),
    (1, st.just(Sync(full=True))),
)


def _sequences(family: Family) -> st.SearchStrategy[list[Step]]:
    """A start with all Services and a slice of each, and then changes, most of which are synced one by one."""
    start = [made for name in map(st.just, _NAMES) for made in (_services(name), _slices(family, name))]
    change = _weighted((4, _services(_any_name)), (4, _slices(family, _any_name)), (4, _deletions))
    some = _weighted((9, st.tuples(change, st.just(Sync()))), (3, st.tuples(change)), (3, st.tuples(_rare)))
    return st.builds(
        lambda first, then: [*first, Sync(), *chain.from_iterable(then)],
        st.tuples(*start),
        st.lists(some, min_size=6, max_size=24),
    )


PLAYS = st.one_of(
    *(st.tuples(st.just(family), st.sampled_from(SETTINGS), _sequences(family)) for family in Family)
)
"""A family, the settings to start with, and the steps."""
