"""IPv6 and SCTP through the IPVS mode: a client, a node and two pods, with real packets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.dual_net import CLIENT, KINDS, NODE, POD_PORT, PODS, SETTINGS, DualNet
from support.proxy import Object, endpoint, feed, service, slice_of, state_of

from netkit.kernel.iptables import IPTables, Variant
from netkit.kernel.process import run
from netkit.proxy.addresses import Family
from netkit.proxy.backend import Backend
from netkit.proxy.ipvs.backend import IPVSBackend
from netkit.proxy.ipvs.drivers import Drivers
from netkit.proxy.listing import differences
from netkit.proxy.state import ProxyState

VIP = {Family.IPV4: "172.30.0.41", Family.IPV6: "fd00:96::41"}
NODE_PORT = 30001


@pytest.fixture
async def backends(dual_net: DualNet) -> AsyncIterator[dict[Family, IPVSBackend]]:
    made = {}
    lock = dual_net.directory / "xtables.lock"
    for family in Family:
        iptables = IPTables(dual_net.node, Variant.LEGACY, version=family.version, lock_file=lock)
        made[family] = IPVSBackend("node", SETTINGS, Drivers.of(iptables))
    yield made
    for backend in made.values():
        await backend.cleanup()
        backend.release()
    rules = "(iptables-legacy-save; ip6tables-legacy-save) | grep KUBE"
    command = f"ipvsadm -Sn; ipset list -n; {rules}; ip link show kube-ipvs0"
    assert run(["sh", "-c", command], ns=dual_net.node).stdout == b""


def objects(family: Family, protocol: str) -> tuple[Object, Object]:
    ports = [{"name": "p", "port": 80, "nodePort": NODE_PORT, "protocol": protocol}]
    made = service("ns1/svc1", VIP[family], ports, type="NodePort")
    points = [endpoint(addresses[family], "node") for addresses in PODS.values()]
    return made, slice_of("ns1/svc1", *points, ports=[{**ports[0], "port": POD_PORT}], address_type=family)


async def synced(backend: Backend, state: ProxyState) -> None:
    await backend.sync(state, state.collect())
    state.mark_synced()
    assert differences(await backend.wanted(state), await backend.standing()) == ()


@pytest.mark.parametrize("protocol", list(KINDS))
@pytest.mark.parametrize("family", list(Family))
async def test_cluster_ip_and_node_port(
    dual_net: DualNet, backends: dict[Family, IPVSBackend], family: Family, protocol: str
) -> None:
    state = state_of(family=family)
    feed(state, *objects(family, protocol))
    await synced(backends[family], state)
    for address, port in ((VIP[family], 80), (NODE[family], NODE_PORT)):
        answers = [dual_net.ask(family, protocol, address, port) for _ in range(4)]
        assert {pod for pod, _ in answers} == set(PODS)
        assert all(seen != CLIENT[family] for _, seen in answers), "calls from outside are masqueraded"


async def test_both_families_at_once(dual_net: DualNet, backends: dict[Family, IPVSBackend]) -> None:
    states = {}
    for family in Family:
        states[family] = state_of(family=family)
        feed(states[family], *objects(family, "TCP"))
        await synced(backends[family], states[family])
    for family in Family:
        assert {dual_net.ask(family, "TCP", VIP[family], 80)[0] for _ in range(4)} == set(PODS)
        assert await backends[family].intact()
        assert not (await backends[family].sync(states[family], None)).wrote
    await backends[Family.IPV4].cleanup()
    six = Family.IPV6
    assert {dual_net.ask(six, "TCP", VIP[six], 80)[0] for _ in range(4)} == set(PODS)
    assert await backends[six].intact()
