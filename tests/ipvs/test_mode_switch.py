"""A node changes to the IPVS mode and back under constant load: connections go on, nothing of the old mode is left.

Of what stands through IPVS one kind cannot go on: the node's own connections to a service address. Their source is
that address as well, because `kube-ipvs0` has it, and it leaves the node with the mode. New ones of that kind are
made between the changes.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.client_wait import running
from support.ipvs import nf_tables_missing
from support.mode_switch import CLUSTER_IP, NODE_PORT, SwitchedNode
from support.proxy_net import NODE1, Net
from support.traffic import Traffic, Way, traffic

from netkit.cluster.outcome import State
from netkit.cluster.proxy_choice import Choice
from netkit.kernel.iptables import Variant
from netkit.proxy.addresses import Family
from netkit.proxy.modes import remove_leftovers
from netkit.proxy.settings import NftablesLayout, ProxyMode

IPTABLES, NFTABLES, IPVS, USERSPACE, COMPACT = (
    Choice(ProxyMode.IPTABLES),
    Choice(ProxyMode.NFTABLES),
    Choice(ProxyMode.IPVS),
    Choice(ProxyMode.USERSPACE),
    Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT),
)


@pytest.fixture
async def node(net: Net, tmp_path: Path) -> AsyncIterator[SwitchedNode]:
    async with SwitchedNode.made(net, tmp_path, Variant.LEGACY) as made:
        yield made
        await remove_leftovers(made.site, [Family.IPV4])
        assert await made.rules() == []
        assert await made.left_of(ProxyMode.IPVS) == ""


def ways(net: Net) -> Sequence[Way]:
    return [
        Way("pod to cluster IP", net.spaces["a2"], CLUSTER_IP, 80),
        Way("pod to NodePort", net.spaces["a2"], NODE1, NODE_PORT),
        Way("endpoint to its own Service", net.spaces["a1"], CLUSTER_IP, 80),
        Way("node to NodePort", net.spaces["node1"], NODE1, NODE_PORT),
        Way("outside to NodePort", net.spaces["outside"], NODE1, NODE_PORT),
        Way("outside to cluster IP", net.spaces["outside"], CLUSTER_IP, 80),
    ]


def require(net: Net, course: Sequence[Choice]) -> None:
    """Skip what this kernel lacks."""
    if any(choice.mode is ProxyMode.NFTABLES for choice in course) and (why := nf_tables_missing(net.node)):
        pytest.skip(why)


async def node_to_cluster_ip(net: Net) -> None:
    """New connections of the node itself."""
    async with traffic(Way("node to cluster IP", net.node, CLUSTER_IP, 80, kept=False), resent=True) as told:
        await told.more(4)
    assert told.failures == []


async def changed(node: SwitchedNode, before: Choice, choice: Choice, told: Traffic) -> None:
    """The mode has changed under load, and nothing of the one before is left."""
    outcome = await node.change(choice)
    assert (outcome.state, outcome.mode) == (State.SERVING, choice.mode), outcome
    assert await node.left_of(choice.mode)
    if before.mode is not choice.mode:
        left = await node.left_of(before.mode)
        assert "kube" not in left.lower()
        assert before.mode is not ProxyMode.IPVS or left == ""
    if choice.mode is ProxyMode.NFTABLES:
        assert await node.rules() == []
    await told.more()
    await node_to_cluster_ip(node.net)


@pytest.mark.parametrize(
    "course",
    [
        [IPTABLES, IPVS, IPTABLES],
        [USERSPACE, IPVS],
        [IPVS, USERSPACE],
        [IPTABLES, IPVS, NFTABLES, IPVS, IPTABLES],
        [IPVS, COMPACT, IPVS],
    ],
    ids=lambda course: " to ".join(choice.shown for choice in course),
)
async def test_nothing_is_lost(node: SwitchedNode, course: list[Choice]) -> None:
    require(node.net, course)
    kept = [way for way in ways(node.net) if course[0] is not USERSPACE or way.space is not node.net.node]
    async with running(node.proxy(course[0]).run()):
        outcome = await node.over(course[0])
        assert outcome.state is State.SERVING, outcome
        async with traffic(*kept, resent=True) as told:
            await told.more()
            for before, choice in itertools.pairwise(course):
                await changed(node, before, choice, told)
        assert told.failures == []
