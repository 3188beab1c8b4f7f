"""What `netkit proxy explain` says comes true: the same endpoints, the same verdict, the same source address."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.space import Space, space

NODES = ("node1", "node2", "node3")
NETEXEC = "registry.k8s.io/e2e-test-images/agnhost:2.53"
TRIES = 25
"""For three endpoints: one chance in some ten thousand that one of them is not seen."""

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}, node: {node}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: "{image}", {command}}}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: server{only}}}, ports: [{{name: http, port: 80, targetPort: {target}}}], {spec}}}
---
"""
ASK = 'for i in $(seq {tries}); do curl -s -m 2 http://{address}/{path}; echo " $?"; done'


@dataclass(frozen=True)
class Asked:
    """A cluster with servers and shells on each node, and how to ask it."""

    lab: Space

    @property
    def cluster(self) -> Cluster:
        return self.lab.cluster

    def explain(self, *arguments: str) -> Any:
        """The one explanation; the exit code must fit it."""
        answer = self.cluster.netkit(
            "proxy",
            "explain",
            "-p",
            self.cluster.name,
            "-n",
            self.lab.name,
            "-o",
            "json",
            *arguments,
            check=False,
        )
        assert answer.stdout, answer.stderr
        found = json.loads(answer.stdout)
        (explanation,) = found["explanations"]
        assert answer.returncode == (0 if found["delivered"] else 1)
        assert found["delivered"] is (explanation["outcome"] == "delivered" and not explanation["missing"])
        return explanation

    def diff(self, *arguments: str) -> Any:
        answer = self.cluster.netkit(
            "proxy", "diff", "-p", self.cluster.name, "-o", "json", *arguments, check=False
        )
        found = json.loads(answer.stdout)
        assert answer.returncode == (0 if found["same"] else 1)
        return found

    def try_it(self, found: Any, path: str, tries: int) -> list[tuple[str, int]]:
        """What curl gets and its exit code, from where the explanation looks from."""
        script = ASK.format(tries=tries, address=f"{found['address']}:{found['number']}", path=path)
        match found["origin"]:
            case "pod":
                pod = found["source_name"].partition("/")[2]
                output = self.lab.kubectl("exec", pod, "--", "sh", "-c", script)
            case "node":
                output = self.cluster.on(found["node"], "sh", "-c", script, timeout=90)
            case _:
                output = self.cluster.on("client", "sh", "-c", script, timeout=90)
        lines = [line.rpartition(" ") for line in output.splitlines()]
        return [(body, int(code)) for body, _, code in lines]


@pytest.fixture(scope="module")
def asked(cluster: Cluster) -> Iterator[Asked]:
    with space(cluster) as lab:
        for node in NODES:
            server = {"image": NETEXEC, "command": "args: [netexec]"}
            lab.apply(POD.format(name=f"server-{node}", app="server", node=node, **server))
            shell = {"image": "busybox", "command": "command: [sleep, infinity]"}
            lab.apply(POD.format(name=f"shell-{node}", app="shell", node=node, **shell))
        services = {
            "plain": ("", 8080, "type: NodePort"),
            "local": (", node: node2", 8080, "type: NodePort, externalTrafficPolicy: Local"),
            "inside": (", node: node2", 8080, "internalTrafficPolicy: Local"),
            "empty": (", node: nowhere", 8080, "type: NodePort"),
            "sticky": ("", 8080, "sessionAffinity: ClientIP"),
        }
        for name, (only, target, spec) in services.items():
            lab.apply(SERVICE.format(name=name, only=only, target=target, spec=spec))
        for node in NODES:
            lab.ready(f"server-{node}")
            lab.ready(f"shell-{node}")
        made = Asked(lab)
        eventually("all servers are endpoints", lambda: len(eligible(made.explain("plain"))) == 3)
        eventually("the rules are written", lambda: made.diff()["same"])
        yield made


def eligible(found: Any) -> set[str]:
    return {item["pod"] for item in found["endpoints"] if item["standing"] == "eligible"}


