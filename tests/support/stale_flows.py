"""UDP flows of clients that keep their socket, past changes of the endpoints: what the cleaner removes, in any mode.

One client calls a Service by each kind of address it has. Beside these flows are others that are nobody's business:
to another Service with the same endpoint, to a pod itself, and by TCP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace

from support.dual_net import CLIENT, NODE, POD_PORT, PODS, SETTINGS, DualNet, Flow
from support.proxy import Object, endpoint, feed, service, slice_of

from netkit.kernel.conntrack import Conntrack, Entry
from netkit.kernel.netlink import attributes
from netkit.proxy.addresses import Family, parse_address
from netkit.proxy.backend import Backend, Synced
from netkit.proxy.conntrack_cleaner import ConntrackCleaner
from netkit.proxy.metrics import ProxyMetrics
from netkit.proxy.modes import Site, backends
from netkit.proxy.settings import ProxyMode
from netkit.proxy.state import ProxyState

PORT, NODE_PORT, OTHER_PORT = 53, 30053, 54
CLUSTER_IP = {Family.IPV4: "172.30.0.53", Family.IPV6: "fd00:96::53"}
EXTERNAL_IP = {Family.IPV4: "1.2.3.4", Family.IPV6: "fd00:1234::4"}
BALANCER_IP = {Family.IPV4: "5.6.7.8", Family.IPV6: "fd00:5678::8"}
OTHER_IP = {Family.IPV4: "172.30.0.54", Family.IPV6: "fd00:96::54"}
_UDP, _TCP = 17, 6
_ID = 12


@dataclass
class StaleFlows:
    """One family of one node, in a mode, and the flows. The cleaner works when it is told to."""

    net: DualNet
    family: Family
    backend: Backend
    stack: ExitStack
    state: ProxyState
    metrics: ProxyMetrics = field(default_factory=ProxyMetrics)
    flows: dict[str, Flow] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def made(cls, net: DualNet, mode: ProxyMode, family: Family) -> AsyncIterator[StaleFlows]:
        settings = replace(SETTINGS, mode=mode)
        (backend,) = backends(settings, Site("node", net.node, net.directory / "xtables.lock"), [family])
        with ExitStack() as stack:
            made = cls(net, family, backend, stack, ProxyState(family))
            table = Conntrack(net.node)
            table.delete(table.dump(family.version, _UDP))
            try:
                await backend.sync(made.state, None)
                yield made
            finally:
                await backend.cleanup()
                backend.release()

    @property
    def called(self) -> dict[str, tuple[str, int]]:
        """The Service's addresses and ports by kind."""
        return {
            "cluster IP": (CLUSTER_IP[self.family], PORT),
            "external IP": (EXTERNAL_IP[self.family], PORT),
            "load balancer IP": (BALANCER_IP[self.family], PORT),
            "node port": (NODE[self.family], NODE_PORT),
        }

    def open_flows(self) -> None:
        """One of each kind."""
        for name, place in self.called.items():
            self.flows[name] = self._opened("UDP", *place)

    def open_others(self) -> list[Flow]:
        """Those that nobody may touch."""
        pod = PODS["p1"][self.family]
        return [
            self._opened("UDP", OTHER_IP[self.family], OTHER_PORT),
            self._opened("UDP", pod, POD_PORT),
            self._opened("TCP", OTHER_IP[self.family], OTHER_PORT),
        ]

    async def serve(self, *pods: str) -> Synced:
        """Give the Service these endpoints, in the kernel's rules only."""
        feed(self.state, *self._objects(*pods))
        changes = self.state.collect()
        report = await self.backend.sync(self.state, changes)
        self.state.mark_synced()
        return Synced(self.state, changes, report, self.metrics)

    async def cleaned(self, synced: Synced) -> int:
        """The cleaner has had its turn: how many entries it deleted."""
        before = self.metrics.conntrack_reconciler_deleted_entries_total
        await ConntrackCleaner("node", Conntrack(self.net.node)).after_sync(synced)
        return self.metrics.conntrack_reconciler_deleted_entries_total - before

    async def asked(self, tries: int = 1) -> dict[str, str]:
        """Who answers each flow."""
        return {name: (await asyncio.to_thread(flow.ask, tries))[0] for name, flow in self.flows.items()}

    def leading_to(self, pod: str) -> int:
        """How many UDP entries of the Service's addresses lead there."""
        packed = _packed(PODS[pod][self.family])
        ours = {(_packed(address), port) for address, port in self.called.values()}
        return sum(
            (entry.original.destination, entry.original.destination_port) in ours
            and entry.reply.source == packed
            for entry in self.entries(_UDP)
        )

    def entries(self, protocol: int) -> list[Entry]:
        return Conntrack(self.net.node).dump(self.family.version, protocol)

    def identities(self, flows: list[Flow]) -> set[bytes]:
        """The kernel's numbers of the entries of these flows."""
        places = {flow.place for flow in flows}
        found = [
            attributes(entry.message)[_ID]
            for protocol in (_UDP, _TCP)
            for entry in self.entries(protocol)
            if (entry.original.source, entry.original.source_port) in places
        ]
        assert len(found) == len(flows)
        return set(found)

    def _opened(self, protocol: str, address: str, port: int) -> Flow:
        flow = self.net.flow("client", self.family, protocol, address, port, patience=2)
        return self.stack.enter_context(closing(flow))

    def _objects(self, *pods: str) -> Iterator[Object]:
        points = [endpoint(PODS[pod][self.family], "node") for pod in pods]
        udp = {"name": "dns", "protocol": "UDP"}
        yield service(
            "ns1/dns",
            CLUSTER_IP[self.family],
            [{**udp, "port": PORT, "nodePort": NODE_PORT}],
            type="LoadBalancer",
            externalIPs=[EXTERNAL_IP[self.family]],
            ingress=[{"ip": BALANCER_IP[self.family]}],
        )
        kind = {"address_type": self.family}
        yield slice_of("ns1/dns", *points, ports=[{**udp, "port": POD_PORT}], **kind)
        tcp = {"name": "tcp", "protocol": "TCP"}
        ports = [{**item, "port": OTHER_PORT} for item in (udp, tcp)]
        yield service("ns1/other", OTHER_IP[self.family], ports)
        ports = [{**item, "port": POD_PORT} for item in (udp, tcp)]
        yield slice_of("ns1/other", endpoint(PODS["p1"][self.family], "node"), ports=ports, **kind)


