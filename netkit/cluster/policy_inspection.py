"""What `netkit policy` says: gathers the API's objects and the nodes' tables; `netkit.policy` judges.

Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from controlplane.client.transport import ConnectionFailed
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from controlplane.resources import catalog
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile
from netkit.kernel.netns import open_namespace
from netkit.kernel.nft import text
from netkit.kernel.nft.expressions import Counter, decode, encode
from netkit.kernel.nft.objects import Contents, Rule
from netkit.kernel.nft.replay import Replay
from netkit.policy.backend import node_tables
from netkit.policy.model import Address, Pod, pod_of, policy_of
from netkit.policy.selection import Selection
from netkit.policy.table import Table
from netkit.policy.verdict import End, Judge, Verdict
from netkit.proxy.listing import Difference, Listing, Section, differences, listing

_API_SECONDS = 10.0
_LOOKS, _PAUSE_SECONDS = 4, 0.3


@dataclass(frozen=True, slots=True)
class Objects:
    """What of the cluster decides who reaches whom."""

    pods: Sequence[Object]
    namespaces: Sequence[Object]
    policies: Sequence[Object]
    nodes: Sequence[Object]
    services: Sequence[Object]
    slices: Sequence[Object]

    def judge(self) -> Judge:
        return Judge(map(policy_of, self.policies), {name(item): labels(item) for item in self.namespaces})

    def running(self) -> list[Pod]:
        """The pods that can be reached."""
        found = filter(None, map(pod_of, self.pods))
        return sorted((pod for pod in found if pod.addresses), key=lambda pod: pod.key)


@dataclass(frozen=True, slots=True)
class Cell:
    source: str
    destination: str
    allowed: bool
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Who reaches whom: `ends` in order; a cell for each pair of different ones."""

    protocol: str
    port: int | None
    ends: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class NodeTable:
    """One node's table of one family as it stands."""

    node: str
    family: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class NodeDifferences:
    node: str
    family: str
    sections: tuple[Difference, ...]


def explain(profile: str, source: str, target: str, protocol: str) -> list[Verdict]:
    """Judge a connection, to a Service one for each endpoint. `target` may end in `:PORT`. Raises ClusterError."""
    objects = asyncio.run(_objects(profile))
    judge, (source_end, *_) = objects.judge(), [end for end, _ in _ends(objects, source, None, protocol)]
    where, port = _with_port(target)
    return [
        judge.judge(source_end, end, protocol, number)
        for end, number in _ends(objects, where, port, protocol)
        if end.address.version == source_end.address.version
    ]


def matrix(profile: str, of_namespace: str, protocol: str, port: int | None) -> Matrix:
    """All pods, or those of one namespace, each with each."""
    objects = asyncio.run(_objects(profile))
    judge = objects.judge()
    ends = [
        End(str(pod), pod.addresses[0], pod)
        for pod in objects.running()
        if of_namespace in ("", pod.namespace)
    ]
    cells = []
    for one in ends:
        for other in ends:
            if one is not other:
                found = judge.judge(one, other, protocol, port)
                by = tuple(half.by for half in found.halves if half.by)
                cells.append(Cell(one.name, other.name, found.allowed, by))
    return Matrix(protocol, port, tuple(end.name for end in ends), tuple(cells))


def standing(profile: str, node: str) -> list[NodeTable]:
    """The tables in the nodes' kernels, of all nodes if `node` is empty. Nodes without policies have none."""
    return [
        NodeTable(where, family, tuple(_sections(contents, number, counted=True)))
        for where, family, number, contents in _read(profile, node)
        if contents is not None
    ]


def compare(profile: str, node: str) -> list[NodeDifferences]:
    """Where kernels differ from what policies ask for. What is just being written is waited for."""
    return asyncio.run(_compare(profile, node))


async def _compare(profile: str, node: str) -> list[NodeDifferences]:
    found: list[NodeDifferences] = []
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(_PAUSE_SECONDS)
        objects = await _objects(profile)
        found = []
        for where, family, number, contents in _read(profile, node):
            wanted = _wanted(objects, where, number)
            have = _listing(contents, number)
            if changed := differences(_listing(wanted, number), have):
                found.append(NodeDifferences(where, family, changed))
        if not found:
            break
    return found


def _wanted(objects: Objects, node: str, family: int) -> Contents | None:
    selection = Selection(node)
    for item in objects.namespaces:
        selection.set_namespace(name(item), labels(item))
    for item in objects.pods:
        selection.set_pod((namespace(item), name(item)), pod_of(item))
    for item in objects.policies:
        selection.set_policy((namespace(item), name(item)), policy_of(item))
    replay = Replay()
    replay.apply(Table(family, None).full(selection))
    return replay.contents


def _read(profile: str, node: str) -> Iterator[tuple[str, str, int, Contents | None]]:
    facts = Profile(profile).facts()
    names = [machine.name for machine in facts.machines if machine.role == "node"]
    if node and node not in names:
        raise ClusterError(f"{node} is not a node of cluster {profile}", f"write one of: {', '.join(names)}")
    for machine in facts.machines:
        if machine.name in ([node] if node else names):
            with open_namespace(machine.namespace) as ns:
                for driver in node_tables(ns):
                    contents = driver.read(all_elements=True)
                    yield machine.name, "IPv4" if driver.family == 2 else "IPv6", driver.family, contents


