"""The rows of `test_packet_flow` with real packets through the nftables mode, in both layouts.

Where the modes differ by design the row's outcome here is in `DIFFERENT`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from kernel.proxy.test_packet_flow import (
    A1,
    A2,
    B1,
    B2,
    BALANCER,
    CLUSTER_IP,
    EVERY,
    EXTERNAL_IP,
    IMPATIENT,
    NODE_PORT,
    PLAIN,
    ROWS,
    SETTINGS,
    TO_CLUSTER_IP,
    TRIES,
    UDP_PORTS,
    Row,
    objects_of,
    pod,
)
from support.proxy import service, slice_of, state_of
from support.proxy_net import CLOSED, NODE1, OUTSIDE, POD_PORT, PODS, REFUSED, SILENT, Net, Reply

from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend, NodeFacts
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import NftablesLayout, ProxyMode, ProxySettings
from netkit.proxy.state import ProxyState

pytestmark = pytest.mark.root

DIFFERENT = {
    "port that is not declared": REFUSED,
    "node to node port on loopback": CLOSED,
    "ranges without endpoints": SILENT,
}
"""Undeclared ports of cluster IPs are refused, node ports never answer on loopback, and source ranges are asked
before anything else.
"""
SERVICE_RANGE = "172.30.0.0/16"


class Bench:
    """The network, with one layout of the nftables mode on node1."""

    def __init__(self, net: Net, layout: NftablesLayout) -> None:
        self.net = net
        self.layout = layout

    def backend(self, settings: ProxySettings) -> Backend:
        settings = replace(
            settings,
            mode=ProxyMode.NFTABLES,
            nftables_layout=self.layout,
            node_address=NODE1,
        )
        (backend,) = backends(settings, Site("node1", self.net.node), [Family.IPV4])
        backend.configure(NodeFacts(service_cidrs=(SERVICE_RANGE,)))
        return backend

    async def load(self, settings: ProxySettings, *objects: dict[str, Any]) -> Backend:
        backend = self.backend(settings)
        await backend.sync(state_of(*objects), None)
        return backend

    async def call(self, caller: str, address: str, port: int, **options: Any) -> Reply | str:
        return await asyncio.to_thread(self.net.call, caller, address, port, **options)

    async def answered(self, caller: str, address: str, port: int) -> Reply:
        found = await self.call(caller, address, port)
        assert isinstance(found, Reply), found
        return found


@pytest.fixture(scope="module", params=list(NftablesLayout))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Net.built(tmp_path_factory.mktemp("net")) as net:
        yield Bench(net, request.param)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_packets(bench: Bench, row: Row) -> None:
    await bench.load(row.settings, *objects_of(row))
    address, port, _ = row.to
    expected = DIFFERENT.get(row.name, row.expected)
    if isinstance(expected, str):
        patience = IMPATIENT if expected == SILENT else 5.0
        found = await bench.call(row.caller, address, port, source=row.source, patience=patience)
        assert found == expected
        return
    source = row.source or {"outside": OUTSIDE}.get(row.caller, PODS.get(row.caller, ("", ""))[1])
    answered = set()
    for _ in range(TRIES):
        reply = await bench.call(row.caller, address, port, source=row.source)
        assert isinstance(reply, Reply), f"{reply} after {answered or 'nothing'}"
        answered.add(reply.pod)
        if row.caller != "node1" and row.masqueraded is not None:
            assert (reply.seen != source) == row.masqueraded, f"{reply.pod} saw {reply.seen}"
    assert answered == expected


async def test_unused_addresses_of_the_service_range_are_silent(bench: Bench) -> None:
    await bench.load(SETTINGS, service("ns1/svc1", CLUSTER_IP), slice_of("ns1/svc1", A1))
    for caller in ("a2", "node1"):
        assert await bench.call(caller, "172.30.0.99", 80, patience=IMPATIENT) == SILENT


async def test_hairpin(bench: Bench) -> None:
    """A pod that reaches itself sees the node as its caller; the others see the pod."""
    await bench.load(SETTINGS, *objects_of(Row("", PLAIN, (A1, B1), "a1", TO_CLUSTER_IP, {"a1", "b1"})))
    seen: dict[str, set[str]] = {}
    for _ in range(TRIES):
        found = await bench.answered("a1", CLUSTER_IP, 80)
        seen.setdefault(found.pod, set()).add(found.seen)
    assert seen["b1"] == {PODS["a1"][1]}
    assert len(seen["a1"]) == 1
    assert PODS["a1"][1] not in seen["a1"]


async def test_affinity_is_shared_by_all_addresses_and_ends_with_the_endpoint(bench: Bench) -> None:
    ports = [{"name": "p80", "port": POD_PORT}]
    state = state_of(
        service("ns1/svc1", CLUSTER_IP, sessionAffinity="ClientIP", **EVERY),
        slice_of("ns1/svc1", A1, A2, B1, B2, ports=ports),
    )
    backend = bench.backend(SETTINGS)
    await backend.sync(state, None)
    state.mark_synced()
    used = Counter[str]()
    for address, port in [(CLUSTER_IP, 80), (NODE1, NODE_PORT), (BALANCER, 80), (EXTERNAL_IP, 80)] * 6:
        used[(await bench.answered("outside", address, port)).pod] += 1
    assert len(used) == 1
    (kept,) = used
    left = [item for name, item in zip(PODS, (A1, A2, B1, B2), strict=True) if name != kept]
    # The client keeps its endpoint after an unrelated change, and gets another one when its own is gone.
    await changed(backend, state, slice_of("ns1/svc1", pod(kept), *left[:2], ports=ports))
    assert {(await bench.answered("outside", CLUSTER_IP, 80)).pod for _ in range(10)} == {kept}
    await changed(backend, state, slice_of("ns1/svc1", *left, ports=ports))
    moved = {(await bench.answered("outside", CLUSTER_IP, 80)).pod for _ in range(10)}
    assert len(moved) == 1
    assert moved != {kept}
    # It stays with the new one when the old one comes back.
    await changed(backend, state, slice_of("ns1/svc1", A1, A2, B1, B2, ports=ports))
    assert {(await bench.answered("outside", NODE1, NODE_PORT)).pod for _ in range(10)} == moved


async def test_affinity_is_per_client(bench: Bench) -> None:
    """Two clients, four endpoints, eight services: that both always choose the same happens once in 65536 times."""
    pairs = []
    for number in range(8):
        name, address = f"ns1/sticky{number}", f"172.30.1.{number + 1}"
        pairs += [
            service(name, address, sessionAffinity="ClientIP"),
            slice_of(name, A1, A2, B1, B2, ports=[{"name": "p80", "port": POD_PORT}]),
        ]
    await bench.load(SETTINGS, *pairs)
    chosen = {}
    for caller in ("outside", "a2"):
        chosen[caller] = [(await bench.answered(caller, f"172.30.1.{n + 1}", 80)).pod for n in range(8)]
        again = [(await bench.answered(caller, f"172.30.1.{n + 1}", 80)).pod for n in range(8)]
        assert again == chosen[caller]
    assert chosen["outside"] != chosen["a2"]


async def changed(backend: Backend, state: ProxyState, *slices: dict[str, Any]) -> None:
    for item in slices:
        state.upsert_slice(item)
    await backend.sync(state, state.collect())
    state.mark_synced()


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
