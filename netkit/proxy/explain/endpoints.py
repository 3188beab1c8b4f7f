"""The endpoints of one service port and what keeps each from being used: every entry of every slice, with its reason.

`choice` decides which are used; here the others are asked why they are not. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name
from netkit.proxy.addresses import Family, addresses_of
from netkit.proxy.choice import NodeView, Topology, topology_of
from netkit.proxy.endpoints import SERVICE_NAME_LABEL, Endpoint, slice_endpoints
from netkit.proxy.services import HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL, ServicePortName


class Standing(StrEnum):
    """What is up with one entry of a slice."""

    ELIGIBLE = "eligible"
    NOT_READY = "not ready"
    TERMINATED = "terminating, no longer serving"
    DRAINING = "terminating"
    ELSEWHERE = "not on this node"
    OTHER_NODE = "hinted for another node"
    OTHER_ZONE = "hinted for another zone"
    DUPLICATE = "duplicate"
    NO_SUCH_PORT = "slice has no such port"
    OTHER_FAMILY = "another address family"
    OTHER_PROXY = "slice of another proxy"
    NO_ADDRESS = "no usable address"


@dataclass(frozen=True, slots=True)
class EndpointFate:
    """One entry of a slice. `target` is `address:port`, or the address alone where no port matches.

    `because` says in words what `standing` means here; `share` is the part of new connections it gets ("1/3",
    empty when unused). `pod` is what the slice refers to, `ready`, `serving` and `terminating` as the slice says.
    """

    target: str
    standing: Standing
    because: str
    share: str = ""
    node: str = ""
    pod: str = ""
    slice: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        return self.standing is Standing.ELIGIBLE


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the endpoints of a port are judged by.

    `merged` are the port's endpoints after merging all slices, `used` those a connection may get, `local` says
    that the list asked for is that of the node alone. `family_is_own`: entries of the other family are of use to
    the Service's other half and need no mention.
    """

    port: ServicePortName
    family: Family
    node: NodeView
    merged: tuple[Endpoint, ...]
    used: tuple[Endpoint, ...]
    local: bool = False
    dual_stack: bool = False
    shares: str = ""

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in self.merged if endpoint.ready)

    @property
    def topology(self) -> Topology:
        return topology_of(self.ready, self.node)


def slices_of(service: Object, slices: Sequence[Object]) -> list[Object]:
    """The slices that name this Service, whoever's they are, ordered as proxies merge them."""
    metadata = service["metadata"]
    return sorted(
        (
            item
            for item in slices
            if labels(item).get(SERVICE_NAME_LABEL) == metadata["name"]
            and item["metadata"].get("namespace") == metadata.get("namespace")
        ),
        key=name,
    )


def fates(candidates: Candidates, slices: Sequence[Object]) -> tuple[EndpointFate, ...]:
    """Every entry of `slices` (those of the Service) with its fate: the used ones first, then by address."""
    found: list[EndpointFate] = []
    seen: dict[str, str] = {}
    for slice_ in slices:
        if candidates.dual_stack and slice_.get("addressType") != candidates.family:
            continue
        for item in slice_.get("endpoints") or ():
            found += _of_entry(candidates, slice_, item, seen)
    return tuple(sorted(found, key=lambda fate: (not fate.eligible, _sortable(fate.target), fate.slice)))


def _of_entry(
    candidates: Candidates, slice_: Object, item: Object, seen: dict[str, str]
) -> list[EndpointFate]:
    """The fates of one entry: one, or one for each of several slice ports of the wanted name."""
    read = slice_endpoints({**slice_, "endpoints": [item]}, candidates.family)
    key = (candidates.port.port, candidates.port.protocol)
    endpoints = read.of(key) if read is not None else ()
    if not endpoints:
        standing, because = _unread(candidates, slice_, item)
        return [_fate(slice_, item, _text_of(item), standing, because)]
    result = []
    for endpoint in endpoints:
        kept = next(known for known in candidates.merged if known.target == endpoint.target)
        if endpoint.target in seen or kept != endpoint:
            why = f"{seen[endpoint.target]} has it too" if endpoint.target in seen else "another slice has it"
            because = f"{why}; one address and port counts once, the entry that is not terminating"
            result.append(_fate(slice_, item, endpoint.target, Standing.DUPLICATE, because))
            continue
        seen[endpoint.target] = name(slice_)
        standing, because = _judged(candidates, endpoint)
        share = candidates.shares if standing is Standing.ELIGIBLE else ""
        result.append(_fate(slice_, item, endpoint.target, standing, because, share))
    return result


def _unread(candidates: Candidates, slice_: Object, item: Object) -> tuple[Standing, str]:
    """Why a proxy of this family takes nothing from an entry."""
    found = labels(slice_)
    for label in (SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL):
        if label in found:
            return Standing.OTHER_PROXY, f"slice {name(slice_)} carries the label {label}"
    kind = slice_.get("addressType") or "no address type"
    if kind != candidates.family:
        return Standing.OTHER_FAMILY, f"slice {name(slice_)} is {kind}; this address is {candidates.family}"
    if not addresses_of(candidates.family, (item.get("addresses") or [""])[:1]):
        return Standing.NO_ADDRESS, f"its first address is not {candidates.family}; only the first counts"
    wanted = candidates.port
    ports = [
        f"{port.get('name') or '(no name)'}/{port.get('protocol') or 'TCP'}{'' if port.get('port') else ' (no number)'}"
        for port in slice_.get("ports") or ()
    ]
    has = f"it has {', '.join(ports)}" if ports else "it has none"
    named = f"named {wanted.port}" if wanted.port else "without name"
    return Standing.NO_SUCH_PORT, f"slice {name(slice_)} has no {wanted.protocol} port {named}; {has}"


