"""The iptables back end on a fake kernel: what it reads, when it writes."""

from ipaddress import ip_address

import pytest
from support.proxy import FakeNodeKernel, endpoint, feed, service, slice_of, state_of

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.backend import NodeFacts
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.iptables.rules import COUNTERS, LARGE_CLUSTER_ENDPOINTS
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

NODE_PORT = service(type="NodePort", ports=[{"name": "p80", "port": 80, "nodePort": 3001}])


class Rig:
    """A back end and its fakes."""

    def __init__(self, settings: ProxySettings | None = None, version: int = 4) -> None:
        self.rules = FakeIPTables(version=version)
        self.kernel = FakeNodeKernel()
        self.settings = settings or ProxySettings(cluster_cidr="10.0.0.0/8")
        self.backend = self.restarted()

    def restarted(self) -> IPTablesBackend:
        return IPTablesBackend("here", self.settings, self.rules, self.kernel)  # type: ignore[arg-type]

    async def partial(self, state: ProxyState) -> str:
        """Sync what changed; the document, empty if there was none."""
        before = len(self.rules.documents)
        await self.backend.sync(state, state.collect())
        state.mark_synced()
        return "".join(self.rules.documents[before:])


async def test_a_restart_adopts_what_stands() -> None:
    rig, state = Rig(), state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    first = await rig.backend.sync(state, None)
    assert (first.wrote, first.full) == (True, True)
    assert first.rules_written["nat"] == first.rules_total["nat"]
    second = await rig.restarted().sync(state, None)
    assert (second.wrote, second.full, second.rules_written) == (False, True, {})
    assert second.rules_total == first.rules_total
    assert len(rig.rules.documents) == 1


async def test_route_localnet_is_asked_for_even_if_all_rules_stand() -> None:
    rig, state = Rig(), state_of()
    await rig.backend.sync(state, None)
    rig.kernel.localnet = False
    await rig.restarted().sync(state, None)
    assert rig.kernel.localnet


@pytest.mark.parametrize(
    ("settings", "version"),
    [
        (ProxySettings(localhost_node_ports=False), 4),
        (ProxySettings(node_port_addresses=("10.0.0.0/24",)), 4),
        (ProxySettings(), 6),
    ],
)
async def test_route_localnet_is_left_alone_without_need(settings: ProxySettings, version: int) -> None:
    rig = Rig(settings, version)
    await rig.backend.sync(state_of(family=rig.backend.family), None)
    assert not rig.kernel.localnet
    assert rig.rules.rules("filter", "KUBE-FIREWALL") == []


async def test_other_addresses_of_the_node_show_at_the_next_sync() -> None:
    rig = Rig(ProxySettings(node_port_addresses=("10.0.0.0/24",)))
    state = state_of(NODE_PORT)
    await rig.backend.sync(state, None)
    rig.kernel.local.append(ip_address("10.0.0.2"))
    feed(state, slice_of("ns1/svc1", "10.1.0.1"))
    assert "-d 10.0.0.2/32 " in await rig.partial(state)
    last = rig.rules.rules("nat", "KUBE-SERVICES")[-2:]
    assert all(rule.endswith("-j KUBE-NODEPORTS") for rule in last)


async def test_growing_large_takes_the_comments_off_everywhere() -> None:
    rig = Rig()
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"), service("ns2/big", "172.30.0.9"))
    await rig.backend.sync(state, None)
    state.mark_synced()
    many = [f"10.2.{n // 200}.{n % 200}" for n in range(LARGE_CLUSTER_ENDPOINTS)]
    feed(state, slice_of("ns2/big", *many))
    await rig.partial(state)
    assert " -> " not in str(rig.rules)
    feed(state, slice_of("ns2/big"))
    await rig.partial(state)
    assert '"ns1/svc1:p80 -> 10.0.0.1:80"' in str(rig.rules)


async def test_counters_are_asked_for() -> None:
    rig = Rig()
    rig.kernel.counters = frozenset(COUNTERS)
    await rig.backend.sync(state_of(NODE_PORT, slice_of("ns1/svc1", "10.1.0.1")), None)
    assert str(rig.rules).count("--nfacct-name") == 2


async def test_changed_rules_are_looked_for_only_so_often() -> None:
    rig, state = Rig(), state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    await rig.backend.sync(state, None)
    assert await rig.backend.intact()
    rig.rules.tables["nat"]["KUBE-MARK-MASQ"].clear()
    rig.backend._next_reading = float("inf")
    assert await rig.backend.intact(), "the canary is there"
    rig.backend._next_reading = 0.0
    assert not await rig.backend.intact()
    del rig.rules.tables["mangle"]["KUBE-PROXY-CANARY"]
    rig.backend._next_reading = float("inf")
    assert not await rig.backend.intact()


async def test_rules_read_during_a_write_are_no_proof() -> None:
    rig, state = Rig(), state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    await rig.backend.sync(state, None)
    state.mark_synced()
    save = rig.rules.save

    async def slow(table: str = "") -> str:
        saved = await save(table)
        feed(state, slice_of("ns1/svc1", endpoint("10.0.0.2")))
        await rig.partial(state)
        return saved

    rig.rules.save = slow  # type: ignore[method-assign]
    assert await rig.backend.intact()


async def test_the_node_says_what_source_ranges_need() -> None:
    rig = Rig()
    assert rig.backend.configure(NodeFacts(addresses=(ip_address("203.0.113.7"),)))
    assert not rig.backend.configure(
        NodeFacts(addresses=(ip_address("203.0.113.7"),), pod_cidrs=("10.9.0.0/24",))
    )
    balancer = service(
        type="LoadBalancer", ingress=[{"ip": "5.6.7.8"}], loadBalancerSourceRanges=["203.0.113.0/25"]
    )
    state = state_of(balancer, slice_of("ns1/svc1", "10.0.0.1"))
    await rig.backend.sync(state, None)
    assert "-s 5.6.7.8/32" in str(rig.rules)
    assert rig.backend.configure(NodeFacts(addresses=(ip_address("10.0.0.1"),)))
    await rig.backend.sync(state, None)
    assert "-s 5.6.7.8/32" not in str(rig.rules)