CASES = [
    # service, --from, further options, outcome, endpoints, source is rewritten
    ("plain", "pod/shell-node1", [], "delivered", NODES, False),
    ("plain", "node", ["--node", "node2"], "delivered", NODES, True),
    ("plain", "outside", [], "delivered", NODES, True),
    ("plain", "outside", ["--node", "node3"], "delivered", NODES, True),
    ("plain", "pod/shell-node2", ["--to", "node-port"], "delivered", NODES, True),
    ("local", "outside", ["--node", "node2"], "delivered", ["node2"], False),
    ("local", "outside", ["--node", "node1"], "dropped", [], False),
    ("local", "pod/shell-node1", ["--to", "node-port"], "delivered", ["node2"], False),
    ("local", "node", ["--to", "node-port", "--node", "node1"], "delivered", ["node2"], True),
    ("inside", "pod/shell-node2", [], "delivered", ["node2"], False),
    ("inside", "pod/shell-node1", [], "dropped", [], False),
    ("inside", "node", ["--node", "node3"], "dropped", [], False),
    ("empty", "pod/shell-node1", [], "refused", [], False),
    ("empty", "node", [], "refused", [], False),
    ("empty", "outside", [], "refused", [], False),
]


@pytest.mark.parametrize(("service", "origin", "options", "outcome", "nodes", "rewritten"), CASES)
def test_it_comes_true(
    asked: Asked,
    service: str,
    origin: str,
    options: list[str],
    outcome: str,
    nodes: list[str],
    rewritten: bool,
) -> None:
    found = asked.explain(service, "--from", origin, *options)
    assert found["outcome"] == outcome
    assert eligible(found) == {f"server-{node}" for node in nodes}
    assert found["source_rewritten"] is rewritten
    if outcome != "delivered":
        ((body, code),) = asked.try_it(found, "hostname", 1)
        assert (body, code) == ("", {"refused": 7, "dropped": 28}[outcome])
        return
    answers = asked.try_it(found, "hostname", TRIES)
    assert {code for _, code in answers} == {0}
    assert {body for body, _ in answers} == eligible(found)
    seen = {body.rpartition(":")[0] for body, _ in asked.try_it(found, "clientip", TRIES)}
    assert seen == {found["source"]} if not rewritten else found["source"] not in seen


def test_affinity_comes_true(asked: Asked) -> None:
    found = asked.explain("sticky", "--from", "pod/shell-node3")
    assert eligible(found) == {f"server-{node}" for node in NODES}
    assert [item["answer"] for item in found["reasons"] if item["about"] == "sessionAffinity"] == ["ClientIP"]
    assert len({body for body, _ in asked.try_it(found, "hostname", TRIES)}) == 1


def test_hairpin_comes_true(asked: Asked) -> None:
    found = asked.explain("plain", "--from", "pod/server-node1")
    assert [item["answer"] for item in found["reasons"] if item["about"] == "hairpin"] == ["rewritten"]
    seen = {body.rpartition(":")[0] for body, _ in asked.try_it(found, "clientip", TRIES)}
    assert found["source"] in seen
    assert len(seen) == 2


def test_by_address(asked: Asked) -> None:
    plain = asked.explain("plain", "--from", "pod/shell-node1")
    assert asked.explain(f"{plain['address']}:80", "--from", "pod/shell-node1") == plain
    outside = asked.explain("plain", "--from", "outside", "--node", "node3")
    named = asked.explain(f"{outside['address']}:{outside['number']}", "--from", "outside")
    assert named["node"] == "node3"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nobody"], "there is no Service {space}/nobody"),
        (["plain:81"], "Service {space}/plain has no port 81"),
        (["plain", "--node", "node9"], "there is no node node9"),
        (["plain", "--from", "pod/nobody"], "there is no pod {space}/nobody"),
        (["plain", "--from", "mars"], "--from mars is not known"),
        (["plain", "--to", "mars"], "--to mars is not known"),
        (
            ["inside", "--from", "outside"],
            "Service {space}/inside has no address for callers outside the cluster",
        ),
    ],
)
def test_mistakes_are_one_line_and_a_hint(asked: Asked, arguments: list[str], line: str) -> None:
    cluster = asked.cluster
    answer = cluster.netkit(
        "proxy", "explain", "-p", cluster.name, "-n", asked.lab.name, *arguments, check=False
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"netkit: {line.format(space=asked.lab.name)}")
    assert len(answer.stderr.splitlines()) <= 2


