"""What the commands about nodes and cables ask for, what they refuse, and what they undo; the keeper is played here."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from netkit.cluster import cluster_topology, node_changes, roster_request, segment_cuts
from netkit.cluster.config import ClusterConfig
from netkit.cluster.errors import ClusterError, NoSuchCluster
from netkit.cluster.plan import Plan
from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.roster import Answer, NodeState, Roster, RosterFile
from netkit.cluster.segment_cuts import SegmentView
from netkit.fabric.segment import CANDIDATES
from netkit.kernel.file_watch import DirectoryWatch

Judge = Callable[[Roster], str | None]
"""The error in the answer to a wish; None: no answer at all."""


class Stage:
    """A cluster of three nodes without processes. `wishes` were asked for; the Nodes of `forgotten` were deleted."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.files = RosterFile(profile.directory)
        self.wishes: list[Roster] = []
        self.forgotten: list[str] = []
        self.drained: list[str] = []
        self.registered: set[str] = set()
        self.judge: Judge = lambda roster: ""
        self._over = threading.Event()
        self._plan = Plan(ClusterConfig(name="blue"), CANDIDATES[0], 1)

    def begin(self) -> None:
        self.profile.directory.mkdir()
        self.files.write(self._plan.current().anew())
        self.write_facts(self._plan.current())

    def write_facts(self, roster: Roster) -> None:
        plan = self._plan.with_roster(roster)
        cluster_topology.write(self.profile, plan.topology)
        machines = plan.machines()
        self.profile.write_facts(
            ClusterFacts(
                "blue", "https://127.0.0.1:1", str(CANDIDATES[0]), "10.244.0.0/16", "10.96.0.0/12", "nk-blue",
                "172.18.0.1", "", False, "", machines,
            )
        )  # fmt: skip

    def is_node(self, name: str) -> bool:
        return any(
            machine.name == name and machine.role == "node" for machine in self.profile.facts().machines
        )

    def now(self) -> dict[str, tuple[str, str]]:
        found = self.files.read()
        assert found is not None
        return {node.name: (str(node.address), node.state.value) for node in found.nodes}

    @contextmanager
    def keeper(self) -> Iterator[None]:
        """Answer every wish as `judge` says, as long as the block runs."""
        ready = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ready,))
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            self._over.set()
            self.files.write_answer(Answer("over"))
            thread.join()

    def _keep(self, ready: threading.Event) -> None:
        first = self.files.read()
        assert first is not None
        seen = first.asked
        with DirectoryWatch(self.files.directory) as watch:
            ready.set()
            while not self._over.is_set():
                wish = self.files.read()
                assert wish is not None
                if wish.asked != seen:
                    seen = wish.asked
                    self.wishes.append(replace(wish, asked=""))
                    error = self.judge(wish)
                    if not error:
                        self.write_facts(wish)
                    if error is not None:
                        self.files.write_answer(Answer(seen, error))
                select.select([watch], [], [])
                watch.taken()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path))
    made = Stage(Profile("blue"))
    made.begin()
    forget: Callable[..., Any] = lambda profile, facts, names: made.forgotten.extend(names)  # noqa: E731
    monkeypatch.setattr(node_changes, "_forget", forget)
    monkeypatch.setattr(node_changes, "_drain", lambda _, __, nodes, *___: made.drained.extend(nodes))
    registered: Callable[..., Any] = lambda _, __, name: name in made.registered or made.is_node(name)  # noqa: E731
    monkeypatch.setattr(node_changes, "_is_left", registered)

    def until_ready(
        profile: Profile, facts: Any, nodes: Any, began: Any, what: str, report: Any
    ) -> list[node_changes.NodeChange]:
        return [node_changes.NodeChange(node.name, str(node.address), what, 0.0) for node in nodes]

    monkeypatch.setattr(node_changes, "_until_ready", until_ready)
    monkeypatch.setattr(segment_cuts, "view", lambda _, __, roster: SegmentView((), True, (), roster.apart))
    with made.keeper():
        yield made


def silent(*_: object) -> None:
    pass


