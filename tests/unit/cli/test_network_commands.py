"""`netkit network` as it is typed and read; what it finds is made up here."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from typer.testing import CliRunner

from netkit.cli.network_commands import app
from netkit.cluster import network_inspection, network_mode, router_inspection
from netkit.cluster.errors import ClusterError
from netkit.cluster.network_inspection import Comparison, NodeDifferences, NodeView
from netkit.cluster.network_mode import NodeNetworkMode
from netkit.cluster.router_inspection import RouterView
from netkit.podnet.entries import Difference, Entry, Kind, Problem
from netkit.podnet.modes import NetworkMode
from netkit.policy.census import Census


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_the_mode_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        NodeNetworkMode("node1", "vxlan", True, 1450, "serving"),
        NodeNetworkMode("node2", "", False, 0, "unknown", error="no word from the node's agent"),
    ]
    monkeypatch.setattr(network_mode, "read_mode", lambda name: found)
    lines = invoke("mode", code=1).splitlines()
    assert [line.split("   ")[0].strip() for line in lines] == ["NODE", "node1", "node2"]
    assert "vxlan (direct routing)" in lines[1]
    assert "1450" in lines[1]
    assert json.loads(invoke("mode", "-o", "json", code=1))["nodes"][0]["direct_routing"] is True


def test_a_change_is_told_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def change(name: str, mode: NetworkMode, direct: bool, report: Any) -> list[NodeNetworkMode]:
        asked.append((name, mode, direct))
        found = [
            NodeNetworkMode("node1", "native", False, 1500, "serving", "vxlan", 0.12),
            NodeNetworkMode(
                "node2", "vxlan", False, 1450, "failed", "vxlan", error="no route to 10.244.9.0/24"
            ),
        ]
        for each in found:
            report(each)
        return found

    monkeypatch.setattr(network_mode, "change_mode", change)
    lines = invoke("mode", "native", "-p", "blue", code=1).splitlines()
    assert asked == [("blue", NetworkMode.NATIVE, False)]
    assert lines[0].split() == ["ok", "node1", "vxlan", "->", "native,", "pods'", "MTU", "1500", "120", "ms"]
    assert lines[1] == "!!  node2   stays vxlan: no route to 10.244.9.0/24"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mode", "geneve"), "there is no network mode 'geneve'"),
        (("mode", "native", "--direct-routing"), "--direct-routing is for mode vxlan only"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, ClusterError)
    assert result.exception.message == message


def test_show_marks_what_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        Entry(Kind.ROUTE, "10.244.1.0/24", "via 172.18.0.12 dev eth0", "pods of node2"),
        Entry(Kind.ROUTE, "10.244.99.0/24", "via 172.18.0.1 dev eth0"),
        Entry(Kind.RULE, "nat -A FLANNEL-POSTRTG -j RETURN", "", "a rule"),
    )
    view = NodeView(
        "node1",
        "native",
        "172.18.0.11",
        "eth0",
        1500,
        "10.244.0.0/24",
        1500,
        2,
        "ptp",
        entries,
        Census(3, 2, 17),
    )
    monkeypatch.setattr(network_inspection, "show", lambda name, node: [view])
    router = RouterView("router1", "static", 0, (), ())
    monkeypatch.setattr(router_inspection, "routes", lambda name, none_is_fine: [router])
    text = invoke("show")
    assert "router1, routes static" in text
    assert "router1" not in invoke("show", "--node", "node1")
    assert "node1, native, ptp: 2 pods in 10.244.0.0/24, MTU 1500" in text
    assert "3 NetworkPolicies isolate 2 of its pods by 17 rules" in text
    assert "10.244.1.0/24  via 172.18.0.12 dev eth0   pods of node2" in text
    assert "10.244.99.0/24  via 172.18.0.1 dev eth0   not ours" in text
    assert "FLANNEL-POSTRTG" not in text
    assert "FLANNEL-POSTRTG" in invoke("show", "--all")
    assert json.loads(invoke("show", "-o", "json"))[0]["entries"][0]["purpose"] == "pods of node2"
    assert json.loads(invoke("show", "-o", "json"))[0]["policies"] == {"policies": 3, "pods": 2, "rules": 17}


@pytest.mark.parametrize(
    ("problem", "wanted", "found", "line"),
    [
        (Problem.MISSING, "dst 172.18.0.12", "", "missing: fdb KEY  dst 172.18.0.12"),
        (Problem.NOT_OURS, "", "dst 172.18.0.9", "not ours: fdb KEY  dst 172.18.0.9"),
        (
            Problem.WRONG,
            "dst 172.18.0.12",
            "dst 172.18.0.9",
            "wrong: fdb KEY  dst 172.18.0.9, should be dst 172.18.0.12",
        ),
    ],
)
def test_check_names_node_and_entry(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, wanted: str, found: str, line: str
) -> None:
    difference = Difference(Kind.FDB, "KEY", problem, wanted, found, "tunnel to node2")
    answer = Comparison(False, (NodeDifferences("node1", "vxlan", 30, (difference,)),))
    monkeypatch.setattr(network_inspection, "check", lambda name, node: answer)
    assert invoke("check", code=1).splitlines() == [f"!!  node1  {line}", "      tunnel to node2"]
    assert json.loads(invoke("check", "-o", "json", code=1))["same"] is False


def test_check_of_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Comparison(
        True, (NodeDifferences("node1", "vxlan", 30, ()), NodeDifferences("node2", "vxlan", 31, ()))
    )
    monkeypatch.setattr(network_inspection, "check", lambda name, node: answer)
    assert invoke("check") == "as it should be: 61 entries on node1, node2\n"
