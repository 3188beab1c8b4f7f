"""What `netkit proxy explain`, `rules` and `diff` say of the proxies of a cluster, or of one that runs alone.

Gathers the API's objects and the nodes' rules, and leaves all judgement to `netkit.proxy`. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from controlplane.errors import NotFound
from controlplane.meta.objects import dig
from controlplane.resources import catalog
from netkit.cluster.errors import ClusterError
from netkit.cluster.proxy_access import Alone, Inspected, Inspection, Objects, inspection
from netkit.kernel import rtnl_read
from netkit.kernel.conntrack import Conntrack, Entry
from netkit.proxy.addresses import Address, Family, networks_of, parse_address
from netkit.proxy.choice import NodeView
from netkit.proxy.conntrack import UDP
from netkit.proxy.explain.errors import NotExplainable
from netkit.proxy.explain.explanation import Explanation, Matter, explain
from netkit.proxy.explain.standpoint import Origin, Source, Standpoint
from netkit.proxy.explain.target import Target, To, called, find, node_addresses
from netkit.proxy.listing import Difference, Listing, Section, differences
from netkit.proxy.services import Protocol

_LOOKS = 4
_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: SERVICE[:PORT] or ADDRESS:PORT, and who calls.

    `origin` is `pod`, `pod/NAME`, `pod/NAMESPACE/NAME`, `node` or `outside`; `source` overrides the caller's address;
    `node` empty is the pod's, else the first.
    """

    service: str
    namespace: str = "default"
    origin: str = "pod"
    to: To | None = None
    node: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One explanation for each port and address family asked about. `delivered` when all are."""

    delivered: bool
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True, slots=True)
class NodeRules:
    """All rules of ours in one node's kernel, or those that serve one Service, of one family.

    `missing` are rules of the Service that should be there and are not.
    """

    node: str
    mode: str
    family: Family
    sections: tuple[Section, ...]
    missing: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDifferences:
    """Where a node's kernel differs from what its proxy wants; nothing when `sections` is empty."""

    node: str
    mode: str
    family: Family
    sections: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    same: bool
    nodes: tuple[NodeDifferences, ...]


def explain_connection(profile: str, alone: Alone | None, question: Question) -> Answer:
    """Explain. Raises NotExplainable, ClusterError, KernelError, StatusError."""
    return asyncio.run(_explain(profile, alone, question))


def standing_rules(
    profile: str, alone: Alone | None, node: str, service: str, namespace: str
) -> list[NodeRules]:
    """The rules in the kernels, of all nodes if `node` is empty; of what serves `service` if it names one."""
    return asyncio.run(_rules(profile, alone, node, service, namespace))


def compare(profile: str, alone: Alone | None, node: str) -> Comparison:
    """Wish and kernel, of all nodes if `node` is empty."""
    return asyncio.run(_compare(profile, alone, node))


async def _explain(profile: str, alone: Alone | None, question: Question) -> Answer:
    async with inspection(profile, alone) as found:
        objects = await found.objects()
        targets = find(question.service, question.namespace, objects.services, objects.nodes)
        origin, pod = await _origin(found, question)
        inspected = found.inspected(_node_of(found, objects, question, targets, pod), objects)
        explanations: list[Explanation] = []
        for backend in inspected.backends():
            family = backend.family
            wanted = [target for target in targets if _concerns(target, family, question)]
            if not wanted:
                continue
            standpoint = _standpoint(inspected, family)
            source = _source(found, inspected, question, origin, pod, standpoint)
            state, standing = objects.state(family), await backend.standing()
            entries = _udp_entries(inspected, family) if any(map(_is_udp, wanted)) else ()
            for target in wanted:
                address = called(target, question.to, origin, family)
                sections = await backend.serving(state, target.name)
                matter = Matter(
                    target, address, source, standpoint, state, objects.slices, sections, standing,
                    entries if _is_udp(target) else (),
                )  # fmt: skip
                explanations.append(explain(matter))
        if not explanations:
            raise NotExplainable(
                f"the proxy of {inspected.node} works for {', '.join(inspected.families)} only"
            )
        return Answer(all(item.delivered for item in explanations), tuple(explanations))