def test_nodes_come_with_the_next_names_and_addresses(stage: Stage) -> None:
    found = node_changes.add("blue", "", 2, silent)
    assert [(change.node, change.address) for change in found] == [
        ("node4", "172.18.0.14"),
        ("node5", "172.18.0.15"),
    ]
    node_changes.remove("blue", ["node2"], force=True, seconds=1, progress=silent, report=silent)
    assert stage.forgotten == ["node2"]
    node_changes.add("blue", "", 1, silent)
    node_changes.add("blue", "big", 1, silent)
    assert stage.now() == {
        "node1": ("172.18.0.11", "running"),
        "node3": ("172.18.0.13", "running"),
        "node4": ("172.18.0.14", "running"),
        "node5": ("172.18.0.15", "running"),
        "node2": ("172.18.0.12", "running"),
        "big": ("172.18.0.16", "running"),
    }


def test_only_nodes_that_run_are_drained_and_none_by_force(stage: Stage) -> None:
    node_changes.stop("blue", "node2")
    node_changes.remove(
        "blue", ["node2", "node1", "node2"], force=False, seconds=1, progress=silent, report=silent
    )
    assert stage.drained == ["node1"]
    assert stage.forgotten == ["node2", "node1"]
    node_changes.add("blue", "", 1, silent)
    node_changes.remove("blue", ["node3"], force=True, seconds=1, progress=silent, report=silent)
    assert stage.drained == ["node1"]


def test_what_a_killed_removal_left_is_removed(stage: Stage) -> None:
    stage.registered.add("node8")
    found = node_changes.remove("blue", ["node8"], force=False, seconds=1, progress=silent, report=silent)
    assert [change.node for change in found] == ["node8"]
    assert stage.forgotten == ["node8"]
    # The keepers are asked too: they remove what is left of it in the kernel and on disk.
    assert [wish.names() for wish in stage.wishes] == [["node1", "node2", "node3"]]


def test_a_node_stops_starts_and_moves(stage: Stage) -> None:
    node_changes.stop("blue", "node2")
    assert stage.now()["node2"] == ("172.18.0.12", "stopped")
    node_changes.start("blue", "node2", silent)
    assert stage.now()["node2"] == ("172.18.0.12", "running")
    stage.wishes.clear()
    node_changes.readdress("blue", "node2", IPv4Address("172.18.0.99"), silent)
    nodes = [wish.node("node2") for wish in stage.wishes]
    assert [(str(node.address), node.state) for node in nodes if node is not None] == [
        ("172.18.0.12", NodeState.MOVING),
        ("172.18.0.99", NodeState.RUNNING),
    ]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: node_changes.add("blue", "node1", 1, silent), "cluster blue has a machine node1 already"),
    (lambda: node_changes.add("blue", "client", 1, silent), "cluster blue has a machine client already"),
    (lambda: node_changes.add("blue", "host", 1, silent), "the name host is taken by a part of the cluster"),
    (lambda: node_changes.add("blue", "Big", 1, silent), "'Big' cannot be a node's name"),
    (lambda: node_changes.add("blue", "a" * 41, 1, silent), f"'{'a' * 41}' cannot be a node's name"),
    (lambda: node_changes.add("blue", "x", 2, silent), "a name goes with one node only"),
    (
        lambda: node_changes.add("blue", "", 198, silent),
        "198 more node(s) cannot be added: there are 3, at most 200 are possible",
    ),
    (
        lambda: node_changes.add("blue", "", 0, silent),
        "0 more node(s) cannot be added: there are 3, at most 200 are possible",
    ),
    (
        lambda: node_changes.remove(
            "blue", ["node9"], force=False, seconds=1, progress=silent, report=silent
        ),
        "cluster blue has no node node9",
    ),
    (
        lambda: node_changes.remove(
            "blue", ["node1", "node3", "node2"], force=True, seconds=1, progress=silent, report=silent
        ),
        "node1 and node3 and node2: a cluster needs one node at least",
    ),
    (lambda: node_changes.stop("blue", "node9"), "cluster blue has no node node9"),
    (lambda: node_changes.start("blue", "node1", silent), "node node1 runs already"),
    (
        lambda: node_changes.readdress("blue", "node1", IPv4Address("10.0.0.1"), silent),
        "10.0.0.1 is not an address of the segment 172.18.0.0/16",
    ),
    (
        lambda: node_changes.readdress("blue", "node1", IPv4Address("172.18.255.255"), silent),
        "172.18.255.255 is not an address of the segment 172.18.0.0/16",
    ),
    (
        lambda: node_changes.readdress("blue", "node1", IPv4Address("172.18.0.12"), silent),
        "172.18.0.12 belongs to node2",
    ),
    (
        lambda: node_changes.readdress("blue", "node1", IPv4Address("172.18.0.1"), silent),
        "172.18.0.1 belongs to this machine",
    ),
    (
        lambda: node_changes.readdress("blue", "node1", IPv4Address("172.18.0.11"), silent),
        "172.18.0.11 belongs to node1 already",
    ),
    (lambda: segment_cuts.cut("blue", "switch"), "cluster blue has no machine switch on its segment"),
    (lambda: segment_cuts.cut("blue", "node1,node9"), "cluster blue has no machine node9 on its segment"),
    (lambda: segment_cuts.cut("blue", "node1,node2", "node2"), "node2 cannot be on both sides"),
    (lambda: segment_cuts.heal("blue", "node1"), "nothing is cut at node1"),
    (lambda: segment_cuts.heal("blue", "node1", "node2"), "nothing is cut between node1 and node2"),
]


