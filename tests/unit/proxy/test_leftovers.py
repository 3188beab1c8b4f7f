"""The iptables and IPVS modes share chain names: what one leaves goes, what the other is at work with stays."""

from __future__ import annotations

from support.ipvs import World
from support.proxy import FakeNodeKernel, endpoint, service, slice_of, state_of

from netkit.proxy.iptables import cleanup
from netkit.proxy.iptables.backend import IPTablesBackend
from netkit.proxy.ipvs import documents
from netkit.proxy.leftover_rules import cleanup_document, spelled
from netkit.proxy.listing import differences
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

SETTINGS = ProxySettings(cluster_cidr="10.244.0.0/16")
FOREIGN = "*nat\n:SOMEBODY - [0:0]\n-A PREROUTING -j SOMEBODY\nCOMMIT\n*filter\n-A INPUT -j ACCEPT\nCOMMIT\n"


def state() -> ProxyState:
    return state_of(
        service(
            "ns1/svc1",
            "172.30.0.41",
            type="LoadBalancer",
            ports=[{"name": "p80", "port": 80, "nodePort": 30001}],
            externalIPs=["1.2.3.4"],
            ingress=[{"ip": "5.6.7.8"}],
            loadBalancerSourceRanges=["203.0.113.0/25"],
        ),
        service("ns1/empty", "172.30.0.42"),
        slice_of("ns1/svc1", endpoint("10.244.1.1", "here"), "10.244.2.1"),
    )


class Both:
    """Both modes on one node, which has somebody else's rules too."""

    def __init__(self) -> None:
        self.world = World(SETTINGS)
        self.rules = self.world.iptables
        self.ipvs = self.world.backend
        self.iptables = IPTablesBackend("here", SETTINGS, self.rules, FakeNodeKernel())  # type: ignore[arg-type]

    async def ours(self) -> list[str]:
        """Our chains and rules, and rules that lead into one, in no order."""
        return sorted(line for line in (await self.rules.save()).splitlines() if "KUBE" in line)

    async def foreign(self) -> list[str]:
        lines = (await self.rules.save()).splitlines()
        return [line for line in lines if "KUBE" not in line and (line[0] == "-" or "SOMEBODY" in line)]


async def test_from_iptables_to_ipvs() -> None:
    both, alone = Both(), Both()
    await both.rules.restore(FOREIGN)
    foreign = await both.foreign()
    await alone.ipvs.sync(state(), None)

    await both.iptables.sync(state(), None)
    await both.ipvs.sync(state(), None)
    assert await both.ours() != await alone.ours()
    await both.iptables.cleanup(documents.OURS)

    assert await both.ours() == await alone.ours()
    assert await both.foreign() == foreign
    assert differences(await both.ipvs.wanted(state()), await both.ipvs.standing()) == ()
    assert not (await both.ipvs.sync(state(), None)).wrote


async def test_from_ipvs_to_iptables() -> None:
    both, alone = Both(), Both()
    await both.rules.restore(FOREIGN)
    foreign = await both.foreign()
    await alone.iptables.sync(state(), None)

    await both.ipvs.sync(state(), None)
    await both.iptables.sync(state(), None)
    assert await both.ours() != await alone.ours()
    await both.ipvs.cleanup(cleanup.OURS)

    assert await both.ours() == await alone.ours()
    assert await both.foreign() == foreign
    assert str(both.world.servers) == ""
    assert both.world.sets.contents == {}
    assert not both.world.node.devices.get("kube-ipvs0")


async def test_without_another_mode_all_goes() -> None:
    both = Both()
    await both.iptables.sync(state(), None)
    await both.ipvs.sync(state(), None)
    await both.iptables.cleanup()
    await both.ipvs.cleanup()
    assert await both.ours() == []


def test_rules_are_compared_in_one_spelling() -> None:
    assert (
        spelled("-m comment --comment 'two words' -j KUBE-A") == '-m comment --comment "two words" -j KUBE-A'
    )


def test_other_tables_and_rules_are_not_named() -> None:
    saved = "*nat\n:INPUT ACCEPT [0:0]\n:KUBE-A - [0:0]\n-A INPUT -j ACCEPT\n-A INPUT -j KUBE-B\nCOMMIT\n"
    document = cleanup_document(saved, lambda place: place == ("nat", "KUBE-A"))
    assert document == "*nat\n:KUBE-A - [0:0]\n-X KUBE-A\nCOMMIT\n"
    assert cleanup_document(saved, lambda place: place[0] == "filter") == ""
