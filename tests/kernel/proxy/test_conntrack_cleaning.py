"""A client that keeps one UDP socket finds the Service's endpoint of now, thanks to the cleaner and to nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.client_wait import running, until
from support.proxy import endpoint, feed, service, slice_of
from support.proxy_net import NODE1, POD_PORT, PODS, Net

from controlplane.resources.catalog import ENDPOINT_SLICE, SERVICE
from netkit.kernel import netns
from netkit.kernel.conntrack import Conntrack, Entry
from netkit.kernel.conntrack_settings import ConntrackSettings
from netkit.kernel.iptables import IPTables, installed_variants
from netkit.proxy.addresses import Family
from netkit.proxy.assembly import assemble
from netkit.proxy.backend import Synced
from netkit.proxy.conntrack_cleaner import ConntrackCleaner
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.modes import Site
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

pytestmark = pytest.mark.root

CLUSTER_IP, NODE_PORT = "172.30.0.53", 30053
SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16", node_address=NODE1)
UDP_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": NODE_PORT}]
POD_PORTS = [{"name": "dns", "port": POD_PORT, "protocol": "UDP"}]
DNS = service("ns1/dns", CLUSTER_IP, UDP_PORTS, type="NodePort")
UDP, TCP = 17, 6


class Client:
    """One socket for all datagrams, as resolvers have it."""

    def __init__(self, net: Net, caller: str) -> None:
        self._socket = netns.socket_in(net.spaces[caller], socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(5)

    def ask(self, address: str, port: int) -> str:
        """Which pod answers."""
        self._socket.sendto(b"who?", (address, port))
        return self._socket.recv(100).decode().split()[0]

    def shout(self, address: str, port: int) -> None:
        """Send one datagram and expect nothing."""
        self._socket.sendto(b"who?", (address, port))

    def close(self) -> None:
        self._socket.close()


class Bench:
    """The network, the rules of node1 and its cleaner, separately."""

    def __init__(self, net: Net) -> None:
        self.net = net
        iptables = IPTables(
            net.node, next(iter(installed_variants())), lock_file=net.directory / "xtables.lock"
        )
        self.backend = IPTablesBackend("node1", SETTINGS, iptables)
        self.table = Conntrack(net.node)
        self.cleaner = ConntrackCleaner("node1", self.table)
        self.metrics = ProxyMetrics()
        self.state = ProxyState(Family.IPV4)

    async def sync(self, *pods: str) -> Synced:
        """Give the Service these endpoints, in the rules only."""
        endpoints = [endpoint(PODS[name][1], PODS[name][0]) for name in pods]
        feed(self.state, DNS, slice_of("ns1/dns", *endpoints, ports=POD_PORTS))
        changes = self.state.collect()
        report = await self.backend.sync(self.state, changes)
        self.state.mark_synced()
        return Synced(self.state, changes, report, self.metrics)

    def entries(self, protocol: int = UDP) -> list[Entry]:
        return self.table.dump(4, protocol)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Net.built(tmp_path) as net:
        yield Bench(net)


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    client = Client(bench.net, "a2")
    yield client
    client.close()


@pytest.mark.parametrize("called", [(CLUSTER_IP, 53), (NODE1, NODE_PORT)])
async def test_a_kept_socket_reaches_the_new_endpoint(bench: Bench, client: Client, called: Any) -> None:
    await bench.cleaner.after_sync(await bench.sync("a1"))
    assert await asyncio.to_thread(client.ask, *called) == "a1"
    happened = await bench.sync("b1")
    assert await asyncio.to_thread(client.ask, *called) == "a1", "the flow was translated before"
    await bench.cleaner.after_sync(happened)
    assert await asyncio.to_thread(client.ask, *called) == "b1"
    assert bench.metrics.conntrack_reconciler_deleted_entries_total == 1


async def test_a_flow_older_than_the_rules_gets_through(bench: Bench, client: Client) -> None:
    await bench.backend.sync(ProxyState(Family.IPV4), None)
    await asyncio.to_thread(client.shout, CLUSTER_IP, 53)
    happened = await bench.sync("b1")
    (untranslated,) = bench.entries()
    assert untranslated.reply.source == untranslated.original.destination
    await bench.cleaner.after_sync(happened)
    assert await asyncio.to_thread(client.ask, CLUSTER_IP, 53) == "b1"


async def test_the_last_endpoint_takes_its_flows_along_and_a_new_one_is_found(
    bench: Bench, client: Client
) -> None:
    await bench.sync("a1")
    assert await asyncio.to_thread(client.ask, CLUSTER_IP, 53) == "a1"
    await bench.cleaner.after_sync(await bench.sync())
    assert bench.entries() == []
    await bench.cleaner.after_sync(await bench.sync("b2"))
    assert await asyncio.to_thread(client.ask, CLUSTER_IP, 53) == "b2"


async def test_all_other_flows_stay(bench: Bench, client: Client) -> None:
    await bench.sync("a1", "b1")
    flows = [Client(bench.net, "a2") for _ in range(20)]
    try:
        answered = [await asyncio.to_thread(flow.ask, CLUSTER_IP, 53) for flow in flows]
        assert set(answered) == {"a1", "b1"}
        past_the_service = PODS["a1"][1], POD_PORT
        assert await asyncio.to_thread(client.ask, *past_the_service) == "a1"
        await asyncio.to_thread(bench.net.call, "a2", *past_the_service)
        before, tcp = len(bench.entries()), bench.entries(TCP)
        assert tcp
        await bench.cleaner.after_sync(await bench.sync("b1"))
        assert before - len(bench.entries()) == answered.count("a1")
        assert bench.entries(TCP) == tcp
        assert await asyncio.to_thread(client.ask, *past_the_service) == "a1"
        for flow in flows:
            assert await asyncio.to_thread(flow.ask, CLUSTER_IP, 53) == "b1"
    finally:
        for flow in flows:
            flow.close()


async def test_a_whole_proxy_cleans(bench: Bench, client: Client) -> None:
    """The cleaner has its place among what follows a sync, and the settings are made before the first one."""
    api = FakeApi()
    site = Site("node1", bench.net.node, bench.net.directory / "xtables.lock")
    settings = ProxySettings(cluster_cidr="10.244.0.0/16", min_sync_period=0)
    slices = slice_of("ns1/dns", endpoint(PODS["a1"][1]), ports=POD_PORTS)
    await api.client().create(SERVICE, DNS, "ns1")
    await api.client().create(ENDPOINT_SLICE, slices, "ns1")
    agent = assemble(api.client(), "node1", settings, site, [Family.IPV4])
    async with running(agent.run()):
        async with asyncio.timeout(30):
            await agent.synced()
        assert ConntrackSettings(bench.net.node).read("tcp_timeout_close_wait") == 3600
        assert await asyncio.to_thread(client.ask, CLUSTER_IP, 53) == "a1"
        other = endpoint(PODS["b1"][1])
        api.edit(ENDPOINT_SLICE, "dns-a", "ns1", lambda obj: obj.update(endpoints=[other]))
        ((_, metrics),) = agent.metrics
        await until(lambda: metrics.conntrack_reconciler_deleted_entries_total == 1)
        assert await asyncio.to_thread(client.ask, CLUSTER_IP, 53) == "b1"
