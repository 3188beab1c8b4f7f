"""Makes the roster so: machines and cables of nodes that come, nothing left of nodes that go. What the keepers keep.

`prepare` runs in a process of its own, when the parts that are not wanted any more have ended. Each of its steps looks
at what is there, so it is right after a kill at any moment: what is on the fabric's ledger and not in the plan is
removed, what the plan has and is not there is made.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Final

from netkit.cluster import cluster_topology, routing
from netkit.cluster.certificates import certify_nodes, forget_node
from netkit.cluster.errors import NoSuchCluster
from netkit.cluster.keeper import REFUSED, Wish
from netkit.cluster.log import log_to
from netkit.cluster.node_agent import runtime_socket
from netkit.cluster.parts import Sockets, node_labels, parts
from netkit.cluster.plan import Plan
from netkit.cluster.profile import Profile
from netkit.cluster.roster import Answer, NodeState, Roster, RosterFile
from netkit.fabric import cables
from netkit.fabric.build import build
from netkit.fabric.shaping import shape, shaped
from netkit.fabric.spec import SWITCH, namespace_name
from netkit.kernel import netns
from netkit.kernel.ledger import Entry, EntryKind, Ledger
from netkit.kernel.netns import Namespace, open_namespace
from netkit.kernel.teardown import end_owner, remove_owner

log = logging.getLogger(__name__)

FABRIC: Final = "fabric"


class Membership:
    """See `keeper.Kept`. `plan` is the one that the cluster began with, `staying` as in `parts.parts`."""

    def __init__(
        self, plan: Plan, profile: Profile, sockets: Sockets, staying: Mapping[str, Namespace]
    ) -> None:
        self._plan = plan
        self._profile = profile
        self._sockets = sockets
        self._staying = staying
        self._file = RosterFile(profile.directory)
        self.directory = self._file.directory

    def begin(self) -> None:
        """Write down the nodes that the cluster was built with."""
        roster = self._plan.current().anew()
        self._file.write(roster)
        self._file.write_answer(Answer(roster.asked))

    def wish(self) -> Wish:
        """See `keeper.Kept`."""
        roster = self._roster()
        wanted = parts(self._plan.with_roster(roster), self._profile, self._sockets, self._staying)
        unplugged = [node.name for node in roster.nodes if node.state is NodeState.STOPPED]
        killed = frozenset(label for name in unplugged for label in astuple(node_labels(name)))
        return Wish(roster.asked, tuple(wanted), killed)

    def fulfilled(self) -> str:
        """See `keeper.Kept`."""
        answer = self._file.answer()
        return answer.asked if answer is not None and not answer.error else ""

    def answer(self, asked: str, error: str = "") -> None:
        """See `keeper.Kept`."""
        self._file.write_answer(Answer(asked, error))

    def prepare(self, asked: str) -> int:
        """See `keeper.Kept`."""
        log_to(self._profile.logs / "keeper.log")
        try:
            self._make_so(self._plan.with_roster(self._roster()))
        except Exception as error:
            log.exception("the nodes are not as they should be")
            self.answer(asked, _told(error))
            return REFUSED
        return 0

    def _roster(self) -> Roster:
        return self._file.read() or self._plan.current()

    def _make_so(self, plan: Plan) -> None:
        spec = plan.fabric()
        with Ledger(self._profile.ledger, FABRIC) as ledger:
            wanted = {
                namespace_name(spec.cluster, name) for name in (SWITCH, *(m.name for m in spec.machines))
            }
            for entry in ledger.entries():
                if entry.kind is EntryKind.NAMESPACE and entry.name not in wanted:
                    self._remove(entry, ledger)
            for node in plan.current().nodes:
                if node.state is NodeState.STOPPED:
                    # What its agent had started by itself, such as a tunnel's program.
                    end_owner(self._profile.ledger, node.name)
            with build(spec, ledger) as fabric:
                cables.keep_apart(fabric.switch, spec, plan.current().apart)
                if shaped(spec):
                    asyncio.run(shape(fabric, self._profile.switch_lock, netem=plan.netem))
        certify_nodes(self._profile, plan.nodes)
        try:
            facts = self._profile.facts()
        except NoSuchCluster:
            # `up` is about to write them.
            return
        if facts.machines != plan.machines():
            cluster_topology.write(self._profile, plan.topology)
            self._profile.write_facts(replace(facts, machines=plan.machines()))

    def _remove(self, entry: Entry, ledger: Ledger) -> None:
        """Remove a node: its pods, its cable, its state; the namespace last, as it is what says that there is more."""
        profile = self._profile
        name = entry.name.removeprefix(namespace_name(self._plan.config.name, ""))
        remove_owner(profile.ledger, name)
        with open_namespace(namespace_name(self._plan.config.name, SWITCH)) as switch:
            cables.remove(switch, name)
        shutil.rmtree(profile.node(name), ignore_errors=True)
        for path in (
            runtime_socket(profile, name),
            routing.configuration_file(profile, name),
            routing.control_socket(profile, name),
        ):
            path.unlink(missing_ok=True)
        for label in astuple(node_labels(name)):
            (profile.logs / f"{label}.log").unlink(missing_ok=True)
        forget_node(profile, name)
        netns.delete(entry.name, ledger)
        log.info("%s: removed", name)


def _told(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(map(_told, error.exceptions))
    return str(error) or type(error).__name__
