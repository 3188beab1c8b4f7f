"""What is wrong with a file of rows is said in one line that names the file, the row or object, and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from rows.__main__ import main
from rows.errors import TableError
from rows.format import Outcome, Sticky, Table
from rows.reader import read_table

MANIFESTS = """
cluster: shop
manifests:
- apiVersion: v1
  kind: Service
  metadata: {name: web}
  spec:
    clusterIP: 172.30.0.41
    type: NodePort
    ports: [{name: http, port: 80, nodePort: 30001}, {name: admin, port: 81}]
- apiVersion: v1
  kind: Service
  metadata: {name: plain}
  spec: {clusterIP: 172.30.0.42, ports: [{name: http, port: 80}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080}]
  endpoints: [{addresses: [10.244.1.11], nodeName: node1, targetRef: {kind: Pod, name: a1}}]
"""
GOOD = "{name: good, service: web, from: outside, to: nodePort, expect: [a1]}"


def file_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    return path


def table_of(tmp_path: Path, text: str) -> Table:
    return read_table(file_of(tmp_path, text))


def fault(tmp_path: Path, text: str) -> str:
    """The message, which is one line and begins with the file."""
    path = file_of(tmp_path, text)
    with pytest.raises(TableError) as caught:
        read_table(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def with_rows(*rows: str) -> str:
    return MANIFESTS + "rows:\n" + "".join(f"- {row}\n" for row in rows)


def row(**words: str) -> str:
    given = {"name": "bad", "service": "web", "from": "outside", "to": "nodePort", "expect": "[a1]"}
    given |= {word.rstrip("_"): text for word, text in words.items()}
    return "{" + ", ".join(f"{word}: {text}" for word, text in given.items()) + "}"


def test_a_file_without_faults_is_read(tmp_path: Path) -> None:
    (found,) = table_of(tmp_path, with_rows(GOOD)).rows
    expected = found.expected["iptables"]
    assert (found.title, expected.outcome, expected.endpoints) == (
        "shop: good",
        Outcome.ENDPOINTS,
        frozenset({"10.244.1.11:8080"}),
    )
    assert expected.sticky is Sticky.NO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"service": "wob"}, "service: there is no Service wob in cluster shop"),
        ({"service": "shop/web"}, "service: there is no Service shop/web in cluster shop"),
        ({"service": "[web]"}, "service: ['web'] is not text"),
        ({"node": "[node1]"}, "node: ['node1'] is not text"),
        ({"from_": "a9"}, "from: 'a9' is not a pod, node, other-node, node1, node2, localhost, outside,"),
        ({"from_": '""'}, "from: says where connections come from, and is missing"),
        ({"from_": "pod on node9"}, "from: there is no node node9"),
        ({"from_": "node as 1.2.3"}, "from: '1.2.3' is not an address"),
        ({"from_": '"node as fd00::1"'}, "from: fd00::1 is no address of IPv4"),
        ({"to": "clusterip"}, "to: 'clusterip' is not an address or one of clusterIP, nodePort,"),
        ({"to": "externalIP"}, "to: Service web has no externalIP of IPv4"),
        ({"to": "clusterIP@node2"}, "to: only nodePort takes a place, not 'clusterIP@node2'"),
        ({"to": "nodePort@node9"}, "to: 'node9' is not an address"),
        ({"to": "[]"}, "to: [] does not say what is called"),
        ({"service": "plain"}, "to: Service plain has no node port"),
        ({"port": "https"}, "port: 'https' is neither a number nor the name of a port of the Service"),
        ({"port": "70000"}, "port: 70000 is neither a number nor the name of a port of the Service"),
        ({"protocol": "ICMP"}, "protocol: 'ICMP' is not one of TCP, UDP, SCTP"),
        ({"family": "IPv5"}, "family: 'IPv5' is not one of IPv4, IPv6"),
        ({"expect": "[a9]"}, "expect: no endpoint of cluster shop is 'a9'"),
        ({"expect": "[10.244.1.99]"}, "expect: no endpoint of cluster shop is '10.244.1.99'"),
        ({"expect": "[7]"}, "expect: 7 is not the name or address of an endpoint"),
        ({"expect": "rejected"}, "expect: 'rejected' is neither a list of endpoints nor one of reject,"),
        ({"expect": "[]"}, "expect: [] is neither a list of endpoints nor one of reject,"),
        ({"port": "admin"}, "expect: 'a1' has 0 ports that fit, write it as a1:PORT"),
        ({"sticky": "always"}, "sticky: 'always' is not one of true, false, each"),
        ({"sticky": "[each]"}, "sticky: ['each'] is not one of true, false, each"),
        ({"masqueraded": "maybe"}, "masqueraded: 'maybe' is neither true nor false"),
        ({"masqueraded": "1"}, "masqueraded: 1 is neither true nor false"),
        ({"modes": "[nftables]"}, "modes: must be a mapping"),
        (
            {"modes": "{netfilter: {}}"},
            "modes: 'netfilter' is not one of iptables, nftables, ipvs, userspace",
        ),
        (
            {"modes": "{ipvs: {expects: drop}}"},
            "modes.ipvs: expects: not one of expect, masqueraded, sticky,",
        ),
        ({"modes": "{ipvs: {skip: true}}"}, "skip: says why, in words"),
        ({"modes": "{ipvs: {instead: {reject: gone}}}"}, "instead: {'reject': 'gone'} is not a mapping of"),
        (
            {"modes": "{ipvs: {instead: {reject: [drop]}}}"},
            "instead: {'reject': ['drop']} is not a mapping of",
        ),
        ({"settings": "[]"}, "settings: must be a mapping"),
        ({"settings": "{mode: ipvs}"}, "settings.mode: rows run in every mode, see `modes`"),
        ({"settings": "{clusterCidr: 10.0.0.0/8}"}, "settings: "),
        ({"expects": "[a1]"}, "expects: not one of name, covers, node, settings, from,"),
    ],
)
def test_faults_of_a_row(tmp_path: Path, words: dict[str, str], message: str) -> None:
    found = fault(tmp_path, with_rows(GOOD, row(**words)))
    assert found.startswith(f"cluster shop: row 'bad': {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows: there are none"),
        (MANIFESTS, "rows: there are none"),
        ("- a\n- b\n", "document 1: must be a mapping, not ['a', 'b']"),
        (with_rows(GOOD, GOOD), "cluster shop: row 'good': name: there are two rows of that name"),
        (with_rows("7"), "cluster shop: rows[0]: must be a mapping, not 7"),
        (with_rows("{from: node}"), "cluster shop: rows[0]: name: every row needs one"),
        (MANIFESTS + "row: []\n", "document 1: row: not one of bridges, cluster, defaults,"),
        (MANIFESTS + "rows: {}\n", "document 1: rows: must be a list"),
        (MANIFESTS + "settings: []\n", "document 1: settings: must be a mapping"),
        (MANIFESTS + "bridges: [3]\n", "document 1: bridges: 3 is not the name of a node"),
        (MANIFESTS + "firewall: shut\n", "document 1: firewall: 'shut' is neither open nor closed"),
        (MANIFESTS + "---\ncluster: shop\n", "document 2: cluster: there are two of the name shop"),
        ("cluster: [shop]\n", "document 1: cluster: ['shop'] is not a name"),
        (MANIFESTS + "defaults: {form: node}\nrows: [" + GOOD + "]\n", "cluster shop: row 'good': form: not one"),
        (MANIFESTS + "modes: {ipsv: {}}\nrows: [" + GOOD + "]\n", "cluster shop: row 'good': modes: 'ipsv' is not"),
    ],
)  # fmt: skip
def test_faults_of_a_table(tmp_path: Path, text: str, message: str) -> None:
    assert fault(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [\n", "line 2: "),
        ("rows: []\ncluster: a\nrows: []\n", "line 3: the key 'rows' stands twice"),
        ("? {a: b}\n: c\n", "line 1: "),
        ("rows: *nobody\n", "line 1: found undefined alias"),
        ("rows: []\n\tcluster: a\n", "line 2: "),
        ("cluster: \x07\n", "control characters are not allowed"),
    ],
)
def test_faults_of_yaml(tmp_path: Path, text: str, message: str) -> None:
    assert message in fault(tmp_path, text)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(b"cluster: \xff\xfe\n")
    with pytest.raises(TableError, match="is not UTF-8"):
        read_table(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.yaml: No such file or directory"):
        read_table(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("7", "a manifest is a mapping, not 7"),
        ("{kind: Pod, apiVersion: v1, metadata: {name: x}}", "kind: 'Pod' of apiVersion 'v1' is not one of"),
        (
            "{kind: Service, metadata: {name: x}}",
            "kind: 'Service' of apiVersion None is not one of Service (v1),",
        ),
        ("{kind: Service, apiVersion: v1}", "metadata.name: every Service needs one"),
        (
            "{kind: List, items: [{kind: Service, apiVersion: v1}]}",
            "items[0]: metadata.name: every Service needs",
        ),
        (
            "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: []}",
            "Service x: spec: must be a mapping",
        ),
        (
            "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: {type: Nodeport}}",
            "Service x: spec.type: 'Nodeport' is not one of ClusterIP, NodePort, LoadBalancer, ExternalName",
        ),
        (
            "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: {externalTrafficPolicy: local}}",
            "Service x: spec.externalTrafficPolicy: 'local' is neither Cluster nor Local",
        ),
        (
            "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: {ports: [{port: http}]}}",
            "Service x: spec.ports[0].port: 'http' is not a port",
        ),
        (
            "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: x}}",
            "EndpointSlice x: addressType: None is not one of IPv4, IPv6, FQDN",
        ),
        (
            "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: x}, addressType: IPv4,"
            " endpoints: [{}]}",
            "EndpointSlice x: endpoints[0].addresses: at least one is needed",
        ),
    ],
)
def test_faults_of_a_manifest(tmp_path: Path, manifest: str, message: str) -> None:
    text = f"cluster: shop\nmanifests:\n- {manifest}\nrows: []\n"
    assert fault(tmp_path, text).startswith(f"document 1: manifests[0]: {message}")


def test_two_objects_of_one_name(tmp_path: Path) -> None:
    service = "---\n{kind: Service, apiVersion: v1, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n"
    assert fault(tmp_path, MANIFESTS + service) == "cluster shop: Service web: there are two of them"


def test_a_pod_on_two_nodes(tmp_path: Path) -> None:
    other = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.11], nodeName: node2}]
"""
    assert "pod a1 is on node2 here and on node1 elsewhere" in fault(tmp_path, MANIFESTS + other)


def test_the_command_says_the_line_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, with_rows(row(service="wob")))
    assert main([str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"tests/run: {path}: cluster shop: row 'bad': service: there is no Service wob in cluster shop\n"
    )


def test_the_command_knows_its_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file_of(tmp_path, with_rows(GOOD))), "--mode", "netfilter"]) == 2
    assert capsys.readouterr().err.startswith("tests/run: there is no mode netfilter; there are iptables,")
