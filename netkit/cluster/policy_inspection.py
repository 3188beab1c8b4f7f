"""What `netkit policy` says: gathers the API's objects and the nodes' tables; `netkit.policy` judges.

Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.client.transport import ConnectionFailed
from controlplane.meta.objects import labels, name, namespace
from controlplane.resources import catalog
from controlplane.resources.kind import Kind
from netkit.cluster.access import admin_client
from netkit.cluster.errors import ClusterError
from netkit.cluster.policy_ends import Objects, destinations, sources, words
from netkit.cluster.profile import Profile
from netkit.kernel.netns import open_namespace
from netkit.kernel.nft import text
from netkit.kernel.nft.expressions import Counter, decode, encode
from netkit.kernel.nft.objects import Contents, Rule
from netkit.kernel.nft.replay import Replay
from netkit.policy.backend import node_tables
from netkit.policy.model import pod_of, policy_of
from netkit.policy.selection import Selection
from netkit.policy.table import Table
from netkit.policy.verdict import End, Verdict
from netkit.proxy.listing import Difference, Listing, Section, differences, listing

_KINDS = (
    catalog.POD, catalog.NAMESPACE, catalog.NETWORK_POLICY, catalog.NODE, catalog.SERVICE,
    catalog.ENDPOINT_SLICE,
)  # fmt: skip
_API_SECONDS, _COMPLETION_SECONDS = 10.0, 2.0
_LOOKS, _PAUSE_SECONDS = 4, 0.3


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
    judge = objects.judge()
    callers, called = sources(objects, source), destinations(objects, target, protocol)
    for caller in callers:
        found = [
            judge.judge(caller, end, protocol, port)
            for end, port in called
            if end.address.version == caller.address.version
        ]
        if found:
            return found
    raise ClusterError(f"{source} and {target} have no addresses of the same IP version")


def matrix(profile: str, of_namespace: str, protocol: str, port: int | None) -> Matrix:
    """All pods, or those of one namespace, each with each. Raises ClusterError."""
    objects = asyncio.run(_objects(profile))
    if of_namespace and of_namespace not in map(name, objects.namespaces):
        raise ClusterError(f"there is no namespace {of_namespace}")
    judge = objects.judge()
    ends = [
        End(str(pod), pod.addresses[0], pod)
        for pod in objects.running.values()
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


def names(profile: str, *, services: bool) -> list[str]:
    """All that `explain` takes, for tab completion. Raises ClusterError."""
    kinds = [catalog.POD, catalog.NODE, *([catalog.SERVICE] if services else [])]
    return words(asyncio.run(_objects(profile, kinds, _COMPLETION_SECONDS)), services=services)


def namespaces(profile: str) -> list[str]:
    """For tab completion. Raises ClusterError."""
    found = asyncio.run(_objects(profile, [catalog.NAMESPACE], _COMPLETION_SECONDS))
    return sorted(map(name, found.namespaces))


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
    names = facts.nodes
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


async def _objects(profile: str, kinds: Sequence[Kind] = _KINDS, seconds: float = _API_SECONDS) -> Objects:
    """What the API has of these kinds, nothing of the others."""
    cluster = Profile(profile)
    client = admin_client(cluster, cluster.facts().server)
    try:
        async with asyncio.timeout(seconds):
            return Objects(*[(await client.list(kind)).items if kind in kinds else [] for kind in _KINDS])
    except (TimeoutError, ConnectionFailed) as error:
        raise ClusterError(
            f"the API server of cluster {profile} does not answer{f': {error}' if str(error) else ''}",
            "netkit status says what is wrong",
        ) from error
    finally:
        await client.close()