@pytest.mark.parametrize(("command", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_is_refused_and_nothing_is_asked_for(
    stage: Stage, command: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ClusterError) as refused:
        command()
    assert refused.value.message == message
    assert stage.wishes == []


def test_a_name_that_is_a_file_of_the_clusters_is_taken(stage: Stage) -> None:
    stage.profile.pki.mkdir()
    (stage.profile.pki / "admin.crt").touch()
    with pytest.raises(ClusterError, match="the name admin is taken by a part of the cluster"):
        node_changes.add("blue", "admin", 1, silent)


def test_there_has_to_be_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path))
    for command in (
        lambda: node_changes.add("blue", "", 1, silent),
        lambda: node_changes.stop("blue", "node1"),
        lambda: segment_cuts.cut("blue", "node1"),
        lambda: segment_cuts.show("blue"),
    ):
        with pytest.raises(NoSuchCluster, match="there is no cluster blue"):
            command()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ClusterError("not Ready within 60 s: node4")])
def test_a_node_that_does_not_come_up_is_withdrawn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    before = stage.now()

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(node_changes, "_until_ready", fail)
    with pytest.raises(type(fault)):
        node_changes.add("blue", "", 2, silent)
    assert stage.now() == before
    assert stage.forgotten == ["node4", "node5"]
    with pytest.raises(type(fault)):
        node_changes.readdress("blue", "node2", IPv4Address("172.18.0.99"), silent)
    assert stage.now() == before


def test_what_the_keeper_cannot_do_is_told_and_withdrawn(stage: Stage) -> None:
    stage.judge = lambda roster: "no room for it" if roster.node("node4") else ""
    before = stage.now()
    with pytest.raises(ClusterError) as refused:
        node_changes.add("blue", "", 1, silent)
    assert refused.value.message == "no room for it"
    assert "keeper.log" in refused.value.hint
    assert stage.now() == before


def test_a_keeper_that_says_nothing_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_request, "_PATIENCE_SECONDS", 0.0)
    stage.judge = lambda roster: None
    with pytest.raises(ClusterError, match="the keeper of cluster blue does not answer"):
        node_changes.stop("blue", "node1")


def test_cuts_are_made_and_healed(stage: Stage) -> None:
    segment_cuts.cut("blue", "node3")
    segment_cuts.cut("blue", "node1,node2", "client")
    assert (stage.wishes[-1].cut, stage.wishes[-1].apart) == (
        ("node3",),
        (("client", "node1"), ("client", "node2")),
    )
    segment_cuts.heal("blue", "client", "node2")
    assert (stage.wishes[-1].cut, stage.wishes[-1].apart) == (("node3",), (("client", "node1"),))
    segment_cuts.heal("blue", "node1")
    assert (stage.wishes[-1].cut, stage.wishes[-1].apart) == (("node3",), ())
    segment_cuts.cut("blue", "node1", "node2")
    segment_cuts.heal("blue")
    assert (stage.wishes[-1].cut, stage.wishes[-1].apart) == ((), ())
