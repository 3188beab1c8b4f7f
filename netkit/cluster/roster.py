"""Which nodes a cluster shall have and which cables are cut: the wish that the keepers follow, and their answer.

Commands write the wish while they hold the cluster's lock; the active keeper makes it so (`membership`) and answers.
The wish outlives every process: it is what a keeper begins with. Imports little, as every command waits for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from itertools import count
from pathlib import Path
from typing import Any, Final

from netkit.cluster.state_file import read, write

MAX_NODES: Final = 200
FIRST_NODE: Final = 11
"""Number of the first node's address on the segment; the others follow."""


class NodeState(StrEnum):
    """Which of a node's processes shall run: all, none, or (while its address changes) its containers only."""

    RUNNING = "running"
    STOPPED = "stopped"
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node and its address on the segment."""

    name: str
    address: IPv4Address
    state: NodeState = NodeState.RUNNING


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes in the order they came, the machines whose cable is cut, and the pairs whose frames the switch drops.

    `asked` tells one wish from the next.
    """

    nodes: tuple[NodeRecord, ...] = ()
    cut: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    asked: str = ""

    @property
    def unplugged(self) -> frozenset[str]:
        """Machines whose cable is down: those that are stopped, and those that are cut off."""
        return frozenset((*self.cut, *(node.name for node in self.nodes if node.state is NodeState.STOPPED)))

    def node(self, name: str) -> NodeRecord | None:
        return next((node for node in self.nodes if node.name == name), None)

    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    def anew(self) -> Roster:
        """The same as a new wish."""
        return replace(self, asked=uuid.uuid4().hex)

    def with_nodes(self, nodes: Iterable[NodeRecord]) -> Roster:
        """With these nodes: those known by name are replaced, the others come last."""
        given = {node.name: node for node in nodes}
        kept = tuple(given.pop(node.name, node) for node in self.nodes)
        return replace(self, nodes=(*kept, *given.values()))

    def without(self, names: Collection[str]) -> Roster:
        """Without these nodes, and without what was cut between them and others."""
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.name not in names),
            cut=tuple(name for name in self.cut if name not in names),
            apart=tuple(pair for pair in self.apart if not set(pair) & set(names)),
        )

    def with_cut(self, machines: Iterable[str]) -> Roster:
        """With these machines' cables cut as well."""
        return replace(self, cut=tuple(sorted({*self.cut, *machines})))

    def with_apart(self, pairs: Iterable[tuple[str, str]]) -> Roster:
        """With nothing passing between these pairs as well."""
        return replace(self, apart=tuple(sorted({*self.apart, *map(_ordered, pairs)})))

    def healed(self, machines: Collection[str], pairs: Iterable[tuple[str, str]]) -> Roster:
        """Without these cuts."""
        gone = set(map(_ordered, pairs))
        return replace(
            self,
            cut=tuple(name for name in self.cut if name not in machines),
            apart=tuple(pair for pair in self.apart if pair not in gone),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The keeper's word on the wish `asked`: done, or why not."""

    asked: str
    error: str = ""


class RosterFile:
    """Wish and answer in the cluster's state directory `cluster`."""

    def __init__(self, cluster: Path) -> None:
        self.directory = cluster / "roster"
        self._wish = self.directory / "wish.json"
        self._answer = self.directory / "answer.json"

    def read(self) -> Roster | None:
        """The last wish, None in a cluster that is not up yet."""
        found = read(self._wish)
        if found is None:
            return None
        return Roster(
            tuple(_record(item) for item in found["nodes"]),
            tuple(found["cut"]),
            tuple((one, other) for one, other in found["apart"]),
            found["asked"],
        )

    def write(self, roster: Roster) -> None:
        nodes = [{"name": n.name, "address": str(n.address), "state": n.state} for n in roster.nodes]
        value = {"asked": roster.asked, "nodes": nodes, "cut": roster.cut, "apart": roster.apart}
        write(self._wish, value, durable=True)

    def answer(self) -> Answer | None:
        """The keeper's last word."""
        found = read(self._answer)
        return Answer(found["asked"], found["error"]) if found is not None else None

    def write_answer(self, answer: Answer) -> None:
        write(self._answer, {"asked": answer.asked, "error": answer.error}, durable=True)


def free_names(roster: Roster, taken: Collection[str] = ()) -> Iterator[str]:
    """node1, node2, ... without those that are taken."""
    used = {*roster.names(), *taken}
    return (name for number in count(1) if (name := f"node{number}") not in used)


def free_addresses(segment: IPv4Network, taken: Collection[IPv4Address]) -> Iterator[IPv4Address]:
    """The nodes' addresses on the segment that nobody has, lowest first."""
    last = segment.num_addresses - 1
    return (segment[number] for number in range(FIRST_NODE, last) if segment[number] not in taken)


def _record(found: dict[str, Any]) -> NodeRecord:
    return NodeRecord(found["name"], IPv4Address(found["address"]), NodeState(found["state"]))


def _ordered(pair: tuple[str, str]) -> tuple[str, str]:
    one, other = sorted(pair)
    return one, other
