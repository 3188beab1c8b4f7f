"""A node's proxy changes its mode: the order of steps, the way back, and what restarts find. Proxies are fakes here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.client_wait import running, until

from netkit.cluster import node_proxy
from netkit.cluster.node_proxy import NodeProxy
from netkit.cluster.outcome import State
from netkit.cluster.proxy_choice import Choice, Outcome, ProxyFiles
from netkit.kernel.errors import Unsupported
from netkit.kernel.netns import HOST
from netkit.proxy.addresses import Family
from netkit.proxy.modes import Site
from netkit.proxy.settings import NftablesLayout, ProxyMode

IPTABLES, NFTABLES, IPVS = (Choice(mode) for mode in (ProxyMode.IPTABLES, ProxyMode.NFTABLES, ProxyMode.IPVS))


@dataclass
class FakeAgent:
    """Writes its rules once `gate` is open; `fault` ends it instead."""

    choice: Choice
    story: list[str]
    gate: asyncio.Event
    fault: Exception | None = None
    stands: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        self.story.append(f"{self.choice.mode} starts")
        try:
            await self.gate.wait()
            if self.fault:
                raise self.fault
            self.story.append(f"{self.choice.mode} stands")
            self.stands.set()
            await asyncio.Event().wait()
        finally:
            self.story.append(f"{self.choice.mode} stops")

    async def synced(self) -> None:
        await self.stands.wait()

    def release(self) -> None:
        self.story.append(f"{self.choice.mode} lets go")


class Node:
    """A node with its files, and what happened on it so far."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = ProxyFiles(directory / "nodes" / "node1")
        self.story: list[str] = []
        self.closed: dict[ProxyMode, asyncio.Event] = {}
        self.faults: dict[ProxyMode, Exception] = {}
        self.refused: dict[ProxyMode, Exception] = {}
        monkeypatch.setattr(node_proxy, "remove_leftovers", self.remove_leftovers)

    async def remove_leftovers(self, site: Site, families: list[Family], beside: ProxyMode) -> None:
        self.story.append(f"only {beside} is left")

    def make(self, choice: Choice) -> Any:
        if choice.mode in self.refused:
            raise self.refused[choice.mode]
        gate = self.closed.get(choice.mode, asyncio.Event())
        if choice.mode not in self.closed:
            gate.set()
        return FakeAgent(choice, self.story, gate, self.faults.get(choice.mode))

    def proxy(self, patience: float = 30.0) -> NodeProxy:
        return NodeProxy(Site("node1", HOST), self.files, IPTABLES, self.make, patience)

    async def outcome(self, test: Callable[[Outcome], bool]) -> Outcome:
        def found() -> Outcome | None:
            outcome = self.files.outcome()
            return outcome if outcome and test(outcome) else None

        await until(lambda: found() is not None)
        outcome = found()
        assert outcome is not None
        return outcome

    async def serving(self, mode: ProxyMode, asked: str = "") -> Outcome:
        return await self.outcome(lambda o: (o.state, o.mode, o.asked) == (State.SERVING, mode, asked))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


async def test_without_a_choice_the_clusters_mode_is_at_work(node: Node) -> None:
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.IPTABLES)
    assert node.story == ["iptables starts", "iptables stands", "only iptables is left", "iptables stops",
                          "iptables lets go"]  # fmt: skip


async def test_the_new_rules_stand_before_the_old_ones_go(node: Node) -> None:
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.IPTABLES)
        node.story.clear()
        node.files.choose(Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT, "wish"))
        outcome = await node.serving(ProxyMode.NFTABLES, "wish")
        assert outcome.layout is NftablesLayout.COMPACT
        assert node.story == ["iptables stops", "nftables starts", "nftables stands", "only nftables is left",
                              "iptables lets go"]  # fmt: skip


async def test_the_choice_outlives_the_agent(node: Node) -> None:
    node.files.choose(Choice(ProxyMode.NFTABLES, asked="wish"))
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.NFTABLES, "wish")
    assert node.story[0] == "nftables starts"


async def test_the_mode_at_work_asked_for_again_changes_nothing(node: Node) -> None:
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.IPTABLES)
        node.files.choose(Choice(ProxyMode.IPTABLES, asked="wish"))
        await node.serving(ProxyMode.IPTABLES, "wish")
        assert node.story == ["iptables starts", "iptables stands", "only iptables is left"]