def _listing(contents: Contents | None, family: int) -> Listing:
    return listing(_sections(contents, family, counted=False)) if contents is not None else {}


def _sections(contents: Contents, family: int, *, counted: bool) -> Iterator[Section]:
    """Chains, maps and sets as text; without `counted` what counters have counted is left out."""
    for chain, rules in contents.rules.items():
        shown = rules if counted else map(_uncounted, rules)
        lines = tuple(text.rule_text(rule, contents, family) for rule in shown)
        yield Section(f"chain {chain}", lines, text.chain_note(contents.chains[chain]))
    for key, spec in contents.sets.items():
        kind = "map" if spec.is_map else "set"
        elements = tuple(text.element_texts(spec, contents.elements[key]))
        yield Section(f"{kind} {key}", elements, text.set_note(spec), ordered=False)


def _uncounted(rule: Rule) -> Rule:
    items = decode(rule.expressions)
    return rule._replace(
        expressions=encode(Counter() if isinstance(item, Counter) else item for item in items)
    )


def _with_port(target: str) -> tuple[str, str | None]:
    """`TARGET:PORT`; an IPv6 address with a port is written in brackets."""
    if target.startswith("["):
        address, _, port = target[1:].partition("]")
        return address, port.lstrip(":") or None
    if target.count(":") > 1 and not target.startswith("node:"):
        return target, None
    head, _, tail = target.rpartition(":")
    if not head or head == "node":
        return target, None
    return head, tail


def _ends(objects: Objects, word: str, port: str | None, protocol: str) -> list[tuple[End, int | None]]:
    """What a name on the command line stands for, with the port that arrives there. Raises ClusterError."""
    pods = {str(pod): pod for pod in objects.running()}
    by_address = {address: pod for pod in pods.values() for address in pod.addresses}
    node_of = {address: name(node) for node in objects.nodes for address in _node_addresses(node)}
    if word.startswith("node:"):
        own = [address for address, node in node_of.items() if node == word[5:]]
        if not own:
            raise ClusterError(f"there is no node {word[5:]}")
        return [(End(word, own[0], None, word[5:]), _number(port, None))]
    try:
        address = ip_address(word)
    except ValueError:
        pass
    else:
        pod = by_address.get(address)
        end = End(f"{pod} ({address})" if pod else word, address, pod, node_of.get(address, ""))
        return [(end, _number(port, pod))]
    full = word if "/" in word else f"default/{word}"
    if full in pods:
        pod = pods[full]
        return [(End(full, pod.addresses[0], pod), _number(port, pod))]
    service = next((item for item in objects.services if f"{namespace(item)}/{name(item)}" == full), None)
    if service is not None:
        return list(_endpoints(objects, service, port, protocol, by_address, node_of))
    raise ClusterError(
        f"there is no running pod and no Service {full}", "write NAMESPACE/NAME, node:NAME or an IP address"
    )


def _endpoints(
    objects: Objects,
    service: Object,
    port: str | None,
    protocol: str,
    by_address: dict[Address, Pod],
    node_of: dict[Address, str],
) -> Iterator[tuple[End, int | None]]:
    ports = [item for item in service["spec"].get("ports") or () if item.get("protocol", "TCP") == protocol]
    if port is not None:
        ports = [item for item in ports if port in (str(item["port"]), item.get("name"))]
    if not ports:
        raise ClusterError(f"Service {namespace(service)}/{name(service)} has no such {protocol} port")
    found = False
    for item in objects.slices:
        of_service = labels(item).get("kubernetes.io/service-name"), namespace(item)
        if of_service != (name(service), namespace(service)):
            continue
        wanted = ports[0].get("name") or ""
        numbers = [each["port"] for each in item.get("ports") or () if (each.get("name") or "") == wanted]
        for endpoint in item.get("endpoints") or ():
            for address in map(ip_address, endpoint.get("addresses") or ()):
                pod, found = by_address.get(address), True
                end = End(
                    f"{pod} ({address})" if pod else str(address), address, pod, node_of.get(address, "")
                )
                yield end, numbers[0] if numbers else None
    if not found:
        raise ClusterError(f"Service {namespace(service)}/{name(service)} has no endpoints")


def _number(port: str | None, pod: Pod | None) -> int | None:
    if port is None or port.isdigit():
        return int(port) if port else None
    for item in pod.ports if pod is not None else ():
        if item.name == port:
            return item.number
    raise ClusterError(f"there is no port {port}", "write its number, or the name a container gives it")


def _node_addresses(node: Object) -> list[Address]:
    return [ip_address(item["address"]) for item in dig(node, "status", "addresses", default=())
            if item.get("type") == "InternalIP"]  # fmt: skip


async def _objects(profile: str) -> Objects:
    cluster = Profile(profile)
    client = admin_client(cluster, cluster.facts().server)
    kinds = (
        catalog.POD, catalog.NAMESPACE, catalog.NETWORK_POLICY, catalog.NODE, catalog.SERVICE,
        catalog.ENDPOINT_SLICE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_API_SECONDS):
            return Objects(*[(await client.list(kind)).items for kind in kinds])
    except (TimeoutError, ConnectionFailed) as error:
        raise ClusterError(
            f"the API server of cluster {profile} does not answer: {error}",
            "netkit status says what is wrong",
        ) from error
    finally:
        await client.close()
