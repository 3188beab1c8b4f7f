"""A node changes its proxy mode under constant load: no connection is lost, none fails, nothing of the old is left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.client_wait import running
from support.mode_switch import OF_USERSPACE, SwitchedNode, ways
from support.proxy_net import Net
from support.traffic import traffic

from netkit.cluster.outcome import State
from netkit.cluster.proxy_choice import Choice
from netkit.proxy.settings import NftablesLayout, ProxyMode

pytestmark = pytest.mark.root

IPTABLES, NFTABLES, USERSPACE, COMPACT = (
    Choice(ProxyMode.IPTABLES),
    Choice(ProxyMode.NFTABLES),
    Choice(ProxyMode.USERSPACE),
    Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT),
)


async def _left_of(node: SwitchedNode, mode: ProxyMode) -> str:
    """What of a mode's rules there is in the kernel: of iptables whatever is not the userspace mode's."""
    if mode is ProxyMode.NFTABLES:
        return await node.left_of(mode)
    userspace = mode is ProxyMode.USERSPACE
    return "\n".join(line for line in await node.rules() if bool(OF_USERSPACE.search(line)) == userspace)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with Net.built(tmp_path / "net") as built:
        yield built


@pytest.fixture
async def node(net: Net, tmp_path: Path) -> AsyncIterator[SwitchedNode]:
    async with SwitchedNode.made(net, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "course",
    [
        [IPTABLES, NFTABLES, IPTABLES],
        [NFTABLES, IPTABLES, NFTABLES],
        [NFTABLES, COMPACT, NFTABLES],
        [COMPACT, IPTABLES, COMPACT],
        [IPTABLES, USERSPACE, IPTABLES],
        [NFTABLES, USERSPACE, NFTABLES],
    ],
    ids=lambda course: " to ".join(choice.shown for choice in course),
)
async def test_nothing_is_lost(node: SwitchedNode, course: list[Choice]) -> None:
    async with running(node.proxy(course[0]).run()):
        outcome = await node.over(course[0])
        assert outcome.state is State.SERVING, outcome
        async with traffic(*ways(node.net)) as told:
            await told.more()
            for before, choice in itertools.pairwise(course):
                outcome = await node.change(choice)
                assert (outcome.state, outcome.mode, outcome.layout) == (
                    State.SERVING,
                    choice.mode,
                    choice.layout,
                )
                if before.mode is not choice.mode:
                    assert "KUBE" not in await _left_of(node, before.mode)
                    assert "kube-proxy" not in await _left_of(node, before.mode)
                assert await _left_of(node, choice.mode)
                await told.more()
        assert told.failures == []


async def test_what_the_kernel_lacks_is_refused_and_nothing_stops(node: SwitchedNode) -> None:
    async with running(node.proxy(IPTABLES).run()):
        await node.over(IPTABLES)
        async with traffic(*ways(node.net)) as told:
            outcome = await node.change(Choice(ProxyMode.IPVS))
            if outcome.state is State.SERVING:
                pytest.skip("this kernel has IPVS")
            assert (outcome.state, outcome.mode) == (State.FAILED, ProxyMode.IPTABLES)
            assert outcome.hint
            await told.more()
        assert told.failures == []


async def test_an_agent_killed_between_the_modes_ends_with_one(node: SwitchedNode) -> None:
    """Rules of both stand, as after kill -9 in the middle of a change; the next agent leaves only the chosen one's."""
    for choice in (IPTABLES, NFTABLES):
        agent = node.make(choice)
        async with running(agent.run()):
            async with asyncio.timeout(60):
                await agent.synced()
    assert "KUBE" in await _left_of(node, ProxyMode.IPTABLES)
    node.files.choose(NFTABLES)
    async with running(node.proxy(IPTABLES).run()):
        outcome = await node.over(NFTABLES)
        assert outcome.mode is ProxyMode.NFTABLES
        assert await _left_of(node, ProxyMode.IPTABLES) == ""
        async with traffic(*ways(node.net)) as told:
            await told.more()
        assert told.failures == []
