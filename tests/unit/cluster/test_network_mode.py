"""A pod network changes its mode: the steps that all nodes take together, and the way back. Nodes are fakes here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from support.client_wait import running, until

from netkit.cluster import doctor, network_mode
from netkit.cluster.errors import ClusterError
from netkit.cluster.network_choice import Choice, ChoiceFile, Outcome, OutcomeFile
from netkit.cluster.network_mode import NodeNetworkMode, change_mode, read_mode
from netkit.cluster.node_network import NodeNetwork
from netkit.cluster.outcome import State
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile
from netkit.kernel.probe import Feature
from netkit.podnet.agent import PodNetworkAgent, RouteNowhere
from netkit.podnet.modes import NetworkMode, Setting, backend
from netkit.podnet.paths import NoWay

VXLAN, NATIVE = Setting(NetworkMode.VXLAN), Setting(NetworkMode.NATIVE)
WIREGUARD = Setting(NetworkMode.WIREGUARD)
DIRECT = Setting(NetworkMode.VXLAN, direct_routing=True)
BETWEEN = Setting(NetworkMode.NATIVE, both=NetworkMode.VXLAN)


def backend_mtu(setting: Setting) -> int:
    return 1500 - backend(setting).overhead


@dataclass
class FakeNetwork:
    mtu: int = 1450


@dataclass
class FakeAgent:
    """Takes every setting but those in `faults`."""

    name: str
    story: list[tuple[str, str]]
    setting: Setting = VXLAN
    encryption: str = ""
    faults: dict[Setting, Exception] = field(default_factory=dict)
    network: FakeNetwork = field(default_factory=FakeNetwork)

    async def ready(self) -> None:
        return

    async def use(self, setting: Setting) -> None:
        if setting in self.faults:
            raise self.faults[setting]
        if setting != self.setting:
            self.story.append((self.name, str(setting)))
        self.setting = setting
        self.network.mtu = backend_mtu(setting)
        self.encryption = "kernel" if setting.encrypts else ""


class World:
    """Two nodes, whose followers run."""

    def __init__(self, root: Path, first: Setting = VXLAN) -> None:
        self.profile = Profile("lab", root)
        self.story: list[tuple[str, str]] = []
        self.agents = {name: FakeAgent(name, self.story, first) for name in ("node1", "node2")}
        self.choices = ChoiceFile(self.profile.directory)
        self.choices.write(Choice(first))
        for name in self.agents:
            self.profile.node(name).mkdir(parents=True)
        machines = tuple(MachineFacts(name, "node", f"lab.{name}", "") for name in self.agents)
        self.profile.write_facts(ClusterFacts("lab", "", "", "", "", "", "", "", False, "", machines))

    def follower(self, name: str) -> Any:
        outcomes = OutcomeFile(self.profile.node(name))
        agent = cast(PodNetworkAgent, self.agents[name])
        return NodeNetwork(self.choices, outcomes, VXLAN).run(agent)

    async def change(self, wanted: Setting) -> list[NodeNetworkMode]:
        def work() -> list[NodeNetworkMode]:
            return change_mode("lab", wanted.mode, wanted.direct_routing, lambda _: None)

        return await asyncio.to_thread(work)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path))
    monkeypatch.setattr(network_mode, "require_network", lambda _: None)
    return tmp_path


@pytest.mark.parametrize(
    ("first", "wanted", "taken"),
    [
        (VXLAN, NATIVE, ["native (tunnel of vxlan kept)", "native"]),
        (NATIVE, VXLAN, ["native (tunnel of vxlan kept)", "vxlan"]),
        (NATIVE, DIRECT, ["native (tunnel of vxlan kept)", "vxlan (direct routing)"]),
        (VXLAN, DIRECT, ["vxlan (direct routing)"]),
        (VXLAN, VXLAN, []),
        (
            VXLAN,
            WIREGUARD,
            ["vxlan (tunnel of wireguard kept)", "wireguard (tunnel of vxlan kept)", "wireguard"],
        ),
        (WIREGUARD, NATIVE, ["native (tunnel of wireguard kept)", "native"]),
    ],
    ids=str,
)
async def test_no_node_goes_on_before_all_have_taken_a_step(
    root: Path, first: Setting, wanted: Setting, taken: list[str]
) -> None:
    world = World(root, first)
    async with running(world.follower("node1")), running(world.follower("node2")):
        found = await world.change(wanted)
    assert [sorted(world.story[i : i + 2]) for i in range(0, len(world.story), 2)] == [
        [("node1", step), ("node2", step)] for step in taken
    ]
    assert [(each.node, each.mode, each.direct_routing, each.state, each.error) for each in found] == [
        (node, wanted.mode, wanted.direct_routing, "serving", "") for node in ("node1", "node2")
    ]
    assert {each.mtu for each in found} == ({backend_mtu(wanted)})
    # What a restarted agent begins with.
    choice = world.choices.read()
    assert choice is not None
    assert choice.setting == wanted
    encryption = "kernel" if wanted == WIREGUARD else ""
    assert [(each.mode, each.encryption) for each in read_mode("lab")] == [(wanted.mode, encryption)] * 2


@pytest.mark.parametrize("at", [BETWEEN, NATIVE], ids=str)
async def test_if_a_node_cannot_all_go_back(root: Path, at: Setting) -> None:
    world = World(root)
    way = NoWay("far", cast(Any, "10.244.9.0/24"), "it is not on the link")
    world.agents["node2"].faults[at] = RouteNowhere([way])
    async with running(world.follower("node1")), running(world.follower("node2")):
        found = await world.change(NATIVE)
        assert [agent.setting for agent in world.agents.values()] == [VXLAN, VXLAN]
    assert [(each.mode, each.error) for each in found] == [
        ("vxlan", ""),
        ("vxlan", "no route to 10.244.9.0/24 of node far: it is not on the link"),
    ]
    choice = world.choices.read()
    assert choice is not None
    assert choice.setting == VXLAN


async def test_a_silent_node_is_named_and_the_others_go_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_mode, "PATIENCE_SECONDS", 0.5)
    world = World(root)
    async with running(world.follower("node1")):
        found = await world.change(NATIVE)
        await until(lambda: world.agents["node1"].setting == VXLAN)
    assert {each.node: each.error for each in found} == {
        "node1": "",
        "node2": "no word from the node's agent",
    }
    # It comes back, and finds the mode that the others have.
    async with running(world.follower("node2")):
        await until(lambda: OutcomeFile(world.profile.node("node2")).read() is not None)
    assert world.agents["node2"].setting == VXLAN


async def test_a_mode_that_this_machine_cannot_have_is_refused_before_anything_is_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(_: object) -> list[Feature]:
        return [
            Feature("link wireguard", False, "Operation not supported", "", "modprobe wireguard"),
            Feature("wireguard-go", False, "wireguard-go is not installed", "", "install wireguard-go"),
        ]

    monkeypatch.setattr(doctor, "features", found)
    monkeypatch.setattr(network_mode, "require_network", doctor.require_network)
    world = World(root)
    with pytest.raises(ClusterError, match=r"neither link wireguard .*, nor wireguard-go \(") as refused:
        await world.change(WIREGUARD)
    assert "install the package wireguard-go" in (refused.value.hint or "")
    choice = world.choices.read()
    assert choice is not None
    assert (choice.setting, choice.asked) == (VXLAN, "")


async def test_two_changes_at_once_are_refused(root: Path) -> None:
    world = World(root)
    with world.profile.lock(), pytest.raises(ClusterError, match="another command is working on cluster lab"):
        await world.change(NATIVE)
    assert world.story == []


def test_files_keep_what_is_written(tmp_path: Path) -> None:
    choices, outcomes = ChoiceFile(tmp_path), OutcomeFile(tmp_path)
    assert choices.read() is None
    assert outcomes.read() is None
    choice, outcome = Choice(BETWEEN, "7"), Outcome("7", State.FAILED, DIRECT, 1450, 0.25, "why", "kernel")
    choices.write(choice)
    outcomes.write(outcome)
    assert (choices.read(), outcomes.read()) == (choice, outcome)
