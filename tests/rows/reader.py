"""A file of rows, read and checked: YAML in, a `Table` out. Every fault is one line that names file, row and field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controlplane.errors import Object
from controlplane.meta.objects import name
from netkit.proxy.addresses import parse_address
from rows import configuration
from rows.errors import TableError
from rows.format import Address, Cluster, NodePlan, Place, Plan, PodPlan, Row, Table
from rows.manifests import completed, flattened, node_addresses, node_named, pod_addresses, pods_of
from rows.row import ROW_FIELDS, NodeClient, row_of

_CLUSTER_FIELDS = frozenset(
    {"cluster", "settings", "modes", "bridges", "firewall", "defaults", "manifests", "rows"}
)
_FIREWALLS: Mapping[str, tuple[str, ...]] = {
    "open": (),
    "closed": ("INPUT", "FORWARD"),
    "closed to transit": ("FORWARD",),
}
"""Chains of the table filter that drop what nobody accepts."""
OUTSIDE = (parse_address("192.168.0.100"), parse_address("fd00:192:168::100"))
"""The client outside, on the nodes' segment."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as kubectl reads it: times stay text, and a key that stands twice is a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass
class _Draft:
    """One cluster as far as it has been read."""

    name: str
    where: str
    settings: dict[str, Any] = field(default_factory=dict)
    modes: dict[str, Any] = field(default_factory=dict)
    bridges: list[str] = field(default_factory=list)
    closed: tuple[str, ...] = ()
    manifests: list[Object] = field(default_factory=list)
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def read_table(path: Path) -> Table:
    """The table in a file. Raises TableError."""
    try:
        documents = list(yaml.load_all(path.read_text(), Loader=_Loader))
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: byte {error.start}: the file is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise TableError(f"{path}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise TableError(f"{path}: {str(error).splitlines()[0]}") from None
    return table_of(path, documents)


def table_of(path: Path, documents: Iterable[Any]) -> Table:
    """The table of a file's documents. Raises TableError."""
    drafts = _drafts(path, documents)
    numbers: dict[str, int] = {"node1": 1, "node2": 2}
    clusters = {draft.name: _cluster(draft, numbers) for draft in drafts}
    rows = [row for draft in drafts for row in _rows(draft, clusters[draft.name])]
    if not rows:
        raise TableError(f"{path}: rows: there are none")
    return Table(path, clusters, tuple(rows), _plan(str(path), clusters.values(), rows))


def _drafts(path: Path, documents: Iterable[Any]) -> list[_Draft]:
    drafts: list[_Draft] = []
    for number, document in enumerate(documents, 1):
        where = f"{path}: document {number}"
        if document is None:
            continue
        if not isinstance(document, dict):
            raise TableError(f"{where}: must be a mapping, not {document!r}")
        if "cluster" in document or not drafts:
            title = document.get("cluster", path.stem)
            if not isinstance(title, str) or not title:
                raise TableError(f"{where}: cluster: {title!r} is not a name")
            if any(draft.name == title for draft in drafts):
                raise TableError(f"{where}: cluster: there are two of the name {title}")
            drafts.append(_Draft(title, f"{path}: cluster {title}"))
        _take(drafts[-1], document, where)
    return drafts


def _take(draft: _Draft, document: dict[str, Any], where: str) -> None:
    """Add one document to the cluster it belongs to."""
    if document.get("kind") == configuration.KIND:
        draft.settings = configuration.merged(draft.settings, document)
        return
    if "kind" in document:
        draft.manifests += flattened(document, where)
        return
    for word in document:
        if word not in _CLUSTER_FIELDS and not word.startswith("x-"):
            raise TableError(f"{where}: {word}: not one of {', '.join(sorted(_CLUSTER_FIELDS))}, kind")
    for word, kind in (("settings", dict), ("modes", dict), ("defaults", dict), ("bridges", list),
                       ("manifests", list), ("rows", list)):  # fmt: skip
        if not isinstance(document.get(word, kind()), kind):
            raise TableError(f"{where}: {word}: must be a {'mapping' if kind is dict else 'list'}")
    draft.settings = configuration.merged(draft.settings, document.get("settings", {}))
    draft.modes = configuration.merged(draft.modes, document.get("modes", {}))
    for node in document.get("bridges", ()):
        if not isinstance(node, str):
            raise TableError(f"{where}: bridges: {node!r} is not the name of a node")
        draft.bridges.append(node)
    if (firewall := document.get("firewall", "open")) not in _FIREWALLS:
        raise TableError(f"{where}: firewall: {firewall!r} is neither open nor closed nor closed to transit")
    draft.closed += _FIREWALLS[firewall]
    for number, manifest in enumerate(document.get("manifests", ())):
        draft.manifests += flattened(manifest, f"{where}: manifests[{number}]")
    defaults = document.get("defaults", {})
    for number, row in enumerate(document.get("rows", ())):
        place = f"{draft.where}: rows[{number}]"
        if not isinstance(row, dict):
            raise TableError(f"{place}: must be a mapping, not {row!r}")
        if not isinstance(row.get("name"), str) or not row["name"]:
            raise TableError(f"{place}: name: every row needs one")
        place = f"{draft.where}: row {row['name']!r}"
        for word in (*row, *defaults):
            if word not in ROW_FIELDS:
                raise TableError(f"{place}: {word}: not one of {', '.join(ROW_FIELDS)}")
        draft.rows.append((place, {**defaults, **row}))


def _cluster(draft: _Draft, numbers: dict[str, int]) -> Cluster:
    objects = completed(draft.manifests)
    seen: set[tuple[str, str, str]] = set()
    for item in objects:
        key = (item["kind"], item["metadata"].get("namespace", ""), name(item))
        if key in seen:
            raise TableError(f"{draft.where}: {key[0]} {key[2]}: there are two of them")
        seen.add(key)
    given = {name(item): item for item in objects if item["kind"] == "Node"}
    mentioned = [
        endpoint["nodeName"]
        for item in objects
        if item["kind"] == "EndpointSlice"
        for endpoint in item["endpoints"]
        if endpoint.get("nodeName")
    ]
    wanted = [row["node"] for _, row in draft.rows if isinstance(row.get("node"), str)]
    for node in (*given, *draft.bridges, *mentioned, *wanted):
        numbers.setdefault(node, len(numbers) + 1)
    names = dict.fromkeys((*given, "node1", "node2", *draft.bridges, *mentioned, *wanted))
    nodes = {node: node_named(node, numbers[node], given.get(node)) for node in names}
    pods = pods_of(objects, nodes, draft.where)
    return Cluster(
        draft.name,
        tuple(item for item in objects if item["kind"] != "Node"),
        nodes,
        pods,
        frozenset(draft.bridges),
        draft.closed,
    )


def _rows(draft: _Draft, cluster: Cluster) -> list[Row]:
    found: dict[str, Row] = {}
    for where, words in draft.rows:
        row = row_of(words, cluster, draft.settings, draft.modes, where)
        if row.name in found:
            raise TableError(f"{where}: name: there are two rows of that name")
        found[row.name] = row
    return list(found.values())


def _plan(where: str, clusters: Iterable[Cluster], rows: Iterable[Row]) -> Plan:
    nodes: dict[str, NodePlan] = {}
    pods: dict[str, PodPlan] = {}
    services: dict[Address, None] = {}
    for cluster in clusters:
        for node_name, node in cluster.nodes.items():
            bridge = node_name in cluster.bridges
            plan = NodePlan(
                node_name, node_addresses(node), pod_addresses(node, 1), pod_addresses(node, 200), bridge
            )
            known = nodes.setdefault(node_name, plan)
            if (known.addresses, known.clients) != (plan.addresses, plan.clients):
                raise TableError(f"{where}: Node {node_name}: has different addresses in two clusters")
            if plan.bridge and not known.bridge:
                nodes[node_name] = plan
        for pod in cluster.pods.values():
            _add_pod(pods, pod, where)
        for item in cluster.of_kind("Service"):
            services |= dict.fromkeys(_service_addresses(item))
    owned: dict[str, dict[Address, None]] = {}
    outside = dict.fromkeys(OUTSIDE)
    local = {address for node in nodes.values() for address in node.addresses}
    for row in rows:
        origin = row.origin
        if isinstance(client := pod_client(row, nodes), PodPlan):
            _add_pod(pods, client, where)
        if origin.source and origin.place is Place.OUTSIDE:
            outside[origin.source] = None
        if origin.source and origin.place is Place.NODE and not origin.source.is_loopback:
            owned.setdefault(origin.machine, {})[origin.source] = None
        services |= dict.fromkeys(target.address for target in row.targets if not target.address.is_loopback)
    finished = tuple(
        NodePlan(
            node.name,
            node.addresses,
            node.gateways,
            node.clients,
            node.bridge,
            tuple(address for address in owned.get(node.name, ()) if address not in node.addresses),
        )
        for node in nodes.values()
    )
    local |= {address for pod in pods.values() for address in pod.addresses}
    routed = tuple(address for address in services if address not in local)
    loopback = {
        target.address: None
        for row in rows
        for target in row.targets
        if row.origin.place is Place.OUTSIDE and target.address.is_loopback
    }
    return Plan(finished, tuple(pods.values()), routed, tuple(outside), tuple(loopback))


def pod_client(row: Row, nodes: Mapping[str, NodePlan]) -> PodPlan | None:
    """The pod that exists only to call, if the row wants one."""
    client = NodeClient.parse(row.origin.machine) if row.origin.place is Place.POD else None
    if client is None:
        return None
    return PodPlan(row.origin.machine, client.node, nodes[client.node].clients)


def _add_pod(pods: dict[str, PodPlan], pod: PodPlan, where: str) -> None:
    known = pods.get(pod.name)
    for other in pods.values():
        if other.name != pod.name and (both := set(other.addresses) & set(pod.addresses)):
            raise TableError(f"{where}: pod {pod.name}: {both.pop()} is also the address of pod {other.name}")
    if known is None:
        pods[pod.name] = pod
        return
    if known.node != pod.node:
        raise TableError(
            f"{where}: pod {pod.name}: is on {known.node} in one cluster and on {pod.node} in another"
        )
    addresses = tuple(dict.fromkeys((*known.addresses, *pod.addresses)))
    pods[pod.name] = PodPlan(pod.name, pod.node, addresses, known.listens | pod.listens)


def _service_addresses(service: Object) -> list[Address]:
    """Every address of a Service, also those a proxy leaves alone."""
    spec, status = service["spec"], service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    texts = [*(spec.get("clusterIPs") or ()), *(spec.get("externalIPs") or ())]
    texts += [item["ip"] for item in ingress if item.get("ip")]
    found = []
    for text in texts:
        try:
            found.append(parse_address(text))
        except ValueError:
            continue
    return found