def _packed(address: str) -> bytes:
    return parse_address(address).packed


async def flows_follow_their_service(net: DualNet, mode: ProxyMode, family: Family) -> None:
    """A new endpoint, none at all, and one again: the flows of every address go along, all others stay.

    IPVS forgets a real server's UDP flows itself, and their entries with them, at the next datagram at the latest.
    """
    ipvs = mode is ProxyMode.IPVS
    async with StaleFlows.made(net, mode, family) as found:
        everybody = len(found.called)
        await found.cleaned(await found.serve("p1"))
        found.open_flows()
        others = found.open_others()
        assert set((await found.asked()).values()) == {"p1"}
        assert [(await asyncio.to_thread(flow.ask))[0] for flow in others] == ["p1"] * len(others)
        before = found.identities(others)

        happened = await found.serve("p2")
        if not ipvs:
            assert set((await found.asked()).values()) == {"p1"}, "translated before, and still"
            assert found.leading_to("p1") == everybody
        deleted = await found.cleaned(happened)
        assert found.leading_to("p1") == 0
        assert ipvs or deleted == everybody
        assert set((await found.asked(tries=3)).values()) == {"p2"}

        deleted = await found.cleaned(await found.serve())
        assert found.leading_to("p2") == 0
        assert ipvs or deleted == everybody
        for flow in found.flows.values():
            flow.shout()
        await found.cleaned(await found.serve("p1"))
        assert set((await found.asked(tries=3)).values()) == {"p1"}

        assert found.identities(others) == before
        assert [(await asyncio.to_thread(flow.ask))[0] for flow in others] == ["p1"] * len(others)


async def flows_older_than_the_service_get_through(net: DualNet, mode: ProxyMode, family: Family) -> None:
    """Datagrams that were sent before there was a rule for them made entries that translate nothing."""
    async with StaleFlows.made(net, mode, family) as found:
        found.open_flows()
        for flow in found.flows.values():
            flow.shout()
        untranslated = [entry for entry in found.entries(_UDP) if _is_plain(entry, found)]
        assert len(untranslated) == len(found.called)
        assert await found.cleaned(await found.serve("p1")) == len(found.called)
        assert not [entry for entry in found.entries(_UDP) if _is_plain(entry, found)]
        assert set((await found.asked(tries=3)).values()) == {"p1"}
        assert await found.cleaned(await found.serve("p1", "p2")) == 0
        assert set((await found.asked()).values()) == {"p1"}


def _is_plain(entry: Entry, found: StaleFlows) -> bool:
    """Whether it is a flow of ours that is not translated."""
    return (
        entry.original.source == _packed(CLIENT[found.family])
        and (entry.original.source, entry.original.source_port)
        in {flow.place for flow in found.flows.values()}
        and entry.reply.source == entry.original.destination
    )
