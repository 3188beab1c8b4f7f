"""`netkit topology` without a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netkit.cli import main


@pytest.fixture
def netkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["netkit", "topology", *arguments])
        with pytest.raises(SystemExit) as leaving:
            main.run()
        told = capfd.readouterr()
        return int(leaving.value.code or 0), told.out, told.err

    return run


def test_ready_made_ones_are_listed_shown_and_drawn(netkit: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = netkit("list", "-o", "json")
    assert code == 0
    assert {each["name"]: each["routers"] for each in json.loads(out)} == {
        "mtu-bottleneck": 2, "one-segment": 0, "two-racks": 4, "two-zones": 1,
    }  # fmt: skip
    assert "zone-a, zone-b" in netkit("list")[1]
    shown = json.loads(netkit("show", "two-zones", "-o", "json")[1])
    assert shown["nodes"][2]["interfaces"] == [{"segment": "zone-b", "address": "172.18.2.11"}]
    for picture, begin in (("text", "══ zone-a"), ("mermaid", "flowchart"), ("svg", "<svg")):
        assert netkit("draw", "two-zones", "-o", picture)[1].startswith(begin)
    assert json.loads(netkit("schema")[1])["required"] == ["segments", "nodes"]


def test_a_file_is_judged(netkit: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("segments: [{name: a}, {name: a}]\nnodes: [{name: n, interfaces: [b]}]\n")
    code, out, _ = netkit("validate", str(file))
    assert code == 1
    assert out.splitlines() == [
        "!!  segments[1].name: a is the name of segments[0] as well",
        "!!  nodes[0].interfaces[0].segment: there is no segment 'b'; there are: a",
    ]
    code, out, _ = netkit("validate", str(file), "-o", "json")
    assert (code, json.loads(out)["valid"], len(json.loads(out)["faults"])) == (1, False, 2)
    assert netkit("validate", "two-racks")[:2] == (0, "valid: 7 segments, 4 routers, 4 nodes\n")
    code, _, err = netkit("show", str(file))
    assert code == 1
    assert "mine: segments[1].name: a is the name of segments[0] as well (and 1 more)" in err
    file.write_text("segments: [\n")
    assert "not valid YAML in line" in netkit("validate", str(file))[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show",), "name a topology, or a cluster with -p"),
        (("show", "two-zones", "-p", "lab"), "name a topology, or a cluster with -p"),
        (("draw", "-p", "nobody"), "there is no cluster nobody"),
        (("draw", "nothing.yaml"), "nothing.yaml: No such file"),
    ],
)
def test_mistakes_are_one_line(
    netkit: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = netkit(*arguments)
    assert code == 1
    assert message in err
    assert "Traceback" not in err
