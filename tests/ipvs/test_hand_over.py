"""Flows of every protocol and family go on when the IPVS mode leaves: connection tracking translates from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import pytest
from support.dual_net import KINDS, NODE, POD_PORT, PODS, SETTINGS, DualNet, Flow
from support.ipvs import nf_tables_missing
from support.proxy import endpoint, feed, service, slice_of, state_of

from netkit.kernel.iptables import Variant
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.modes import Site, backends, remove_leftovers
from netkit.proxy.settings import ProxyMode
from netkit.proxy.state import ProxyState

VIP = {Family.IPV4: "172.30.0.46", Family.IPV6: "fd00:96::46"}
NODE_PORT = 30001
PORT = {"TCP": 80, "UDP": 81, "SCTP": 82}


def state(family: Family) -> ProxyState:
    made = state_of(family=family)
    for protocol, port in PORT.items():
        ports = [{"name": "p", "port": port, "nodePort": NODE_PORT, "protocol": protocol}]
        points = [endpoint(addresses[family], "node") for addresses in PODS.values()]
        name = f"ns1/{protocol.lower()}"
        behind = [{**ports[0], "port": POD_PORT}]
        feed(
            made,
            service(name, VIP[family], ports, type="NodePort"),
            slice_of(name, *points, ports=behind, address_type=family),
        )
    made.collect()
    return made


@dataclass
class Kept:
    """A flow, and who answered it as whom."""

    what: str
    flow: Flow
    answer: tuple[str, str]

    async def goes_on(self) -> str:
        """Asked again: "" if all is as it was, else what is not."""
        try:
            now = await asyncio.to_thread(self.flow.ask)
        except OSError as error:
            return f"{self.what}: {error!r}"
        return "" if now == self.answer else f"{self.what}: {self.answer} before, {now} now"


async def flows(net: DualNet, stack: ExitStack, family: Family, protocols: Sequence[str]) -> list[Kept]:
    """From outside and from a pod, to the cluster IP and to the node port; enough to meet both endpoints."""
    found = []
    for protocol in protocols:
        for caller in ("client", "p1"):
            for address, port in ((VIP[family], PORT[protocol]), (NODE[family], NODE_PORT)):
                for _ in PODS:
                    way = (caller, family, protocol, address, port)
                    flow = stack.enter_context(closing(await asyncio.to_thread(net.flow, *way)))
                    what = f"{family} {protocol} {caller} to {address}"
                    found.append(Kept(what, flow, await asyncio.to_thread(flow.ask)))
    return found


async def all_go_on(kept: Sequence[Kept]) -> list[str]:
    return [fault for each in kept if (fault := await each.goes_on())]


def left(net: DualNet) -> str:
    command = "ipvsadm -Sn; ipset list -n; ip -o link show kube-ipvs0 2>/dev/null; true"
    return run(["sh", "-c", command], ns=net.node, check=True).stdout.decode()


@pytest.mark.parametrize("next_mode", [ProxyMode.IPTABLES, ProxyMode.NFTABLES, ProxyMode.USERSPACE])
async def test_flows_go_on_by_the_rules_of_another_mode(dual_net: DualNet, next_mode: ProxyMode) -> None:
    """Family after family, with both served before."""
    if next_mode is ProxyMode.NFTABLES and (why := nf_tables_missing(dual_net.node)):
        pytest.skip(why)
    site = Site("node", dual_net.node, dual_net.directory / "xtables.lock", Variant.LEGACY)
    families = list(Family)
    states = {family: state(family) for family in families}
    protocols = [protocol for protocol in KINDS if next_mode is not ProxyMode.USERSPACE or protocol != "SCTP"]
    with ExitStack() as stack:
        old = backends(replace(SETTINGS, mode=ProxyMode.IPVS), site, families)
        for backend in old:
            await backend.sync(states[backend.family], None)
        kept = [each for family in families for each in await flows(dual_net, stack, family, protocols)]
        assert {each.answer[0] for each in kept} == set(PODS)
        assert await all_go_on(kept) == []
        new = backends(replace(SETTINGS, mode=next_mode), site, families)
        try:
            for backend in new:
                await backend.sync(states[backend.family], None)
            assert await all_go_on(kept) == [], "while both modes are there"
            for family in families:
                await remove_leftovers(site, [family], next_mode)
                assert await all_go_on(kept) == [], f"after {family} of ipvs is gone"
            assert left(dual_net) == ""
            assert await all_go_on(kept) == []
            fresh = [each for family in families for each in await flows(dual_net, stack, family, protocols)]
            # The userspace proxy forgets a UDP client that was silent for a quarter of a second.
            passing = next_mode is ProxyMode.USERSPACE
            assert await all_go_on([each for each in fresh if not (passing and " UDP " in each.what)]) == []
        finally:
            for backend in (*new, *old):
                await backend.cleanup()
                backend.release()
