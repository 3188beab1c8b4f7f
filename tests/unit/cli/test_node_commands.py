"""`netkit node` and `netkit segment` as they are typed and read; what they find is made up here."""

from __future__ import annotations

import json
import os
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from netkit.cli import completion, node_commands, segment_commands
from netkit.cluster import node_changes, node_draining, node_listing, segment_cuts
from netkit.cluster.errors import ClusterError
from netkit.cluster.node_changes import NodeChange
from netkit.cluster.node_draining import Drained, Schedulability
from netkit.cluster.node_listing import NodeLine
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile
from netkit.cluster.segment_cuts import Cable, SegmentView

LINES = [
    NodeLine("node1", "running", "True", True, "172.18.0.11", "10.244.0.0/24", 7, False),
    NodeLine("node2", "stopped", "Unknown", False, "172.18.0.12", "", 0, True),
]
VIEW = SegmentView(
    ("lan 172.18.0.0/16",),
    False,
    (
        Cable("node1", "lan", "172.18.0.11", "node1", True),
        Cable("node2", "lan", "172.18.0.12", "node2", False, "cut"),
    ),
    (("client", "node1"),),
)


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def invoke(app: typer.Typer, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_listing, "list_nodes", lambda name: LINES)
    head, *rows = (line.split() for line in invoke(node_commands.app, "list").splitlines())
    assert head == ["NODE", "STATE", "READY", "SCHEDULABLE", "ADDRESS", "POD", "RANGE", "PODS", "CABLE"]
    assert rows == [
        ["node1", "running", "True", "yes", "172.18.0.11", "10.244.0.0/24", "7", "ok"],
        ["node2", "stopped", "Unknown", "no", "172.18.0.12", "-", "0", "cut"],
    ]
    found = json.loads(invoke(node_commands.app, "list", "-o", "json"))
    assert [line["ready"] for line in found] == ["True", "Unknown"]


def test_added_and_removed_nodes_are_told_as_they_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def add(cluster: str, name: str, count: int, report: Any, segment: str) -> list[NodeChange]:
        asked.append((cluster, name, count, segment))
        made = [NodeChange(f"node{number}", f"172.18.0.1{number}", "joined", 0.5) for number in (4, 5)]
        for change in made:
            report(change)
        return made

    def remove(
        cluster: str, names: list[str], *, force: bool, seconds: float, progress: Any, report: Any
    ) -> list[NodeChange]:
        asked.append((cluster, names, force, seconds))
        progress("default/web")
        report(NodeChange("node4", "172.18.0.14", "gone", 0.25))
        return [NodeChange("node4", "172.18.0.14", "gone", 0.25)]

    monkeypatch.setattr(node_changes, "add", add)
    monkeypatch.setattr(node_changes, "remove", remove)
    lines = invoke(node_commands.app, "add", "-n", "2", "-p", "blue").splitlines()
    assert [line.split() for line in lines] == [
        ["ok", "node4", "joined,", "172.18.0.14", "500", "ms"],
        ["ok", "node5", "joined,", "172.18.0.15", "500", "ms"],
    ]
    found = json.loads(invoke(node_commands.app, "add", "-n", "2", "--segment", "rack1", "-o", "json"))
    assert [change["node"] for change in found] == ["node4", "node5"]
    lines = invoke(node_commands.app, "remove", "node4", "node5", "--timeout", "7").splitlines()
    assert [line.split() for line in lines] == [
        ["evicted", "default/web"],
        ["ok", "node4", "gone,", "172.18.0.14", "250", "ms"],
    ]
    assert (
        json.loads(invoke(node_commands.app, "remove", "node4", "--force", "-o", "json"))[0]["what"] == "gone"
    )
    assert asked == [
        ("blue", "", 2, ""),
        ("lab", "", 2, "rack1"),
        ("lab", ["node4", "node5"], False, 7.0),
        ("lab", ["node4"], True, 60.0),
    ]


def test_the_other_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    change = NodeChange("node2", "172.18.0.12", "stopped", 0.1)
    monkeypatch.setattr(node_changes, "stop", lambda cluster, node: change)
    assert invoke(node_commands.app, "stop", "node2").split()[:3] == ["ok", "node2", "stopped,"]
    assert json.loads(invoke(node_commands.app, "stop", "node2", "-o", "json"))["what"] == "stopped"
    monkeypatch.setattr(
        node_draining,
        "set_schedulable",
        lambda cluster, nodes, value: [Schedulability(node, value, node == "node1") for node in nodes],
    )
    assert invoke(node_commands.app, "cordon", "node1", "node2").splitlines() == [
        "node1 cordoned",
        "node2 was cordoned already",
    ]
    assert invoke(node_commands.app, "uncordon", "node1") == "node1 uncordoned\n"
    drained = Drained("node1", ("default/a", "default/b"))
    monkeypatch.setattr(node_draining, "drain", lambda *_, **__: drained)
    assert invoke(node_commands.app, "drain", "node1").startswith("node1 is drained: 2 pods left it.")
    assert json.loads(invoke(node_commands.app, "drain", "node1", "-o", "json"))["evicted"] == [
        "default/a",
        "default/b",
    ]


def test_an_address_has_to_be_one() -> None:
    result = CliRunner().invoke(node_commands.app, ["readdress", "node1", "there"])
    assert isinstance(result.exception, ClusterError)
    assert result.exception.message == "'there' is not an IPv4 address"


def test_cuts_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def make(*arguments: str) -> SegmentView:
        asked.append(arguments)
        return VIEW

    for name in ("show", "cut", "heal"):
        monkeypatch.setattr(segment_cuts, name, make)
    text = invoke(segment_commands.app, "show")
    assert text.splitlines()[0] == "lan 172.18.0.0/16: cut"
    assert "node2     lan       172.18.0.12   node2   down    cut" in text
    assert "nothing passes between client and node1" in text
    invoke(segment_commands.app, "cut", "node2")
    invoke(segment_commands.app, "cut", "node1,node2", "client", "-p", "blue")
    invoke(segment_commands.app, "heal")
    assert json.loads(invoke(segment_commands.app, "heal", "node2", "-o", "json"))["whole"] is False
    assert asked == [
        ("lab",), ("lab", "node2", ""), ("blue", "node1,node2", "client"), ("lab", "", ""), ("lab", "node2", ""),
    ]  # fmt: skip


def test_names_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = tuple(
        MachineFacts(name, role, f"lab.{name}", "")
        for name, role in (
            ("control-plane", "control-plane"),
            ("node1", "node"),
            ("node2", "node"),
            ("switch", "switch"),
        )
    )
    facts = ClusterFacts("lab", "", "", "", "", "", "", "", False, "", machines)
    monkeypatch.setattr(Profile, "facts", lambda self: facts)
    context = typer.Context(click.Command("cut"))
    assert completion.nodes(context, "n") == ["node1", "node2"]
    assert completion.segment_machines(context, "") == ["control-plane", "node1", "node2"]
    assert completion.segment_machines(context, "node1,") == ["node1,control-plane", "node1,node2"]
    assert completion.segment_machines(context, "node1,n") == ["node1,node2"]
