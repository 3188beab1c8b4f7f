"""Which nodes a DaemonSet's pods belong on, and what a pod for one node looks like. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Object
from controlplane.meta.node_selection import required_matches
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import clone, dig, labels, name
from controlplane.meta.pod_templates import pod_from, template_of
from controlplane.meta.tolerations import tolerates
from controlplane.resources.apps.daemon_set import TEMPLATE_GENERATION
from controlplane.resources.catalog import DAEMON_SET

HASH_LABEL = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_TOLERATED_ON_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")
"""Daemons stay on nodes in trouble, and may be what ends it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a pod should be made for the node, and whether one that is there may stay."""

    should_run: bool
    may_stay: bool


NOWHERE = Verdict(should_run=False, may_stay=False)


class Placement:
    """The verdicts for one DaemonSet. A node that has not changed since it was asked about is not judged again."""

    def __init__(self, daemon_set: Object) -> None:
        template = template_of(daemon_set)
        spec: Mapping[str, Any] = template.get("spec") or {}
        self.template = template
        self._spec = spec
        self._node_name = spec.get("nodeName") or ""
        self._tolerations = tolerations(spec)
        self._known: dict[str, tuple[Object, Verdict]] = {}

    def of(self, node: Object) -> Verdict:
        known = self._known.get(name(node))
        if known is not None and known[0] is node:
            return known[1]
        verdict = self.judge(node)
        self._known[name(node)] = (node, verdict)
        return verdict

    def judge(self, node: Object) -> Verdict:
        """The verdict for a state of a node that may not be the present one."""
        if self._node_name and self._node_name != name(node):
            return NOWHERE
        if not required_matches(self._spec, name(node), labels(node)):
            return NOWHERE
        unmet = {
            taint.get("effect")
            for taint in dig(node, "spec", "taints", default=())
            if not tolerates(self._tolerations, taint)
        }
        fits = not unmet & {"NoSchedule", "NoExecute"}
        return Verdict(should_run=fits, may_stay=fits or "NoExecute" not in unmet)

    def forget(self, node: str) -> None:
        self._known.pop(node, None)


def tolerations(spec: Mapping[str, Any]) -> list[Object]:
    """The template's tolerations and those every daemon has."""
    result: list[Object] = list(spec.get("tolerations") or ())
    added = [*_TOLERATED, *([_TOLERATED_ON_HOST_NETWORK] if spec.get("hostNetwork") else [])]
    for key, effect in added:
        new = {"key": key, "operator": "Exists", "effect": effect}
        if any(_identity(each) == _identity(new) for each in result):
            # Perhaps for a time only: daemons stay for good.
            result = [new if _identity(each) == _identity(new) else each for each in result]
        else:
            result.append(new)
    return result


def _identity(toleration: Mapping[str, Any]) -> tuple[str, ...]:
    fields = ("key", "effect", "operator", "value")
    return tuple(toleration.get(field) or "" for field in fields)


def pod_for(daemon_set: Object, node: str, hash_: str) -> Object:
    """The pod of the present template for that node; the scheduler is left no other choice."""
    pod = pod_from(template_of(daemon_set), DAEMON_SET.api_version, DAEMON_SET.kind, daemon_set)
    spec = pod["spec"]
    spec["tolerations"] = tolerations(spec)
    affinity = spec["affinity"] = clone(spec.get("affinity") or {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity.setdefault("nodeAffinity", {})
    affinity["nodeAffinity"] = {
        **(affinity["nodeAffinity"] or {}),
        _REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]},
    }
    marks = {HASH_LABEL: hash_}
    generation = template_generation(daemon_set)
    if generation:
        marks[GENERATION_LABEL] = generation
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **marks}
    return pod


def template_generation(daemon_set: Object) -> str:
    """How often the template has changed, as text; empty when the server does not say."""
    return annotations_of(daemon_set).get(TEMPLATE_GENERATION, "")


def node_of(pod: Object) -> str:
    """The node the pod is on or meant for; empty for a pod that is no daemon's."""
    bound: str = dig(pod, "spec", "nodeName", default="")
    if bound:
        return bound
    terms: Sequence[Object] = dig(
        pod, "spec", "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms", default=()
    )
    for term in terms:
        for field in term.get("matchFields") or ():
            if (field.get("key"), field.get("operator")) == ("metadata.name", "In"):
                values: Sequence[str] = field.get("values") or ()
                return values[0] if len(values) == 1 else ""
    return ""