def _judged(candidates: Candidates, endpoint: Endpoint) -> tuple[Standing, str]:
    """Why an endpoint that was read is used, or is not."""
    node = candidates.node
    here = bool(endpoint.node) and endpoint.node == node.name
    if endpoint in candidates.used:
        return Standing.ELIGIBLE, _why_used(endpoint)
    if not endpoint.usable:
        if endpoint.terminating:
            return Standing.TERMINATED, "it shuts down and no longer answers"
        return Standing.NOT_READY, "its ready condition is false"
    if candidates.local and not here:
        where = (
            f"it is on {endpoint.node}"
            if endpoint.node
            else "the slice names no node, so it is local nowhere"
        )
        return Standing.ELSEWHERE, f"{where}; policy Local uses {node.name}'s own only"
    if endpoint.draining:
        others = [other for other in candidates.ready if not candidates.local or other.node == node.name]
        scope = f" on {node.name}" if candidates.local else ""
        if not others:
            return Standing.DRAINING, "it shuts down, and the mode uses ready endpoints only"
        ready = "1 endpoint is" if len(others) == 1 else f"{len(others)} endpoints are"
        return Standing.DRAINING, f"it shuts down, and {ready} ready{scope}"
    if candidates.topology is Topology.NODE:
        return Standing.OTHER_NODE, f"its hints are for {_listed(endpoint.node_hints)}, this is {node.name}"
    if candidates.topology is Topology.ZONE:
        hinted = _listed(endpoint.zone_hints)
        return Standing.OTHER_ZONE, f"its hints are for {hinted}, {node.name} is in {node.zone}"
    return Standing.ELSEWHERE, "the list of this policy does not have it"


def _why_used(endpoint: Endpoint) -> str:
    return "ready" if endpoint.ready else "it shuts down but still answers, and nothing is ready"


@dataclass(frozen=True, slots=True)
class HintsAnswer:
    """Whether hints narrow the list, and why (not)."""

    applied: Topology
    because: str


def hints_answer(merged: Sequence[Endpoint], node: NodeView) -> HintsAnswer:
    """How the topology hints of the ready endpoints are taken on `node`; `choice.topology_of` decides."""
    ready = [endpoint for endpoint in merged if endpoint.ready]
    topology = topology_of(ready, node)
    if topology is Topology.NODE:
        count = sum(node.name in endpoint.node_hints for endpoint in ready)
        return HintsAnswer(
            topology, f"every ready endpoint has node hints, and {count} of them name {node.name}"
        )
    if topology is Topology.ZONE:
        count = sum(node.zone in endpoint.zone_hints for endpoint in ready)
        return HintsAnswer(
            topology,
            f"every ready endpoint has zone hints, and {count} of them name {node.name}'s zone {node.zone}",
        )
    return HintsAnswer(topology, _why_no_hints(ready, node))


def _why_no_hints(ready: Sequence[Endpoint], node: NodeView) -> str:
    if not ready:
        return "no endpoint is ready, so there is nothing to choose from by hints"
    if not any(endpoint.zone_hints or endpoint.node_hints for endpoint in ready):
        return "no endpoint has any (spec.trafficDistribution asks for them)"
    lacking = [endpoint for endpoint in ready if not endpoint.zone_hints]
    if any(endpoint.zone_hints for endpoint in ready):
        if lacking:
            return f"endpoint {lacking[0].target} has none; all ready endpoints need them"
        if not node.zone:
            return f"{node.name} has no zone label (topology.kubernetes.io/zone)"
        return f"none of them names {node.name}'s zone {node.zone}"
    lacking = [endpoint for endpoint in ready if not endpoint.node_hints]
    if lacking:
        return f"endpoint {lacking[0].target} has no node hints; all ready endpoints need them"
    return f"none of them names node {node.name}"


def _fate(
    slice_: Object, item: Object, target: str, standing: Standing, because: str, share: str = ""
) -> EndpointFate:
    conditions: dict[str, Any] = item.get("conditions") or {}
    reference = item.get("targetRef") or {}
    pod = reference.get("name", "") if reference.get("kind") == "Pod" else ""
    return EndpointFate(
        target=target,
        standing=standing,
        because=because,
        share=share,
        node=item.get("nodeName") or "",
        pod=pod,
        slice=name(slice_),
        ready=conditions.get("ready") is not False,
        serving=conditions.get("serving") is not False,
        terminating=conditions.get("terminating") is True,
        zone_hints=_hints(item, "forZones"),
        node_hints=_hints(item, "forNodes"),
    )


def _hints(item: Object, kind: str) -> tuple[str, ...]:
    return tuple(hint["name"] for hint in dig(item, "hints", kind, default=()) or ())


def _text_of(item: Object) -> str:
    return str((item.get("addresses") or ["(no address)"])[0])


def _sortable(target: str) -> tuple[int, int, str]:
    """Addresses by number, so that .9 comes before .10; text that is none behind them."""
    host = target.partition("]")[0][1:] if target.startswith("[") else target.partition(":")[0]
    for text in (host, target):
        for family in Family:
            if found := addresses_of(family, [text]):
                return family.version, int(found[0]), target
    return 9, 0, target


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
