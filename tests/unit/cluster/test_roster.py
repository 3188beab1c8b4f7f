"""The roster: what commands write and keepers follow."""

from __future__ import annotations

import tempfile
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from netkit.cluster.config import ClusterConfig
from netkit.cluster.plan import Plan
from netkit.cluster.roster import (
    Answer,
    NodeRecord,
    NodeState,
    Roster,
    RosterFile,
    free_addresses,
    free_names,
)

SEGMENT = IPv4Network("172.18.0.0/16")


def record(number: int, state: NodeState = NodeState.RUNNING) -> NodeRecord:
    return NodeRecord(f"node{number}", SEGMENT[10 + number], state)


def roster(*numbers: int) -> Roster:
    return Roster(tuple(map(record, numbers)))


RECORDS = st.builds(record, st.integers(1, 9), st.sampled_from(NodeState))
NAMES = st.sampled_from([f"node{number}" for number in range(1, 10)])
PAIRS = st.tuples(NAMES, NAMES).filter(lambda pair: pair[0] != pair[1])


@given(
    st.lists(RECORDS, unique_by=lambda node: node.name),
    st.sets(NAMES),
    st.sets(PAIRS),
    st.text(alphabet="0123456789abcdef"),
)
def test_what_is_written_is_read(
    nodes: list[NodeRecord], cut: set[str], apart: set[tuple[str, str]], asked: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = RosterFile(Path(place))
        assert files.read() is None
        assert files.answer() is None
        written = Roster(tuple(nodes), tuple(cut), tuple(apart), asked)
        files.write(written)
        assert files.read() == written
        files.write_answer(Answer(asked, "no"))
        assert files.answer() == Answer(asked, "no")


@given(st.lists(RECORDS, unique_by=lambda node: node.name), st.lists(RECORDS), st.sets(NAMES))
def test_a_name_is_there_once_and_what_stays_keeps_its_place(
    first: list[NodeRecord], given_: list[NodeRecord], gone: set[str]
) -> None:
    before = Roster(tuple(first))
    after = before.with_nodes(given_)
    assert after.names()[: len(first)] == before.names()
    assert set(after.names()) == {*before.names(), *(node.name for node in given_)}
    assert len(after.names()) == len(set(after.names()))
    for node in {node.name: node for node in given_}.values():
        assert after.node(node.name) == node
    left = after.without(gone)
    assert left.names() == [name for name in after.names() if name not in gone]


@given(st.sets(NAMES), st.sets(PAIRS), st.sets(NAMES), st.sets(PAIRS))
def test_what_is_cut_and_healed_is_as_before(
    cut: set[str], apart: set[tuple[str, str]], more: set[str], pairs: set[tuple[str, str]]
) -> None:
    before = roster(1, 2).with_cut(cut).with_apart(apart)
    after = before.with_cut(more).with_apart(pairs)
    backwards = {(other, one) for one, other in pairs}
    healed = after.healed(more, backwards)
    assert set(healed.cut) == cut - more
    assert set(healed.apart) == set(before.apart) - {tuple(sorted(pair)) for pair in pairs}
    assert after.healed(after.cut, after.apart) == roster(1, 2)


def test_a_node_that_goes_takes_its_cuts_with_it() -> None:
    before = (
        roster(1, 2, 3).with_cut(["node2", "client"]).with_apart([("node2", "node3"), ("node3", "node1")])
    )
    after = before.without({"node2"})
    assert (after.cut, after.apart) == (("client",), (("node1", "node3"),))


def test_unplugged_is_who_is_cut_off_or_stopped() -> None:
    made = Roster((record(1), record(2, NodeState.STOPPED), record(3, NodeState.MOVING)), cut=("client",))
    assert made.unplugged == {"node2", "client"}


def test_every_wish_is_another_one() -> None:
    assert roster(1).anew().asked != roster(1).anew().asked


def test_names_and_addresses_are_the_first_that_are_free() -> None:
    assert list(islice(free_names(roster(1, 3), ["node4"]), 3)) == ["node2", "node5", "node6"]
    taken = {IPv4Address("172.18.0.11"), IPv4Address("172.18.0.13")}
    assert list(map(str, islice(free_addresses(SEGMENT, taken), 2))) == ["172.18.0.12", "172.18.0.14"]
    small = IPv4Network("10.0.0.0/28")
    assert list(map(str, free_addresses(small, set()))) == [
        "10.0.0.11",
        "10.0.0.12",
        "10.0.0.13",
        "10.0.0.14",
    ]


def test_the_plan_takes_its_nodes_from_the_roster() -> None:
    plan = Plan(ClusterConfig(nodes=2), SEGMENT, 1)
    first = plan.current()
    assert {node.name: str(node.address) for node in first.nodes} == {
        "node1": "172.18.0.11",
        "node2": "172.18.0.12",
    }
    moved = NodeRecord("node2", IPv4Address("172.18.0.77"), NodeState.STOPPED)
    later = plan.with_roster(first.without({"node1"}).with_nodes([moved, record(9)]))
    assert later.nodes == {"node2": IPv4Address("172.18.0.77"), "node9": IPv4Address("172.18.0.19")}
    assert later.fabric().unplugged == {"node2"}
    assert [machine.name for machine in later.machines()] == [
        "control-plane", "node2", "node9", "client", "switch",
    ]  # fmt: skip
    assert later.control_plane == plan.control_plane
