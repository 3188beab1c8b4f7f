"""`netkit proxy explain`, `rules` and `diff`: what is asked, what is printed, and the exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.explained import explained
from support.proxy import endpoint, service, slice_of
from typer.testing import CliRunner

from netkit.cli.main import app
from netkit.cluster import privilege, proxy_inspection
from netkit.cluster.errors import ClusterError
from netkit.cluster.proxy_access import Alone
from netkit.cluster.proxy_inspection import Answer, Comparison, NodeDifferences, NodeRules, Question
from netkit.proxy.addresses import Family
from netkit.proxy.explain.target import To
from netkit.proxy.listing import Difference, Section
from netkit.proxy.settings import ProxyMode


class Asked(list[Any]):
    """Calls that a command made; `answer` is what it was told."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def __call__(self, *given: Any) -> Any:
        self.append(given)
        return self.answer


def run(monkeypatch: pytest.MonkeyPatch, function: str, answer: Any, *arguments: str) -> tuple[Any, Asked]:
    asked = Asked(answer)
    monkeypatch.setattr(proxy_inspection, function, asked)
    monkeypatch.setattr(privilege, "require_root", lambda: None)
    return CliRunner().invoke(app, ["proxy", *arguments]), asked


def answer_of(*endpoints: Any) -> Answer:
    found = explained(service(), slice_of("ns1/svc1", *endpoints))
    return Answer(found.delivered, (found,))


def test_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answer_of(endpoint("10.244.0.5", "here"))
    result, asked = run(
        monkeypatch, "explain_connection", answer, "explain", "web:http", "-n", "blue", "--from", "node",
        "--to", "node-port", "--node", "node2", "--source", "10.0.0.1", "-p", "red",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.output.startswith("ns1/svc1:p80: delivered to 10.244.0.5:80, source kept\n")
    assert asked == [
        ("red", None, Question("web:http", "blue", "node", To.NODE_PORT, "node2", "10.0.0.1")),
    ]


def test_explain_exits_with_1_when_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(monkeypatch, "explain_connection", answer_of(), "explain", "web")
    assert result.exit_code == 1
    assert result.output.startswith("ns1/svc1:p80: refused: ")


def test_json_is_the_value_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answer_of(endpoint("10.244.0.5", "here"))
    result, _ = run(monkeypatch, "explain_connection", answer, "explain", "web", "-o", "json")
    found = json.loads(result.output)
    assert found["delivered"] is True
    (explanation,) = found["explanations"]
    assert explanation["summary"] == answer.explanations[0].summary
    assert len(explanation["steps"]) == len(answer.explanations[0].steps)


def test_a_proxy_that_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    path = tmp_path / "kubeconfig"
    _, asked = run(
        monkeypatch, "compare", Comparison(True, ()), "diff", "--kubeconfig", str(path), "--netns", "n",
        "--mode", "ipvs",
    )  # fmt: skip
    assert asked == [("lab", Alone(path, "n", None, ProxyMode.IPVS), "")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "--mode", "ipvs"], "--mode needs --kubeconfig"),
        (["rules", "--netns", "n"], "--netns needs --kubeconfig"),
        (["diff", "--kubeconfig", "f", "--mode", "x"], "--mode x is not known"),
        (["explain", "web", "--to", "mars"], "--to mars is not known"),
    ],
)
def test_options_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    result, asked = run(monkeypatch, "compare", None, *arguments)
    assert isinstance(result.exception, ClusterError)
    assert result.exception.message == message
    assert asked == []


def test_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Section("nat KUBE-SERVICES", ("-d 10.96.0.1/32 -j KUBE-SVC-1", "-j KUBE-NODEPORTS"))
    gone = Section("nat KUBE-SVC-1", ("-j KUBE-SEP-1",), "chain")
    found = [NodeRules("node1", "iptables", Family.IPV4, (there,), (gone,))]
    result, asked = run(monkeypatch, "standing_rules", found, "rules", "--node", "node1", "--service", "web")
    assert asked == [("lab", None, "node1", "web", "default")]
    assert result.output == (
        "node1, iptables, IPv4: 2 entries\n"
        "  nat KUBE-SERVICES\n"
        "      -d 10.96.0.1/32 -j KUBE-SVC-1\n"
        "      -j KUBE-NODEPORTS\n"
        "  not in the kernel: 1 entry\n"
        "  nat KUBE-SVC-1 (chain)\n"
        "    - -j KUBE-SEP-1\n"
    )


def test_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = (Difference("nat KUBE-SERVICES", ("-j A",), ("-j B",)), Difference("nat KUBE-SVC-1"))
    nodes = (
        NodeDifferences("node1", "iptables", Family.IPV4, sections),
        NodeDifferences("node2", "iptables", Family.IPV4, ()),
    )
    result, _ = run(monkeypatch, "compare", Comparison(False, nodes), "diff")
    assert result.exit_code == 1
    assert result.output == (
        "2 sections differ on node1\n"
        "\n"
        "node1, iptables, IPv4:  - is missing from the kernel, + should not be there\n"
        "  nat KUBE-SERVICES\n"
        "    - -j A\n"
        "    + -j B\n"
        "  nat KUBE-SVC-1\n"
        "    the same entries, but in another order or under another heading\n"
    )


def test_diff_without_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (NodeDifferences("node1", "iptables", Family.IPV4, ()),)
    result, _ = run(monkeypatch, "compare", Comparison(True, nodes), "diff")
    assert (result.exit_code, result.output) == (0, "same: the rules of node1 are what Services ask for\n")
