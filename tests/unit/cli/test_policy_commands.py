"""`netkit policy`: what is asked of the API and the nodes, what is printed, and the exit code."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.policy_objects import NAMESPACES, NODE, OTHER, namespace, pod, policy
from support.proxy import endpoint, service, slice_of
from typer.testing import CliRunner

from controlplane.client.client import Client
from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object
from controlplane.resources import catalog
from controlplane.resources.kind import Kind
from netkit.cli import main, policy_commands
from netkit.cluster import policy_inspection, privilege
from netkit.cluster.policy_ends import with_port
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile
from netkit.kernel.nft.fake import FakeNftTable
from netkit.policy.backend import FAMILIES, PolicyBackend
from netkit.policy.model import pod_of, policy_of
from netkit.policy.render import TABLE
from netkit.policy.selection import Selection

MACHINES = (
    MachineFacts("control-plane", "control-plane", "ns-cp", "192.168.0.2"),
    MachineFacts(NODE, "node", "ns1", "192.168.0.11"),
    MachineFacts(OTHER, "node", "ns2", "192.168.0.12"),
)
KINDS = {"Service": catalog.SERVICE, "EndpointSlice": catalog.ENDPOINT_SLICE}


@dataclass
class Cluster:
    """A cluster of two nodes; its API and kernels are fakes."""

    api: FakeApi = field(default_factory=FakeApi)
    tables: dict[str, list[FakeNftTable]] = field(
        default_factory=lambda: {
            machine.namespace: [FakeNftTable(family, TABLE) for family in FAMILIES] for machine in MACHINES
        }
    )

    def client(self, *_: object) -> Client:
        self.api.down = False
        return self.api.client()

    @contextmanager
    def space(self, name: str) -> Any:
        yield name

    def add(self, kind: Kind, obj: Object) -> None:
        where = obj["metadata"].get("namespace", "") if kind.namespaced else ""
        status = obj.get("status")
        self.api.add(kind, obj, where)
        if status is not None:
            self.api.edit(kind, obj["metadata"]["name"], where, lambda it: it.update(status=status))

    def write(self, node: str = NODE) -> None:
        """What the node's agent does."""
        selection = Selection(node)
        for item in self.api.all(catalog.NAMESPACE):
            selection.set_namespace(item["metadata"]["name"], item["metadata"]["labels"])
        for item in self.api.all(catalog.POD):
            selection.set_pod((item["metadata"]["namespace"], item["metadata"]["name"]), pod_of(item))
        for item in self.api.all(catalog.NETWORK_POLICY):
            found = policy_of(item)
            selection.set_policy(found.key, found)
        tables = self.tables[next(m.namespace for m in MACHINES if m.name == node)]
        asyncio.run(PolicyBackend(tables).sync(selection, None))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """Pods x/a and x/b on the first node, y/a on the second; x/deny isolates x/a, x/some lets y/a in at port 80."""
    found = Cluster()
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path))
    (tmp_path / "lab").mkdir()
    facts = ("lab", "https://127.0.0.1:1", "", "", "", "", "", "", False, "")
    Profile("lab").write_facts(ClusterFacts(*facts, machines=MACHINES))
    monkeypatch.setattr(privilege, "require_root", lambda: None)
    monkeypatch.setattr(policy_inspection, "admin_client", found.client)
    monkeypatch.setattr(policy_inspection, "open_namespace", found.space)
    monkeypatch.setattr(policy_inspection, "node_tables", found.tables.__getitem__)
    monkeypatch.setattr(policy_inspection, "_PAUSE_SECONDS", 0)
    for machine in MACHINES:
        addresses = [{"type": "InternalIP", "address": machine.address}]
        found.add(catalog.NODE, {"metadata": {"name": machine.name}, "status": {"addresses": addresses}})
    for name in NAMESPACES:
        found.add(catalog.NAMESPACE, namespace(name))
    found.add(catalog.POD, pod("x", "a", 1))
    found.add(catalog.POD, pod("x", "b", 2))
    found.add(catalog.POD, pod("y", "a", 3, OTHER))
    found.add(catalog.NETWORK_POLICY, policy("x", "deny", podSelector={"matchLabels": {"pod": "a"}}))
    peer = {"namespaceSelector": {"matchLabels": {"ns": "y"}}}
    rule = {"from": [peer], "ports": [{"port": 80}]}
    found.add(
        catalog.NETWORK_POLICY, policy("x", "some", podSelector={"matchLabels": {"pod": "a"}}, ingress=[rule])
    )
    return found


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(policy_commands.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """The exit code and what the program prints instead of an answer."""
    monkeypatch.setattr(main, "app", policy_commands.app)
    monkeypatch.setattr(sys, "argv", ["netkit", *arguments])
    with pytest.raises(SystemExit) as raised:
        main.run()
    said = capsys.readouterr()
    assert said.out == ""
    return int(raised.value.code or 0), said.err


# explain


def test_a_connection_that_a_rule_allows(cluster: Cluster) -> None:
    assert run("explain", "y/a", "x/a:80") == (
        "y/a -> x/a 80/TCP: allowed\n"
        "  egress of y/a: allowed\n"
        "    no policy isolates it for egress\n"
        "  ingress of x/a: allowed by x/some ingress rule 1\n"
        "    isolated by x/deny, x/some\n"
    )


def test_a_connection_that_no_rule_allows(cluster: Cluster) -> None:
    assert run("explain", "x/b", "x/a:80", code=1) == (
        "x/b -> x/a 80/TCP: denied\n"
        "  egress of x/b: allowed\n"
        "    no policy isolates it for egress\n"
        "  ingress of x/a: no rule allows it\n"
        "    isolated by x/deny, x/some\n"
        "    x/deny allows no ingress at all\n"
        "    x/some ingress rule 1: x/b is none of: all pods in namespaces ns=y\n"
    )


def test_json_says_the_same(cluster: Cluster) -> None:
    (found,) = json.loads(run("explain", "y/a", "x/a:81", "-o", "json", code=1))
    assert (found["source"], found["destination"], found["port"]) == ("y/a", "x/a", 81)
    assert found["allowed"] is False
    assert found["halves"][1]["policies"] == ["x/deny", "x/some"]
    assert found["halves"][1]["why"][1] == "x/some ingress rule 1: 81/TCP is none of: 80/TCP"


@pytest.mark.parametrize(
    ("arguments", "code", "first"),
    [
        (("y/a", "x/a"), 1, "y/a -> x/a any TCP port: denied"),
        (("y/a", "x/a:web"), 1, "y/a -> x/a 81/TCP: denied"),
        (("y/a", "x/a:dns", "--protocol", "udp"), 1, "y/a -> x/a 80/UDP: denied"),
        (("y/a", "x/b:1"), 0, "y/a -> x/b 1/TCP: allowed"),
        ((f"node:{NODE}", "x/a:1"), 0, f"node:{NODE} -> x/a 1/TCP: allowed"),
        ((f"node:{OTHER}", "x/a:1"), 1, f"node:{OTHER} -> x/a 1/TCP: denied"),
        (("x/a", f"node:{OTHER}:22"), 0, f"x/a -> node:{OTHER} 22/TCP: allowed"),
        (("10.244.1.3", "10.244.1.1:80"), 0, "y/a (10.244.1.3) -> x/a (10.244.1.1) 80/TCP: allowed"),
        (("203.0.113.9", "x/a:80"), 1, "203.0.113.9 -> x/a 80/TCP: denied"),
        (("fd00::9", "[fd00:244:1::1]:80"), 1, "fd00::9 -> x/a (fd00:244:1::1) 80/TCP: denied"),
        (("fd00::9", "x/a:80"), 1, "fd00::9 -> x/a 80/TCP: denied"),
        (("y/a", "fd00:244:1::1"), 1, "y/a -> x/a (fd00:244:1::1) any TCP port: denied"),
        (("x/a", "x/a:7"), 0, "x/a -> x/a 7/TCP: allowed"),
    ],
)
def test_ends(cluster: Cluster, arguments: tuple[str, ...], code: int, first: str) -> None:
    if "x/a:web" in arguments:
        cluster.api.edit(
            catalog.POD, "a", "x", lambda it: it["spec"]["containers"][0]["ports"][0].update(containerPort=81)
        )
    assert run("explain", *arguments, code=code).splitlines()[0] == first


def test_a_pod_on_its_nodes_network_is_its_node(cluster: Cluster) -> None:
    cluster.add(catalog.POD, pod("z", "h", 50, NODE, hostNetwork=True))
    assert "its own node always reaches it" in run("explain", "z/h", "x/a:1")


def services(cluster: Cluster) -> None:
    """Service ns1/svc1 has ports 80 (p80) and 81; endpoints are x/a and x/b."""
    ports = [
        {"name": "p80", "port": 8080, "protocol": "TCP", "targetPort": 80},
        {"name": "p81", "port": 8081, "protocol": "TCP", "targetPort": 81},
    ]
    found = service()
    found["spec"]["ports"] = ports
    found["spec"]["clusterIPs"] = ["172.30.0.41"]
    slices = slice_of("ns1/svc1", endpoint("10.244.1.1"), endpoint("10.244.1.2"))
    slices["ports"] = [
        {"name": port["name"], "port": port["targetPort"], "protocol": "TCP"} for port in ports
    ]
    cluster.add(catalog.SERVICE, found)
    cluster.add(catalog.ENDPOINT_SLICE, slices)


ALLOWED = ["x/a (10.244.1.1) 80/TCP: allowed", "x/b (10.244.1.2) 80/TCP: allowed"]
OTHERS = ["x/a (10.244.1.1) 81/TCP: denied", "x/b (10.244.1.2) 81/TCP: allowed"]


@pytest.mark.parametrize(
    ("target", "code", "wanted"),
    [
        ("ns1/svc1", 1, ALLOWED + OTHERS),
        ("ns1/svc1:8080", 0, ALLOWED),
        ("ns1/svc1:p80", 0, ALLOWED),
        ("ns1/svc1:p81", 1, OTHERS),
        ("172.30.0.41:8080", 0, ALLOWED),
    ],
)
def test_a_service_is_judged_endpoint_by_endpoint(
    cluster: Cluster, target: str, code: int, wanted: list[str]
) -> None:
    services(cluster)
    lines = run("explain", "y/a", target, code=code).splitlines()
    assert [line.removeprefix("y/a -> ") for line in lines if " -> " in line] == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x/no", "x/a"), "there is no running pod x/no"),
        (("a", "x/a"), "there is no running pod default/a"),
        (("nowhere/a", "x/a"), "there is no running pod nowhere/a"),
        (("ns1/svc1", "x/a"), "there is no running pod ns1/svc1"),
        (("x/a", "x/no:80"), "there is no running pod and no Service x/no"),
        (("node:no", "x/a"), "there is no node no"),
        (("x/a", "node:no:80"), "there is no node no"),
        (("x/a", "ns1/svc1:1"), "Service ns1/svc1 has no TCP port 1"),
        (("x/a", "ns1/svc1", "--protocol", "SCTP"), "Service ns1/svc1 has no SCTP port"),
        (("x/a", "ns1/empty"), "Service ns1/empty has no endpoints"),
        (("x/a", "x/b:nothing"), "there is no TCP port nothing"),
        (("x/a", "x/b:dns"), "there is no TCP port dns"),
        (("x/a", "x/b:70000"), "there is no TCP port 70000"),
        (("x/a", "x/b:0"), "there is no TCP port 0"),
        (("10.0.0.1", "fd00::1"), "10.0.0.1 and fd00::1 have no addresses of the same IP version"),
        (("x/a", "x/b", "--protocol", "ICMP"), "--protocol ICMP is not known"),
        (("x/a", "x/b", "-p", "red"), "there is no cluster red"),
    ],
)
def test_what_is_not_there(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    services(cluster)
    cluster.add(catalog.SERVICE, service("ns1/empty", "172.30.0.42"))
    code, said = fails(monkeypatch, capsys, "explain", *arguments)
    assert code == 1
    first, *hint = said.splitlines()
    assert first == f"netkit: {message}"
    assert len(hint) <= 1


def test_an_api_that_is_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise ConnectionFailed("connection refused")

    monkeypatch.setattr(Client, "list", refused)
    code, said = fails(monkeypatch, capsys, "matrix")
    assert code == 1
    assert said.startswith("netkit: the API server of cluster lab does not answer: connection refused\n")


@pytest.mark.parametrize(
    ("target", "word", "port"),
    [
        ("x/a", "x/a", ""),
        ("x/a:80", "x/a", "80"),
        ("node:n", "node:n", ""),
        ("node:n:80", "node:n", "80"),
        ("fd00::1", "fd00::1", ""),
        ("[fd00::1]", "fd00::1", ""),
        ("[fd00::1]:80", "fd00::1", "80"),
        ("10.0.0.1:web", "10.0.0.1", "web"),
    ],
)
def test_ports_of_targets(target: str, word: str, port: str) -> None:
    assert with_port(target) == (word, port)


# matrix


def test_the_matrix_as_text(cluster: Cluster) -> None:
    assert run("matrix", "--port", "80") == (
        "FROM \\ TO   1   2   3\n"
        "1 x/a       =   +   +\n"
        "2 x/b       -   =   +\n"
        "3 y/a       +   +   =\n"
        "\n+ allowed, - denied; port 80/TCP\n"
    )


def test_the_matrix_of_one_namespace_without_a_port(cluster: Cluster) -> None:
    found = run("matrix", "-n", "x")
    assert found.endswith("2 x/b       -   =\n\n+ allowed, - denied; rules without ports only\n")


def test_the_matrix_as_json(cluster: Cluster) -> None:
    found = json.loads(run("matrix", "--port", "80", "-o", "json"))
    assert found["ends"] == ["x/a", "x/b", "y/a"]
    assert len(found["cells"]) == 6
    assert {
        "source": "y/a", "destination": "x/a", "allowed": True, "by": ["x/some ingress rule 1"],
    } in found["cells"]  # fmt: skip


class Page(HTMLParser):
    """Fails where tags do not close as they should; `cells` has the class and title of each table cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            found = dict(attrs)
            self.cells.append((found["class"] or "", found["title"] or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_matrix_as_a_page(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert run("matrix", "--port", "80", "--html", str(file)) == f"written to {file}\n"
    page = Page(file.read_text())
    assert [kind for kind, _ in page.cells] == [
        "self", "yes", "yes",
        "no", "self", "yes",
        "yes", "yes", "self",
    ]  # fmt: skip
    assert page.cells[6] == ("yes", "x/some ingress rule 1")
    assert page.words.count("x/a") == 2


def test_names_on_the_page_are_text(cluster: Cluster, tmp_path: Path) -> None:
    evil = '<b title="&amp;">\''
    cluster.add(catalog.POD, pod("x", evil, 9))
    cluster.add(
        catalog.NETWORK_POLICY,
        policy(
            "x", evil, podSelector={"matchExpressions": [{"key": "pod", "operator": "Exists"}]}, ingress=[{}]
        ),
    )
    file = tmp_path / "page.html"
    run("matrix", "--html", str(file))
    page = Page(file.read_text())
    assert page.words.count(f"x/{evil}") == 2
    assert ("yes", f"x/{evil} ingress rule 1") in page.cells


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-n", "nowhere"), 1, "netkit: there is no namespace nowhere"),
        (
            ("--html", "/not/there/page.html"),
            1,
            "netkit: /not/there/page.html cannot be written: No such file",
        ),
        (("--port", "70000"), 2, "less than or equal to 65535"),
        (("--port", "web"), 2, "Invalid value for '--port'"),
    ],
)
def test_a_matrix_that_cannot_be(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    found, said = fails(monkeypatch, capsys, "matrix", *arguments)
    assert found == code
    assert message in said


# rules and diff


def test_rules_without_policies(cluster: Cluster) -> None:
    assert run("rules") == "no pod is isolated by a policy\n"
    assert json.loads(run("rules", "-o", "json")) == []


def test_rules_of_the_nodes(cluster: Cluster) -> None:
    cluster.write()
    found = run("rules")
    assert [line for line in found.splitlines() if line.startswith("node")] == [
        f"{NODE}, IPv4",
        f"{NODE}, IPv6",
    ]
    assert "x/some ingress rule 1" in found
    assert "counter packets 0" in found
    assert run("rules", "--node", OTHER) == "no pod is isolated by a policy\n"
    tables = json.loads(run("rules", "--node", NODE, "-o", "json"))
    assert [(table["node"], table["family"]) for table in tables] == [(NODE, "IPv4"), (NODE, "IPv6")]
    names = [section["name"] for section in tables[0]["sections"]]
    assert any(name.startswith("chain pod-ingress-") and name.endswith("x/a") for name in names)


def test_no_difference(cluster: Cluster) -> None:
    cluster.write()
    assert run("diff") == "same: the rules are what policies ask for\n"
    assert json.loads(run("diff", "-o", "json")) == []


def test_differences(cluster: Cluster) -> None:
    cluster.write()
    table = cluster.tables["ns1"][0]
    assert table.contents is not None
    chain = next(name for name in table.contents.rules if name.startswith("policy-") and "x/some" in name)
    table.contents.rules[chain] = []
    found = run("diff", code=1)
    assert found.startswith(
        f"{NODE}, IPv4:  - is missing from the kernel, + should not be there\n  chain {chain}\n    - "
    )
    assert "x/some ingress rule 1" in found
    ((only),) = json.loads(run("diff", "-o", "json", code=1))
    assert (only["node"], only["family"]) == (NODE, "IPv4")
    assert len(only["sections"][0]["missing"]) == 1
    assert run("diff", "--node", OTHER) == "same: the rules are what policies ask for\n"


def test_a_table_that_should_not_be_there(cluster: Cluster) -> None:
    cluster.write()
    cluster.api.remove(catalog.NETWORK_POLICY, "deny", "x")
    cluster.api.remove(catalog.NETWORK_POLICY, "some", "x")
    assert "    + " in run("diff", code=1)


def test_what_is_just_being_written_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looks = cluster.client, 0

    def client(*_: object) -> Client:
        nonlocal looks
        looks += 1
        return look()

    def tables(name: str) -> list[FakeNftTable]:
        if looks == 2 and name == "ns1":
            for written, table in zip(done, cluster.tables[name], strict=True):
                table.contents = written
        return cluster.tables[name]

    cluster.write()
    done = [table.contents for table in cluster.tables["ns1"]]
    for table in cluster.tables["ns1"]:
        table.contents = None
    monkeypatch.setattr(policy_inspection, "admin_client", client)
    monkeypatch.setattr(policy_inspection, "node_tables", tables)
    assert run("diff") == "same: the rules are what policies ask for\n"
    assert looks == 2


@pytest.mark.parametrize("command", ["rules", "diff"])
def test_a_node_that_is_not_there(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, said = fails(monkeypatch, capsys, command, "--node", "control-plane")
    assert code == 1
    assert said.startswith("netkit: control-plane is not a node of cluster lab\n")
    assert f"write one of: {NODE}, {OTHER}" in said


# completion


def completed(words: str) -> list[str]:
    """What the shell offers for the last word."""
    environment = {
        "_NETKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    return CliRunner().invoke(main.app, [], env=environment, prog_name="netkit").output.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("netkit policy explain x/", ["x/a", "x/b"]),
        ("netkit policy explain node:", ["node:control-plane", f"node:{NODE}", f"node:{OTHER}"]),
        ("netkit policy explain ns1/", []),
        ("netkit policy explain x/a ns1/", ["ns1/svc1"]),
        ("netkit policy explain x/a y", ["y/a"]),
        ("netkit policy explain x/a x/b --protocol U", ["UDP"]),
        ("netkit policy rules --node n", [NODE, OTHER]),
        ("netkit policy diff --node node2", [OTHER]),
        ("netkit policy matrix -n y", ["y"]),
        ("netkit policy rules -p red --node n", []),
        ("netkit policy explain -p red x/", []),
    ],
)
def test_tab_completion(cluster: Cluster, words: str, wanted: list[str]) -> None:
    services(cluster)
    assert completed(words) == wanted


def test_completion_without_an_api_offers_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise ConnectionFailed("connection refused")

    monkeypatch.setattr(Client, "list", refused)
    assert completed("netkit policy explain x/") == []
