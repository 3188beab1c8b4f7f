"""`netkit network mode`: which mode the pod network of a cluster has, and changing it while packets flow.

A change goes in steps (`podnet.modes.steps`), each of which all nodes have to reach before the next begins: so at every
moment each node can be reached in the way the others use. If a node cannot take a step, all go back.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netkit.cluster.doctor import require_network
from netkit.cluster.errors import ClusterError
from netkit.cluster.network_choice import Choice, ChoiceFile, Outcome, OutcomeFile
from netkit.cluster.outcome import SILENT, State, last_word
from netkit.cluster.profile import Profile
from netkit.kernel.file_watch import FileWatch
from netkit.podnet.modes import VXLAN, NetworkMode, Setting, steps

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class NodeNetworkMode:
    """The mode a node has now, and its pods' MTU in bytes; `was` the mode before. `error` says why a change failed,
    `encryption` who encrypts between nodes, "" if nobody does.
    """

    node: str
    mode: str
    direct_routing: bool
    mtu: int
    state: str
    was: str = ""
    seconds: float = 0.0
    error: str = ""
    encryption: str = ""


Report = Callable[[NodeNetworkMode], None]
"""Called for each node as soon as its change is over."""


def read_mode(name: str) -> list[NodeNetworkMode]:
    """The modes of all nodes. Raises NoSuchCluster."""
    profile = Profile(name)
    return [_told(node, OutcomeFile(profile.node(node)).read()) for node in profile.facts().nodes]


def change_mode(name: str, mode: NetworkMode, direct_routing: bool, report: Report) -> list[NodeNetworkMode]:
    """Change the cluster over, and wait for it; how it went on each node.

    When a node fails, or says nothing in time, all nodes go back, and the result has its error. Raises NoSuchCluster,
    and ClusterError while another command changes the cluster or when this machine cannot have the mode.
    """
    profile = Profile(name)
    nodes = profile.facts().nodes
    wanted = _wanted(profile, mode, direct_routing)
    require_network(mode)
    with profile.lock():
        return asyncio.run(_change(profile, nodes, wanted, report))


def _wanted(profile: Profile, mode: NetworkMode, direct_routing: bool) -> Setting:
    """Refuses to take pods over that plug-ins of others made, and the other way round."""
    now = (ChoiceFile(profile.directory).read() or Choice(VXLAN)).setting
    if NetworkMode.EXTERNAL not in (now.mode, mode):
        return Setting(mode, direct_routing)
    if now.mode is not mode:
        raise ClusterError(
            f"cluster {profile.name} cannot change from {now.mode} to {mode}: who attaches pods is chosen at up",
            f"make it anew with network: {{mode: {mode}}}",
        )
    return now


async def _change(
    profile: Profile, nodes: Sequence[str], wanted: Setting, report: Report
) -> list[NodeNetworkMode]:
    choices = ChoiceFile(profile.directory)
    before = choices.read() or Choice(VXLAN)
    took = dict.fromkeys(nodes, 0.0)
    told: list[NodeNetworkMode] = []
    for step in steps(before.setting, wanted):
        outcomes = await _take(profile, nodes, step)
        took = {node: took[node] + (found.seconds if found else 0.0) for node, found in outcomes.items()}
        failed = {
            node: found.error if found else SILENT
            for node, found in outcomes.items()
            if found is None or found.state is State.FAILED
        }
        if failed:
            await _go_back(profile, nodes, step, before.setting)
        told = [
            _told(
                node,
                OutcomeFile(profile.node(node)).read(),
                str(before.setting),
                took[node],
                failed.get(node, ""),
            )
            for node in nodes
        ]
        if failed:
            break
    for each in told:
        report(each)
    return told


async def _go_back(profile: Profile, nodes: Sequence[str], reached: Setting, before: Setting) -> None:
    """By the same steps: some nodes may have taken the last one already. Who does not answer follows when it can."""
    for step in steps(reached, before):
        await _take(profile, nodes, step)


async def _take(profile: Profile, nodes: Sequence[str], step: Setting) -> dict[str, Outcome | None]:
    """Have all nodes take a step; what they say, None for who does not answer in time."""
    choice = Choice(step, uuid.uuid4().hex)
    async with asyncio.TaskGroup() as group:
        answers = {
            node: group.create_task(_answer(OutcomeFile(profile.node(node)), choice)) for node in nodes
        }
        ChoiceFile(profile.directory).write(choice)
    return {node: answer.result() for node, answer in answers.items()}


async def _answer(file: OutcomeFile, choice: Choice) -> Outcome | None:
    """The agent's last word about the choice."""
    with FileWatch(file.path) as watch:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await last_word(file.read, choice.asked, watch)
        except TimeoutError:
            return None


def _told(
    node: str, outcome: Outcome | None, was: str = "", seconds: float = 0.0, error: str = ""
) -> NodeNetworkMode:
    if outcome is None:
        return NodeNetworkMode(node, "", False, 0, "unknown", was, error=error or SILENT)
    setting = outcome.setting
    return NodeNetworkMode(
        node, setting.mode, setting.direct_routing, outcome.mtu, outcome.state, was, round(seconds, 3),
        error or outcome.error, outcome.encryption,
    )  # fmt: skip
