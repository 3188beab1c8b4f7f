"""`netkit segment cut`, `heal`, `show`: cables that are pulled, and machines that the switch keeps apart.

A cut of one machine takes its cable out of the switch. A cut between two groups of machines leaves them their cables,
and the switch drops what goes from one group to the other. Cuts are part of the roster: they stay until healed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from netkit.cluster import cluster_topology
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.roster import NodeState, Roster
from netkit.cluster.roster_request import ask, read_roster, uninterrupted
from netkit.fabric import cables
from netkit.fabric.spec import SWITCH, port_name
from netkit.kernel.netns import open_namespace


@dataclass(frozen=True, slots=True)
class Cable:
    """A machine's cables: its segments, the switch's port of the first, whether all are up, and why not ("cut",
    "stopped", or somebody else).
    """

    machine: str
    segment: str
    address: str
    port: str
    up: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class SegmentView:
    """The segments as the kernel has them: `segments` are names and ranges, `apart` pairs of machines that the switch
    keeps from each other.
    """

    segments: tuple[str, ...]
    whole: bool
    cables: tuple[Cable, ...]
    apart: tuple[tuple[str, str], ...]


def cut(cluster: str, one: str, other: str = "") -> SegmentView:
    """Cut one machine's cable, or what is between two groups. A group is names with commas. Raises ClusterError."""
    profile = Profile(cluster)
    read_roster(profile)
    with profile.lock():
        facts, roster = read_roster(profile)
        machines, pairs = _ends(profile, facts, one, other)
        wanted = roster.with_apart(pairs) if other else roster.with_cut(machines)
        return _make_so(profile, wanted)


def heal(cluster: str, one: str = "", other: str = "") -> SegmentView:
    """Undo a cut, or ("") all that there are. Raises ClusterError when it is not cut there."""
    profile = Profile(cluster)
    read_roster(profile)
    with profile.lock():
        facts, roster = read_roster(profile)
        if not one:
            return _make_so(profile, roster.healed(roster.cut, roster.apart))
        machines, pairs = _ends(profile, facts, one, other)
        wanted = roster.healed((), pairs) if other else roster.healed(machines, _of(roster, machines))
        if wanted == roster:
            what = f"between {one} and {other}" if other else f"at {one}"
            raise ClusterError(f"nothing is cut {what}", f"what is cut: netkit segment show -p {cluster}")
        return _make_so(profile, wanted)


def show(cluster: str) -> SegmentView:
    """The segment as it is. Raises NoSuchCluster, KernelError."""
    profile = Profile(cluster)
    return view(profile, *read_roster(profile))


def view(profile: Profile, facts: ClusterFacts, roster: Roster) -> SegmentView:
    """The same for a caller that knows the cluster."""
    ends = [machine for machine in facts.machines if machine.address]
    switch = next(machine for machine in facts.machines if machine.name == SWITCH)
    with open_namespace(switch.namespace) as ns:
        found = cables.read(ns, [machine.name for machine in ends])
    topology = cluster_topology.read(profile)
    on = {
        machine.name: ",".join(each.segment for each in machine.interfaces) for machine in topology.machines
    }
    stopped = {node.name for node in roster.nodes if node.state is NodeState.STOPPED}
    lines = tuple(
        Cable(
            machine.name, on[machine.name], machine.address, port_name(machine.name), machine.name not in found.down,
            _why(machine.name, roster, stopped) if machine.name in found.down else "",
        )
        for machine in ends
    )  # fmt: skip
    apart = tuple(sorted(found.apart))
    segments = tuple(f"{segment.name} {segment.subnet}" for segment in topology.segments)
    return SegmentView(segments, all(line.up for line in lines) and not apart, lines, apart)


def _why(machine: str, roster: Roster, stopped: set[str]) -> str:
    if machine in stopped:
        return "stopped"
    return "cut" if machine in roster.cut else "not by netkit"


def _make_so(profile: Profile, roster: Roster) -> SegmentView:
    with uninterrupted():
        wanted = ask(profile, roster)
        return view(profile, profile.facts(), wanted)


def _ends(
    profile: Profile, facts: ClusterFacts, one: str, other: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """The machines of the first group, and all pairs across that share a segment."""
    first, second = _group(facts, one), _group(facts, other) if other else []
    both = set(first) & set(second)
    if both:
        raise ClusterError(f"{', '.join(sorted(both))} cannot be on both sides")
    topology = cluster_topology.read(profile)
    on = {machine.name: {each.segment for each in machine.interfaces} for machine in topology.machines}
    pairs = [pair for pair in product(first, second) if on[pair[0]] & on[pair[1]]]
    if second and not pairs:
        raise ClusterError(
            f"{one} and {other} share no segment", "cut one of the routers between them off instead"
        )
    return first, pairs


def _group(facts: ClusterFacts, text: str) -> list[str]:
    known = [machine.name for machine in facts.machines if machine.address]
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise ClusterError(
                f"cluster {facts.name} has no machine {name} on its segment", f"there are: {', '.join(known)}"
            )
    return names


def _of(roster: Roster, machines: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that one of the machines is in."""
    return [pair for pair in roster.apart if set(pair) & set(machines)]
