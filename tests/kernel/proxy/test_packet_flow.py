"""Real packets through the rules of one node: who reaches what, and under whose address.

Each row: a Service, its endpoints, a caller, an address called - and the pods that must answer (all of them, no
other), or how the call must fail. The same rows are held against `flows.answer`, so that what explanations say
is what packets do.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from support.proxy import Object, draining, endpoint, service, slice_of, state_of, unready
from support.proxy_net import (
    CLOSED,
    LISTED,
    NODE1,
    OUTSIDE,
    POD_PORT,
    PODS,
    REFUSED,
    SILENT,
    UNLISTED,
    Net,
    Reply,
)

from netkit.kernel.iptables import IPTables, Variant, installed_variants
from netkit.kernel.process import run
from netkit.proxy.choice import NodeView, Verdict, choose
from netkit.proxy.flows import Caller, Destination, FlowSettings, answer
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.settings import ProxySettings

pytestmark = pytest.mark.root

CLUSTER_IP, EXTERNAL_IP, BALANCER, NODE_PORT = "172.30.0.41", "1.2.3.4", "5.6.7.8", 30001
SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16", node_address=NODE1)
TRIES = 40
"""Per row; one of two endpoints stays unseen once in 10^12 rows."""
IMPATIENT = 0.25


def pod(name: str, **changes: Any) -> Object:
    node, address = PODS[name]
    return endpoint(address, node, **changes)


def leaving(name: str) -> Object:
    node, address = PODS[name]
    return draining(address, node)


A1, A2, B1, B2 = (pod(name) for name in PODS)

PLAIN: dict[str, Any] = {}
NODE_PORTS: dict[str, Any] = {
    "type": "NodePort",
    "ports": [{"name": "p80", "port": 80, "nodePort": NODE_PORT}],
}
EVERY: dict[str, Any] = {
    **NODE_PORTS,
    "type": "LoadBalancer",
    "externalIPs": [EXTERNAL_IP],
    "ingress": [{"ip": BALANCER}],
}
LOCAL = {"externalTrafficPolicy": "Local"}
RANGES = {"loadBalancerSourceRanges": ["203.0.113.0/25"]}

TO_CLUSTER_IP = (CLUSTER_IP, 80, Destination.CLUSTER_IP)
TO_NODE_PORT = (NODE1, NODE_PORT, Destination.NODE_PORT)
TO_LOOPBACK = ("127.0.0.1", NODE_PORT, Destination.NODE_PORT)
TO_EXTERNAL_IP = (EXTERNAL_IP, 80, Destination.EXTERNAL_IP)
TO_BALANCER = (BALANCER, 80, Destination.LOAD_BALANCER)


@dataclass(frozen=True)
class Row:
    """`expected`: names of pods, or how the call fails. `masqueraded` None: the rewriting is not looked at."""

    name: str
    spec: dict[str, Any]
    endpoints: tuple[Object, ...]
    caller: str
    to: tuple[str, int, Destination | None]
    expected: set[str] | str
    masqueraded: bool | None = None
    source: str = ""
    settings: ProxySettings = field(default=SETTINGS)


ROWS = [
    # cluster IP
    Row("pod to cluster IP", PLAIN, (A1, B1), "a2", TO_CLUSTER_IP, {"a1", "b1"}, False),
    Row("node to cluster IP", PLAIN, (A1, B1), "node1", TO_CLUSTER_IP, {"a1", "b1"}, True),
    Row("outside to cluster IP", PLAIN, (A1, B1), "outside", TO_CLUSTER_IP, {"a1", "b1"}, True),
    Row("unready endpoints are left out", PLAIN, (A1, unready(PODS["b1"][1])), "a2", TO_CLUSTER_IP, {"a1"}, False),
    Row("draining beats nothing", PLAIN, (leaving("b1"),), "a2", TO_CLUSTER_IP, {"b1"}, False),
    Row("ready beats draining", PLAIN, (leaving("b1"), A1), "a2", TO_CLUSTER_IP, {"a1"}, False),
    Row("pod to cluster IP, no endpoints", PLAIN, (), "a2", TO_CLUSTER_IP, REFUSED),
    Row("node to cluster IP, no endpoints", PLAIN, (), "node1", TO_CLUSTER_IP, REFUSED),
    Row("outside to cluster IP, no endpoints", PLAIN, (), "outside", TO_CLUSTER_IP, REFUSED),
    Row("port that is not declared", PLAIN, (A1,), "a2", (CLUSTER_IP, 81, None), SILENT),
    Row(
        "masquerade all", PLAIN, (A1, B1), "a2", TO_CLUSTER_IP, {"a1", "b1"}, True,
        settings=ProxySettings(cluster_cidr="10.244.0.0/16", masquerade_all=True),
    ),
    Row(
        "no detector", PLAIN, (A1,), "outside", TO_CLUSTER_IP, {"a1"}, False, settings=ProxySettings(),
    ),
    Row("internal Local", {"internalTrafficPolicy": "Local"}, (A1, B1), "a2", TO_CLUSTER_IP, {"a1"}, False),
    Row("internal Local from the node", {"internalTrafficPolicy": "Local"}, (A1, B1), "node1", TO_CLUSTER_IP,
        {"a1"}, True),
    Row("internal Local, none here", {"internalTrafficPolicy": "Local"}, (B1,), "a2", TO_CLUSTER_IP, SILENT),
    Row("internal Local, none anywhere", {"internalTrafficPolicy": "Local"}, (), "a2", TO_CLUSTER_IP, REFUSED),
    # node port
    Row("outside to node port", NODE_PORTS, (A1, B1), "outside", TO_NODE_PORT, {"a1", "b1"}, True),
    Row("pod to node port", NODE_PORTS, (A1, B1), "a2", TO_NODE_PORT, {"a1", "b1"}, True),
    Row("node to node port", NODE_PORTS, (A1, B1), "node1", TO_NODE_PORT, {"a1", "b1"}, True),
    Row("node to node port on loopback", NODE_PORTS, (A1, B1), "node1", TO_LOOPBACK, {"a1", "b1"}, True),
    Row(
        "loopback node ports turned off", NODE_PORTS, (A1,), "node1", TO_LOOPBACK, CLOSED,
        settings=ProxySettings(cluster_cidr="10.244.0.0/16", localhost_node_ports=False),
    ),
    Row(
        "node port on chosen addresses", NODE_PORTS, (A1,), "outside", TO_NODE_PORT, {"a1"}, True,
        settings=ProxySettings(cluster_cidr="10.244.0.0/16", node_port_addresses=("192.168.0.0/24",)),
    ),
    Row(
        "node port on other addresses", NODE_PORTS, (A1,), "outside", TO_NODE_PORT, CLOSED,
        settings=ProxySettings(cluster_cidr="10.244.0.0/16", node_port_addresses=("169.254.0.0/16",)),
    ),
    Row("outside to node port, no endpoints", NODE_PORTS, (), "outside", TO_NODE_PORT, REFUSED),
    Row("pod to node port, no endpoints", NODE_PORTS, (), "a2", TO_NODE_PORT, REFUSED),
    Row("node port of no service", PLAIN, (A1,), "outside", TO_NODE_PORT, CLOSED),
    # external Local
    *(
        row
        for to in (TO_NODE_PORT, TO_EXTERNAL_IP, TO_BALANCER)
        for row in (
            Row(f"outside to {to[2]}", EVERY, (A1, B1), "outside", to, {"a1", "b1"}, True),
            Row(f"pod to {to[2]}", EVERY, (A1, B1), "a2", to, {"a1", "b1"}, True),
            Row(f"outside to {to[2]}, Local", {**EVERY, **LOCAL}, (A1, B1), "outside", to, {"a1"}, False),
            Row(f"pod to {to[2]}, Local", {**EVERY, **LOCAL}, (A1, B1), "a2", to, {"a1", "b1"}, False),
            Row(f"node to {to[2]}, Local", {**EVERY, **LOCAL}, (A1, B1), "node1", to, {"a1", "b1"}, True),
            Row(f"outside to {to[2]}, Local, none here", {**EVERY, **LOCAL}, (B1,), "outside", to, SILENT),
            Row(f"pod to {to[2]}, Local, none here", {**EVERY, **LOCAL}, (B1,), "a2", to, {"b1"}, False),
            Row(f"node to {to[2]}, Local, none here", {**EVERY, **LOCAL}, (B1,), "node1", to, {"b1"}, True),
            Row(f"outside to {to[2]}, Local, none anywhere", {**EVERY, **LOCAL}, (), "outside", to, REFUSED),
            Row(f"outside to {to[2]}, none anywhere", EVERY, (), "outside", to, REFUSED),
            Row(
                f"outside to {to[2]}, Local, only a draining one here", {**EVERY, **LOCAL}, (leaving("a1"), B1),
                "outside", to, {"a1"}, False,
            ),
        )
    ),
    Row("internal Local does not bind node ports", {**EVERY, "internalTrafficPolicy": "Local"}, (B1,), "outside",
        TO_NODE_PORT, {"b1"}, True),
    # source ranges
    Row("listed source", {**EVERY, **RANGES}, (A1, B1), "outside", TO_BALANCER, {"a1", "b1"}, True, LISTED),
    Row("unlisted source", {**EVERY, **RANGES}, (A1,), "outside", TO_BALANCER, SILENT, None, UNLISTED),
    Row("unlisted pod", {**EVERY, **RANGES}, (A1,), "a2", TO_BALANCER, SILENT),
    Row("unlisted node", {**EVERY, **RANGES}, (A1,), "node1", TO_BALANCER, SILENT),
    Row("ranges do not guard node ports", {**EVERY, **RANGES}, (A1,), "outside", TO_NODE_PORT, {"a1"}, True,
        UNLISTED),
    Row("ranges do not guard external IPs", {**EVERY, **RANGES}, (A1,), "outside", TO_EXTERNAL_IP, {"a1"}, True,
        UNLISTED),
    Row("ranges without endpoints", {**EVERY, **RANGES}, (), "outside", TO_BALANCER, REFUSED, None, UNLISTED),
    Row("ranges and Local", {**EVERY, **RANGES, **LOCAL}, (A1, B1), "outside", TO_BALANCER, {"a1"}, False, LISTED),
    Row(
        "an ingress of mode Proxy is not ours", {**EVERY, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, (A1,),
        "a2", (BALANCER, 80, None), SILENT,
    ),
]  # fmt: skip

UDP_PORTS = {
    "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": NODE_PORT}],
    "type": "NodePort",
}


class Bench:
    """The network with a backend of one variant, reloaded per row."""

    def __init__(self, net: Net, variant: Variant) -> None:
        self.net = net
        self.iptables = IPTables(net.node, variant, lock_file=net.directory / "xtables.lock")

    async def load(self, settings: ProxySettings, *objects: Object) -> IPTablesBackend:
        backend = IPTablesBackend("node1", settings, self.iptables)
        await backend.sync(state_of(*objects), None)
        return backend

    async def call(self, caller: str, address: str, port: int, **options: Any) -> Reply | str:
        return await asyncio.to_thread(self.net.call, caller, address, port, **options)

    def masqueraded(self) -> int:
        """How many flows met the MASQUERADE rule so far."""
        program = f"iptables-{self.iptables.variant}-save"
        saved = run([program, "-c", "-t", "nat"], ns=self.net.node, check=True).stdout.decode()
        (packets,) = re.findall(r"\[(\d+):\d+\] -A KUBE-POSTROUTING .*-j MASQUERADE", saved)
        return int(packets)


@pytest.fixture(scope="module", params=list(Variant))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if request.param not in installed_variants():
        pytest.skip(f"iptables-{request.param} is not installed")
    with Net.built(tmp_path_factory.mktemp("net")) as net:
        yield Bench(net, request.param)


def objects_of(row: Row) -> tuple[Object, Object]:
    ports = [{"name": "p80", "port": POD_PORT}]
    return service("ns1/svc1", CLUSTER_IP, **row.spec), slice_of("ns1/svc1", *row.endpoints, ports=ports)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_packets(bench: Bench, row: Row) -> None:
    await bench.load(row.settings, *objects_of(row))
    address, port, _ = row.to
    if isinstance(row.expected, str):
        patience = IMPATIENT if row.expected == SILENT else 5.0
        found = await bench.call(row.caller, address, port, source=row.source, patience=patience)
        assert found == row.expected
        return
    before = bench.masqueraded()
    source = row.source or {"outside": OUTSIDE}.get(row.caller, PODS.get(row.caller, ("", ""))[1])
    answered = set()
    for _ in range(TRIES):
        found = await bench.call(row.caller, address, port, source=row.source)
        assert isinstance(found, Reply), f"{found} after {answered or 'nothing'}"
        answered.add(found.pod)
        if row.caller != "node1" and row.masqueraded is not None:
            assert (found.seen != source) == row.masqueraded, f"{found.pod} saw {found.seen}"
    assert answered == row.expected
    if row.masqueraded is not None:
        assert bench.masqueraded() - before == (TRIES if row.masqueraded else 0)


def explained() -> list[Row]:
    """Rows whose outcome follows from the Service; the others are about which addresses are captured at all."""
    return [
        row
        for row in ROWS
        if row.to[2]
        and (row.settings is SETTINGS or row.settings.masquerade_all)
        and (row.to[2] is not Destination.NODE_PORT or "ports" in row.spec)
    ]


@pytest.mark.parametrize("row", explained(), ids=lambda row: row.name)
def test_explanations_say_the_same(row: Row) -> None:
    state = state_of(*objects_of(row))
    port = next(iter(state.ports()))
    node = NodeView("node1", addresses=(ip_address(NODE1),))
    caller = {"outside": Caller.OUTSIDE, "node1": Caller.NODE}.get(row.caller, Caller.POD)
    source = row.source or {"outside": OUTSIDE, "node1": NODE1}.get(row.caller) or PODS[row.caller][1]
    choice = choose(port, state.endpoints(port.name), node)
    settings = FlowSettings(masquerade_all=row.settings.masquerade_all)
    assert row.to[2] is not None
    flow = answer(port, choice, row.to[2], caller, ip_address(source), node, settings)
    if isinstance(row.expected, str):
        assert flow.verdict is {REFUSED: Verdict.REJECT, SILENT: Verdict.DROP}[row.expected]
        return
    names = {address: name for name, (_, address) in PODS.items()}
    assert {names[str(item.address)] for item in flow.endpoints} == row.expected
    if row.masqueraded is not None:
        assert flow.masqueraded == row.masqueraded


async def test_hairpin(bench: Bench) -> None:
    """A pod that reaches itself sees the node as its caller; the others see the pod."""
    await bench.load(SETTINGS, *objects_of(Row("", PLAIN, (A1, B1), "a1", TO_CLUSTER_IP, {"a1", "b1"})))
    seen: dict[str, set[str]] = {}
    for _ in range(TRIES):
        found = await bench.call("a1", CLUSTER_IP, 80)
        assert isinstance(found, Reply)
        seen.setdefault(found.pod, set()).add(found.seen)
    assert seen["b1"] == {PODS["a1"][1]}
    assert len(seen["a1"]) == 1
    assert PODS["a1"][1] not in seen["a1"]


async def test_affinity_is_shared_by_all_addresses_and_ends_with_the_endpoint(bench: Bench) -> None:
    ports = [{"name": "p80", "port": POD_PORT}]
    sticky = service("ns1/svc1", CLUSTER_IP, sessionAffinity="ClientIP", **EVERY)
    backend = await bench.load(SETTINGS, sticky, slice_of("ns1/svc1", A1, A2, B1, B2, ports=ports))
    used = set()
    for address, port in [(CLUSTER_IP, 80), (NODE1, NODE_PORT), (BALANCER, 80), (EXTERNAL_IP, 80)] * 6:
        found = await bench.call("outside", address, port)
        assert isinstance(found, Reply)
        used.add(found.pod)
    assert len(used) == 1
    # Another client is free to get another endpoint; the first keeps its own after an unrelated change.
    (kept,) = used
    left = [item for name, item in zip(PODS, (A1, A2, B1, B2), strict=True) if name != kept]
    state = state_of(sticky, slice_of("ns1/svc1", A1, A2, B1, B2, ports=ports))
    state.mark_synced()
    state.upsert_slice(slice_of("ns1/svc1", pod(kept), *left[:2], ports=ports))
    await backend.sync(state, state.collect())
    state.mark_synced()
    assert [await bench.call("outside", CLUSTER_IP, 80) for _ in range(10)] == [
        Reply(kept, (await seen_by(bench)))
    ] * 10
    state.upsert_slice(slice_of("ns1/svc1", *left, ports=ports))
    await backend.sync(state, state.collect())
    found = await bench.call("outside", CLUSTER_IP, 80)
    assert isinstance(found, Reply)
    assert found.pod != kept


async def seen_by(bench: Bench) -> str:
    """The address under which the sticky pod sees the outside client now."""
    found = await bench.call("outside", CLUSTER_IP, 80)
    assert isinstance(found, Reply)
    return found.seen


@pytest.mark.parametrize(
    ("caller", "address", "port"),
    [("a2", CLUSTER_IP, 53), ("outside", NODE1, NODE_PORT), ("node1", CLUSTER_IP, 53)],
)
async def test_udp(bench: Bench, caller: str, address: str, port: int) -> None:
    ports = [{"name": "dns", "port": POD_PORT, "protocol": "UDP"}]
    dns = service("ns1/dns", CLUSTER_IP, **UDP_PORTS)
    await bench.load(SETTINGS, dns, slice_of("ns1/dns", A1, B1, ports=ports))
    found = [await bench.call(caller, address, port, udp=True) for _ in range(TRIES)]
    assert {reply.pod for reply in found if isinstance(reply, Reply)} == {"a1", "b1"}
    assert SILENT not in found
    await bench.load(SETTINGS, dns, slice_of("ns1/dns", ports=ports))
    assert await bench.call(caller, address, port, udp=True) == REFUSED


async def test_shares_are_even(bench: Bench) -> None:
    """Chi-square over four endpoints: 3 degrees of freedom exceed 30 once in about a million runs."""
    await bench.load(SETTINGS, *objects_of(Row("", PLAIN, (A1, A2, B1, B2), "outside", TO_CLUSTER_IP, set())))
    tries = 800
    counts = Counter(reply.pod for reply in await asyncio.to_thread(many, bench, tries))
    expected = tries / 4
    assert set(counts) == set(PODS)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 30


def many(bench: Bench, tries: int) -> list[Reply]:
    found = [bench.net.call("outside", CLUSTER_IP, 80) for _ in range(tries)]
    assert all(isinstance(reply, Reply) for reply in found)
    return [reply for reply in found if isinstance(reply, Reply)]