def _is_udp(target: Target) -> bool:
    return target.name.protocol is Protocol.UDP


def _udp_entries(inspected: Inspected, family: Family) -> Sequence[Entry]:
    """The UDP flows that the node's connection tracking remembers. Blocks shortly."""
    return Conntrack(inspected.site.ns).dump(family.version, UDP)


async def _origin(found: Inspection, question: Question) -> tuple[Origin, Source | None]:
    """Where the caller is, and which pod it is if the question names one."""
    word, _, rest = question.origin.partition("/")
    if word not in list(Origin) or (rest and word != Origin.POD):
        raise NotExplainable(
            f"--from {question.origin} is not known",
            "write pod, pod/NAME, pod/NAMESPACE/NAME, node or outside",
        )
    if not rest:
        return Origin(word), None
    pod_namespace, _, pod_name = rest.rpartition("/")
    pod_namespace = pod_namespace or question.namespace
    try:
        pod = await found.client.get(catalog.POD, pod_name, pod_namespace)
    except NotFound:
        raise NotExplainable(f"there is no pod {pod_namespace}/{pod_name}") from None
    address = dig(pod, "status", "podIP", default="")
    if not address:
        raise NotExplainable(f"pod {pod_namespace}/{pod_name} has no address yet")
    node = dig(pod, "spec", "nodeName", default="")
    return Origin.POD, Source(Origin.POD, parse_address(address), f"{pod_namespace}/{pod_name}", node)


def _node_of(
    found: Inspection, objects: Objects, question: Question, targets: Sequence[Target], pod: Source | None
) -> str:
    """The node whose proxy is asked: the one named, the pod's, the one whose address is called, else the first."""
    if question.node:
        return question.node
    if pod is not None and pod.node:
        return pod.node
    names = found.node_names(objects)
    if not names:
        raise ClusterError("the cluster has no nodes")
    address = targets[0].called.address if targets and targets[0].called else None
    for node in objects.nodes:
        if address in node_addresses(node) and node["metadata"]["name"] in names:
            return str(node["metadata"]["name"])
    return names[0]


def _concerns(target: Target, family: Family, question: Question) -> bool:
    """Whether a family's proxy is asked about the target: that of the address, of the source, or of the Service."""
    if target.called is not None and target.called.address is not None:
        return target.called.address.version == family.version
    if question.source:
        return _address(question.source).version == family.version
    families = target.service.get("spec", {}).get("ipFamilies") or [Family.IPV4]
    return family in families


def _standpoint(inspected: Inspected, family: Family) -> Standpoint:
    facts, settings = inspected.facts, inspected.settings
    addresses = settings.node_addresses([str(address) for address in facts.addresses])
    local = tuple(item.address.ip for item in rtnl_read.addresses(inspected.site.ns))
    view = NodeView(inspected.node, facts.zone, addresses)
    return Standpoint(view, family, settings, local, facts.pod_cidrs, facts.service_cidrs)


def _source(
    found: Inspection,
    inspected: Inspected,
    question: Question,
    origin: Origin,
    pod: Source | None,
    standpoint: Standpoint,
) -> Source:
    """Who calls, with an address of the family."""
    node, family = standpoint.node.name, standpoint.family
    if question.source:
        name = pod.name if pod is not None else node if origin is Origin.NODE else ""
        return Source(origin, _address(question.source), name, pod.node if pod is not None else node)
    if pod is not None:
        return _placed(pod, inspected)
    match origin:
        case Origin.POD:
            return _placed(Source(origin, _pod_address(standpoint), node=node), inspected)
        case Origin.NODE:
            if standpoint.primary is None:
                raise NotExplainable(f"node {node} has no {family} address")
            return Source(origin, standpoint.primary, node)
        case Origin.OUTSIDE:
            name, address = found.outside(family)
            return Source(origin, address, name)


