"""Endpoints that leave with UDP and SCTP flows are not waited for, and those who stay keep theirs undisturbed.

As in kube-proxy, only TCP connections keep a real server; see test_data_path for those.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing

import pytest
from support.dual_net import POD_PORT, PODS, SETTINGS, DualNet, Flow
from support.ipvs import key
from support.proxy import endpoint, feed, service, slice_of, state_of

from netkit.kernel.ipvs_values import ServerKey, Target, Transport
from netkit.kernel.process import run
from netkit.proxy.addresses import Family, host_port, parse_address
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.modes import Site
from netkit.proxy.state import ProxyState

VIP = {Family.IPV4: "172.30.0.45", Family.IPV6: "fd00:96::45"}
"""Of no other test: IPVS remembers connections for longer than a virtual server is there."""
PORT = 80


class Leaving:
    """One Service of one protocol and family, and its real servers."""

    def __init__(self, net: DualNet, family: Family, protocol: str) -> None:
        self.net, self.family, self.protocol = net, family, protocol
        iptables = Site("node", net.node, net.directory / "xtables.lock").iptables(family)
        self.drivers = Drivers.of(iptables)
        self.backend = IPVSBackend("node", SETTINGS, self.drivers)
        self.state: ProxyState = state_of(family=family)
        self.key: ServerKey = key(host_port(parse_address(VIP[family]), PORT), Transport[protocol])

    async def serve(self, *pods: str) -> None:
        ports = [{"name": "p", "port": PORT, "protocol": self.protocol}]
        points = [endpoint(PODS[pod][self.family], "node") for pod in pods]
        behind = [{**ports[0], "port": POD_PORT}]
        feed(
            self.state,
            service("ns1/svc1", VIP[self.family], ports),
            slice_of("ns1/svc1", *points, ports=behind, address_type=self.family),
        )
        await self.backend.sync(self.state, self.state.collect())
        self.state.mark_synced()

    def flow(self) -> Flow:
        return self.net.flow("client", self.family, self.protocol, VIP[self.family], PORT)

    def reals(self) -> dict[str, tuple[int, int]]:
        """Weight and number of connections of the real servers, by pod."""
        names = {Target(parse_address(PODS[pod][self.family]), POD_PORT): pod for pod in PODS}
        found = self.drivers.servers.real_servers(self.key)
        return {names[real.target]: (real.weight, real.connections) for real in found}

    def connections(self) -> set[str]:
        """Those of the Service, as ipvsadm prints them but for what they still have to live."""
        lines = run(["ipvsadm", "-Lnc"], ns=self.net.node, check=True).stdout.decode().splitlines()
        found = [line.split() for line in lines if line.startswith(self.protocol)]
        return {" ".join(words[3:]) for words in found if words[4] == self.key.text}


@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
@pytest.mark.parametrize("family", list(Family))
async def test_who_leaves_is_gone_at_once_and_who_stays_keeps_his_flows(
    dual_net: DualNet, family: Family, protocol: str
) -> None:
    found = Leaving(dual_net, family, protocol)
    with ExitStack() as stack:
        stack.callback(found.drivers.close)
        try:
            await found.serve("p1", "p2")
            flows = [stack.enter_context(closing(found.flow())) for _ in range(6)]
            before = [(await asyncio.to_thread(flow.ask))[0] for flow in flows]
            assert sorted(before) == ["p1"] * 3 + ["p2"] * 3
            assert found.reals() == {"p1": (1, 3), "p2": (1, 3)}
            known = found.connections()

            await found.serve("p2")
            assert found.reals() == {"p2": (1, 3)}, "no weight 0: nobody waits for these flows"
            assert found.backend._writer.next_look() is None
            for flow, pod in zip(flows, before, strict=True):
                if pod == "p2":
                    assert (await asyncio.to_thread(flow.ask))[0] == "p2"
            stayed = {line for line in known if PODS["p2"][family] in line}
            assert len(stayed) == 3
            assert stayed <= found.connections(), "the very same connections"
            with closing(found.flow()) as fresh:
                assert (await asyncio.to_thread(fresh.ask))[0] == "p2"
            if protocol == "UDP":
                # The first datagram may be the one by which IPVS finds out.
                again = [(await asyncio.to_thread(flow.ask, 3))[0] for flow in flows]
                assert again == ["p2"] * 6
            assert not [line for line in found.connections() if PODS["p1"][family] in line]

            await found.serve("p1", "p2")
            assert found.reals()["p1"] == (1, 0)
        finally:
            await found.backend.cleanup()