async def test_a_mode_the_kernel_lacks_is_refused_and_the_old_one_goes_on(node: Node) -> None:
    node.refused[ProxyMode.IPVS] = Unsupported("ip_vs", hint="modprobe ip_vs")
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.IPTABLES)
        node.files.choose(Choice(ProxyMode.IPVS, asked="wish"))
        outcome = await node.outcome(lambda o: o.state is State.FAILED)
        assert outcome == Outcome("wish", State.FAILED, ProxyMode.IPTABLES, NftablesLayout.KUBE_PROXY, "ip_vs",
                                  "modprobe ip_vs")  # fmt: skip
        assert "iptables stops" not in node.story
        await until(lambda: node.files.choice() == Choice(ProxyMode.IPTABLES, asked="wish"))
        node.files.choose(Choice(ProxyMode.NFTABLES, asked="next"))
        await node.serving(ProxyMode.NFTABLES, "next")


@pytest.mark.parametrize("how", ["never ready", "dies"])
async def test_a_mode_that_does_not_come_to_work_is_taken_back(node: Node, how: str) -> None:
    if how == "dies":
        node.faults[ProxyMode.NFTABLES] = ExceptionGroup("died", [ValueError("x")])
    else:
        node.closed[ProxyMode.NFTABLES] = asyncio.Event()
    async with running(node.proxy(patience=0.05 if how == "never ready" else 30.0).run()):
        await node.serving(ProxyMode.IPTABLES)
        node.story.clear()
        node.files.choose(Choice(ProxyMode.NFTABLES, asked="wish"))
        outcome = await node.outcome(lambda o: o.state is State.FAILED)
        assert outcome.mode is ProxyMode.IPTABLES
        assert outcome.error
        assert node.story == ["iptables stops", "nftables starts", "nftables stops", "nftables lets go",
                              "iptables lets go", "iptables starts", "iptables stands",
                              "only iptables is left"]  # fmt: skip
        choice = node.files.choice()
        assert choice is not None
        assert choice.mode is ProxyMode.IPTABLES


async def test_the_first_mode_may_wait_and_be_changed_meanwhile(node: Node) -> None:
    node.closed[ProxyMode.IPTABLES] = asyncio.Event()
    async with running(node.proxy(patience=0.01).run()):
        await until(lambda: node.story == ["iptables starts"])
        node.files.choose(Choice(ProxyMode.NFTABLES, asked="wish"))
        await node.serving(ProxyMode.NFTABLES, "wish")
        assert node.story == ["iptables starts", "iptables stops", "nftables starts", "nftables stands",
                              "only nftables is left", "iptables lets go"]  # fmt: skip


async def test_a_kernel_without_the_first_mode_waits_for_another(node: Node) -> None:
    node.refused[ProxyMode.IPTABLES] = Unsupported("iptables")
    async with running(node.proxy().run()):
        await node.outcome(lambda o: o.state is State.FAILED)
        node.files.choose(Choice(ProxyMode.NFTABLES, asked="wish"))
        await node.serving(ProxyMode.NFTABLES, "wish")


async def test_a_proxy_that_dies_ends_the_node_agent(node: Node) -> None:
    node.closed[ProxyMode.IPTABLES] = asyncio.Event()
    node.faults[ProxyMode.IPTABLES] = ExceptionGroup("died", [ValueError("x")])
    task = asyncio.create_task(node.proxy().run())
    await until(lambda: node.story == ["iptables starts"])
    node.closed[ProxyMode.IPTABLES].set()
    with pytest.raises(ExceptionGroup, match="died"):
        async with asyncio.timeout(5):
            await task


async def test_a_quick_change_of_mind_ends_in_the_last_wish(node: Node) -> None:
    async with running(node.proxy().run()):
        await node.serving(ProxyMode.IPTABLES)
        for number, mode in enumerate(
            (ProxyMode.NFTABLES, ProxyMode.IPTABLES, ProxyMode.NFTABLES, ProxyMode.IPVS)
        ):
            node.files.choose(Choice(mode, asked=f"wish {number}"))
            await asyncio.sleep(0)
        await node.serving(ProxyMode.IPVS, "wish 3")
        assert "only ipvs is left" in node.story[-2:]


def test_a_choice_reads_back(tmp_path: Path) -> None:
    files = ProxyFiles(tmp_path / "new")
    assert files.choice() is None
    assert files.outcome() is None
    choice = Choice(ProxyMode.NFTABLES, NftablesLayout.COMPACT, "x")
    files.choose(choice)
    assert files.choice() == choice
    assert choice.shown == "nftables (compact)"
    outcome = Outcome("x", State.FAILED, ProxyMode.IPVS, NftablesLayout.KUBE_PROXY, "e", "h", 1.5)
    files.report(outcome)
    assert files.outcome() == outcome
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "proxy-choice.json",
        "proxy-outcome.json",
    ]
