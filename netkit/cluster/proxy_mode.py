"""`netkit proxy-mode`: which mode of kube-proxy each node of a cluster has, and changing it while the cluster works.

The wish is written down before anything else (`proxy_choice`); each node's agent notices, changes over (`node_proxy`)
and writes how it went, which is what this waits for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netkit.cluster.doctor import require_mode
from netkit.cluster.errors import ClusterError
from netkit.cluster.outcome import SILENT, State, last_word
from netkit.cluster.profile import Profile
from netkit.cluster.proxy_choice import Choice, Outcome, ProxyFiles
from netkit.kernel.file_watch import FileWatch
from netkit.proxy.settings import NftablesLayout, ProxyMode

PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class NodeMode:
    """The mode a node has now; `was` the one before. `error` is empty unless the change failed, or none is at work."""

    node: str
    mode: str
    layout: str
    state: str
    was: str = ""
    seconds: float = 0.0
    error: str = ""
    hint: str = ""


Report = Callable[[NodeMode], None]
"""Called for each node as soon as its change is over."""


def read_modes(name: str, nodes: Sequence[str] = ()) -> list[NodeMode]:
    """The modes of the nodes (none given: of all). Raises NoSuchCluster, and ClusterError for an unknown node."""
    profile = Profile(name)
    return [_now(node, ProxyFiles(profile.node(node)).outcome()) for node in _chosen(profile, nodes)]


def change_mode(
    name: str, mode: ProxyMode, layout: NftablesLayout, nodes: Sequence[str], report: Report
) -> list[NodeMode]:
    """Change the nodes (none given: all) over to `mode`, and wait for it; how it went on each.

    Raises ClusterError, before anything is changed, when the machine lacks what the mode needs.
    """
    profile = Profile(name)
    chosen = _chosen(profile, nodes)
    require_mode(mode)
    choice = Choice(mode, layout, uuid.uuid4().hex)
    return asyncio.run(_change(profile, choice, chosen, report))


async def _change(profile: Profile, choice: Choice, nodes: Sequence[str], report: Report) -> list[NodeMode]:
    async with asyncio.TaskGroup() as group:
        changes = [group.create_task(_change_one(profile, choice, node, report)) for node in nodes]
    return [change.result() for change in changes]


async def _change_one(profile: Profile, choice: Choice, node: str, report: Report) -> NodeMode:
    files = ProxyFiles(profile.node(node))
    before = _now(node, files.outcome())
    try:
        with FileWatch(files.outcome_path) as watch:
            files.choose(choice)
            async with asyncio.timeout(PATIENCE_SECONDS):
                outcome = await last_word(files.outcome, choice.asked, watch)
        after = _now(node, outcome, before.mode)
    except TimeoutError:
        after = NodeMode(
            node, before.mode, before.layout, State.SWITCHING, before.mode, PATIENCE_SECONDS, SILENT,
            "the wish is kept: the agent follows it as soon as it runs",
        )  # fmt: skip
    report(after)
    return after


def _now(node: str, outcome: Outcome | None, was: str = "") -> NodeMode:
    if outcome is None:
        return NodeMode(node, "", "", "unknown", was, error=SILENT)
    layout = outcome.layout if outcome.mode is ProxyMode.NFTABLES else ""
    return NodeMode(
        node, outcome.mode, layout, outcome.state, was, outcome.seconds, outcome.error, outcome.hint
    )


def _chosen(profile: Profile, nodes: Sequence[str]) -> list[str]:
    known = profile.facts().nodes
    for node in nodes:
        if node not in known:
            raise ClusterError(f"cluster {profile.name} has no node {node}", f"there are: {', '.join(known)}")
    return [node for node in known if node in nodes] if nodes else known
