"""Affinity between pods: required terms as a filter, preferred ones as a score. Pure.

Rules are upstream's InterPodAffinity (v1.32). Terms that select namespaces by label match none here, as the
scheduler does not read namespaces' labels; an empty namespaceSelector means all namespaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import dig
from controlplane.scheduler.snapshot import NodeInfo, PodInfo

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Domain = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Term:
    """One affinity term: pods that match, seen per value of `key`. `namespaces` None = all of them."""

    key: str
    selector: LabelSelector
    namespaces: frozenset[str] | None
    weight: int = 1

    def matches(self, pod: PodInfo) -> bool:
        if self.namespaces is not None and pod.namespace not in self.namespaces:
            return False
        return self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True)
class Verdict:
    reason: str
    resolvable: bool


_AFFINITY = Verdict("node(s) didn't match pod affinity rules", resolvable=False)
_ANTI_AFFINITY = Verdict("node(s) didn't match pod anti-affinity rules", resolvable=True)
_EXISTING = Verdict("node(s) didn't satisfy existing pods anti-affinity rules", resolvable=True)


def _term(pod: PodInfo, term: Mapping[str, Any], weight: int = 1) -> Term:
    namespaces: frozenset[str] | None = frozenset(term.get("namespaces") or (pod.namespace,))
    if term.get("namespaceSelector") == {}:
        namespaces = None
    selector = LabelSelector.from_object(term.get("labelSelector"))
    return Term(term["topologyKey"], selector, namespaces, weight)


def _required(pod: PodInfo, sort: str) -> list[Term]:
    return [_term(pod, term) for term in dig(pod.spec, "affinity", sort, _REQUIRED, default=())]


def _preferred(pod: PodInfo, sort: str) -> list[Term]:
    listed = dig(pod.spec, "affinity", sort, _PREFERRED, default=())
    return [_term(pod, entry["podAffinityTerm"], int(entry["weight"])) for entry in listed]


def _has(pod: PodInfo, sort: str) -> bool:
    return dig(pod.spec, "affinity", sort) is not None


def _domain(term: Term, node: NodeInfo) -> Domain | None:
    value = node.labels.get(term.key)
    return None if value is None else (term.key, value)


def _domains_with(terms: Sequence[Term], nodes: Sequence[NodeInfo]) -> set[Domain]:
    """Domains that hold a pod which matches one of the terms."""
    return {
        domain
        for node in nodes
        for term in terms
        if (domain := _domain(term, node)) and any(map(term.matches, node.pods.values()))
    }


def _forbidden(pod: PodInfo, nodes: Sequence[NodeInfo]) -> set[Domain]:
    """Domains where a pod that runs does not want this one."""
    return {
        domain
        for node in nodes
        for other in node.pods.values()
        if _has(other, "podAntiAffinity")
        for term in _required(other, "podAntiAffinity")
        if (domain := _domain(term, node)) and term.matches(pod)
    }


def _near(wanted: Sequence[Term], nodes: Sequence[NodeInfo]) -> set[Domain]:
    """Domains that hold a pod which matches all wanted terms."""
    return {
        domain
        for node in nodes
        for other in (node.pods.values() if wanted else ())
        if all(term.matches(other) for term in wanted)
        for term in wanted
        if (domain := _domain(term, node))
    }


def pod_affinity_check(
    pod: PodInfo, nodes: Sequence[NodeInfo]
) -> Callable[[NodeInfo], Verdict | None] | None:
    """The filter for one pod, or None when neither it nor any pod that runs has such rules."""
    wanted, unwanted = _required(pod, "podAffinity"), _required(pod, "podAntiAffinity")
    forbidden = _forbidden(pod, nodes)
    if not (wanted or unwanted or forbidden):
        return None
    near = _near(wanted, nodes)
    far = _domains_with(unwanted, nodes)
    # The first pod of a group that wants to be near itself may go anywhere with the labels.
    first = not near and all(term.matches(pod) for term in wanted)

    def check(node: NodeInfo) -> Verdict | None:
        for term in wanted:
            domain = _domain(term, node)
            if domain is None or not (first or domain in near):
                return _AFFINITY
        if any(_domain(term, node) in far for term in unwanted):
            return _ANTI_AFFINITY
        if any(node.labels.get(key) == value for key, value in forbidden):
            return _EXISTING
        return None

    return check


def _pulls(pod: PodInfo, other: PodInfo) -> Iterator[tuple[Term, int]]:
    """How the running pod `other` asks for `pod` to be near (1) or far (-1)."""
    if dig(other.spec, "affinity") is None:
        return
    asked = [(term, 1) for term in _preferred(other, "podAffinity") + _required(other, "podAffinity")]
    asked += [(term, -1) for term in _preferred(other, "podAntiAffinity")]
    for term, sign in asked:
        if term.matches(pod):
            yield term, sign


def pod_affinity_scores(pod: PodInfo, feasible: Sequence[NodeInfo], nodes: Sequence[NodeInfo]) -> list[int]:
    """0 to 100 for each feasible node by the preferred terms of the pod and of those that run."""
    own = [(term, 1) for term in _preferred(pod, "podAffinity")]
    own += [(term, -1) for term in _preferred(pod, "podAntiAffinity")]
    weights: Counter[Domain] = Counter()
    for node in nodes:
        for other in node.pods.values():
            for term, sign in (*((t, s) for t, s in own if t.matches(other)), *_pulls(pod, other)):
                domain = _domain(term, node)
                if domain is not None:
                    weights[domain] += sign * term.weight
    raw = [
        sum(weight for (key, value), weight in weights.items() if node.labels.get(key) == value)
        for node in feasible
    ]
    lowest, highest = min(raw, default=0), max(raw, default=0)
    if highest == lowest:
        return [0] * len(raw)
    return [100 * (value - lowest) // (highest - lowest) for value in raw]