def test_rules_of_one_service_and_of_a_node(asked: Asked) -> None:
    cluster = asked.cluster
    text = cluster.netkit("proxy", "rules", "-p", cluster.name, "--node", "node1").stdout
    assert text.startswith("node1, iptables, IPv4: ")
    assert "  nat KUBE-SERVICES\n" in text
    found = json.loads(
        cluster.netkit(
            "proxy",
            "rules",
            "-p",
            cluster.name,
            "-n",
            asked.lab.name,
            "--service",
            "plain:http",
            "-o",
            "json",
        ).stdout
    )
    assert [item["node"] for item in found] == list(NODES)
    for item in found:
        assert item["missing"] == []
        entries = [entry for section in item["sections"] for entry in section["entries"]]
        assert any(f'"{asked.lab.name}/plain:http cluster IP"' in entry for entry in entries)
        assert not any("local" in entry.partition(f"{asked.lab.name}/")[2][:5] for entry in entries)


def test_a_rule_that_somebody_deleted(asked: Asked) -> None:
    """`diff` and `explain` name it, and nothing else; written anew, all is the same again."""
    step = asked.explain("plain", "--from", "pod/shell-node1")["steps"][0]
    iptables = shutil.which("iptables-legacy") or "iptables"
    table, chain = step["section"].split()
    for _ in range(5):
        asked.cluster.on("node1", "sh", "-c", f"{iptables} -t {table} -D {chain} {step['entry']}")
        broken = asked.diff()
        text = asked.cluster.netkit("proxy", "diff", "-p", asked.cluster.name, check=False).stdout
        explained = asked.explain("plain", "--from", "pod/shell-node1")
        elsewhere = asked.explain("plain", "--from", "pod/shell-node2")
        if not asked.diff()["same"]:
            break
        # The proxy compares twice a minute, and this time it did before all had been asked.
    assert [(item["node"], item["sections"]) for item in broken["nodes"] if item["sections"]] == [
        ("node1", [{"section": step["section"], "missing": [step["entry"]], "unwanted": []}])
    ]
    assert text.startswith("1 section differs on node1\n")
    assert f"    - {step['entry']}\n" in text
    assert explained["missing"] == 1
    assert [item["standing"] for item in explained["steps"]][:2] == [False, True]
    assert elsewhere["missing"] == 0

    asked.lab.apply(SERVICE.format(name="another", only="", target=8080, spec="type: ClusterIP"))
    eventually("the chain is written anew", lambda: asked.diff()["same"])
    assert asked.explain("plain", "--from", "pod/shell-node1")["missing"] == 0


@pytest.mark.parametrize(
    ("mode", "layout"), [("nftables", "kube-proxy"), ("nftables", "compact"), ("userspace", "")]
)
def test_other_modes(asked: Asked, mode: str, layout: str) -> None:
    """The same questions on a cluster that has changed its mode; the module's last test, as nobody changes it back."""
    cluster = asked.cluster
    cluster.netkit("proxy-mode", mode, *(["--layout", layout] if layout else []), "-p", cluster.name)
    eventually("the rules are those of the mode", lambda: asked.diff()["same"])
    for origin, options in (("pod/shell-node1", []), ("outside", ["--node", "node3"]), ("node", [])):
        found = asked.explain("plain", "--from", origin, *options)
        assert found["mode"] == (f"{mode} compact" if layout == "compact" else mode)
        assert all(step["standing"] for step in found["steps"])
        answers = asked.try_it(found, "hostname", TRIES)
        assert {code for _, code in answers} == {0}
        assert {body for body, _ in answers} == eligible(found) == {f"server-{node}" for node in NODES}
        seen = {body.rpartition(":")[0] for body, _ in asked.try_it(found, "clientip", 6)}
        assert (found["source"] not in seen) is found["source_rewritten"]
    empty = asked.explain("empty", "--from", "pod/shell-node1")
    ((body, code),) = asked.try_it(empty, "hostname", 1)
    assert (empty["outcome"], body) == ("closed" if mode == "userspace" else "refused", "")
    assert (code == 7) is (mode != "userspace")