def _placed(pod: Source, inspected: Inspected) -> Source:
    """The pod with the interface that leads to it, by which its packets come in too, as far as the routes tell."""
    ns = inspected.site.ns
    routes = [route for route in rtnl_read.routes(ns) if pod.address in route.target and route.index]
    if not routes:
        return pod
    best = max(routes, key=lambda route: route.target.prefixlen)
    link = next((link for link in rtnl_read.links(ns).values() if link.index == best.index), None)
    return replace(pod, interface=link.name, bridged=link.kind == "bridge") if link is not None else pod


def _pod_address(standpoint: Standpoint) -> Address:
    """An address that a pod of the node could have: the last of its range, which is given out last."""
    ranges = networks_of(standpoint.family, standpoint.pod_ranges)
    ranges = ranges or networks_of(standpoint.family, standpoint.settings.cluster_cidr.split(","))
    if not ranges:
        raise NotExplainable(
            f"node {standpoint.node.name} has no {standpoint.family} pod range", "say who calls with --source"
        )
    return ranges[0][-2]


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError:
        raise NotExplainable(f"--source {text} is not an IP address") from None


async def _rules(
    profile: str, alone: Alone | None, node: str, service: str, namespace: str
) -> list[NodeRules]:
    async with inspection(profile, alone) as found:
        objects = await found.objects()
        targets = find(service, namespace, objects.services, objects.nodes) if service else []
        result = []
        for inspected in _chosen(found, objects, node):
            for backend in inspected.backends():
                standing = await backend.standing()
                sections, missing = tuple(standing.values()), tuple[Section, ...]()
                if targets:
                    state = objects.state(backend.family)
                    wanted = [await backend.serving(state, target.name) for target in targets]
                    sections, missing = _of_service(wanted, standing)
                mode = _standpoint(inspected, backend.family).mode_text
                result.append(NodeRules(inspected.node, mode, backend.family, sections, missing))
        return result


def _of_service(
    wanted: Sequence[Sequence[Section]], standing: Listing
) -> tuple[tuple[Section, ...], tuple[Section, ...]]:
    """What serves the ports of a Service: what of it is in the kernel, and what is not. Sections come once."""
    merged: dict[str, dict[str, None]] = {}
    for section in (section for sections in wanted for section in sections):
        merged.setdefault(section.name, {}).update(dict.fromkeys(section.entries))
    there, missing = [], []
    for name, entries in merged.items():
        section = standing.get(name, Section(name, ()))
        found = set(section.entries)
        if here := tuple(entry for entry in entries if entry in found):
            there.append(replace(section, entries=here))
        if gone := tuple(entry for entry in entries if entry not in found):
            missing.append(replace(section, entries=gone))
    return tuple(there), tuple(missing)


def _chosen(found: Inspection, objects: Objects, node: str) -> list[Inspected]:
    names = [node] if node else found.node_names(objects)
    if not names:
        raise ClusterError("the cluster has no nodes")
    return [found.inspected(name, objects) for name in names]


async def _compare(profile: str, alone: Alone | None, node: str) -> Comparison:
    """What differs only for the moment in which a proxy writes a change is no difference: only what stays so is."""
    async with inspection(profile, alone) as found:
        stable: dict[tuple[str, Family, str], Difference] = {}
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_PAUSE_SECONDS)
            asked, seen = await _look(found, node)
            stable = {key: seen[key] for key in seen if not look or key in stable}
            if not stable:
                break
        nodes = tuple(
            NodeDifferences(
                name, mode, family, tuple(item for key, item in stable.items() if key[:2] == (name, family))
            )
            for name, mode, family in asked
        )
        return Comparison(not stable, nodes)


async def _look(
    found: Inspection, node: str
) -> tuple[list[tuple[str, str, Family]], dict[tuple[str, Family, str], Difference]]:
    """One comparison: who was asked (node, mode, family), and the sections that differ."""
    asked, seen = [], {}
    objects = await found.objects()
    for inspected in _chosen(found, objects, node):
        for backend in inspected.backends():
            family = backend.family
            asked.append((inspected.node, _standpoint(inspected, family).mode_text, family))
            wanted = await backend.wanted(objects.state(family))
            for item in differences(wanted, await backend.standing()):
                seen[inspected.node, family, item.section] = item
    return asked, seen
