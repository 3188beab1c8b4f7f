"""Which requests a webhook or a policy is for: rules, resources in equivalent versions, selectors. Pure.

Shared by the webhook plug-ins and ValidatingAdmissionPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.errors import Object
from controlplane.meta.labels import LabelSelector
from controlplane.resources.kind import Kind

_CONFIGURATIONS = frozenset(
    {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    }
)


def is_exempt(kind: Kind) -> bool:
    """What says who is asked is never asked about, lest a cluster locks itself out."""
    return kind.group == "admissionregistration.k8s.io" and kind.plural in _CONFIGURATIONS


@dataclass(frozen=True, slots=True)
class Question:
    """A request as far as rules look at it; few differ, so answers are remembered."""

    operation: str
    kind: Kind
    subresource: str
    in_namespace: bool

    @property
    def key(self) -> tuple[str, str, str, str, str, bool]:
        """What tells it from others, as long as the served kinds stay the same."""
        kind = self.kind
        return self.operation, kind.group, kind.version, kind.plural, self.subresource, self.in_namespace

    @classmethod
    def of(cls, request: AdmissionRequest) -> Question:
        return cls(request.operation.value, request.kind, request.subresource, bool(request.namespace))


@dataclass(frozen=True, slots=True)
class Rule:
    """One RuleWithOperations; `names` limits it to objects of these names."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str = "*"
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, rule: Object) -> Rule:
        def split(text: str) -> tuple[str, str]:
            resource, _, subresource = text.partition("/")
            return resource, subresource

        return cls(
            frozenset(rule.get("operations") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("apiVersions") or ()),
            tuple(split(text) for text in rule.get("resources") or ()),
            rule.get("scope") or "*",
            frozenset(rule.get("resourceNames") or ()),
        )

    def matches(self, question: Question, kind: Kind) -> bool:
        """Whether the question asked in terms of `kind` (an equivalent version perhaps) is meant; names aside."""
        return (
            bool(self.operations & {"*", question.operation})
            and bool(self.groups & {"*", kind.group})
            and bool(self.versions & {"*", kind.version})
            and any(
                resource in ("*", kind.plural) and subresource in ("*", question.subresource)
                for resource, subresource in self.resources
            )
            and self._in_scope(question)
        )

    def _in_scope(self, question: Question) -> bool:
        if self.scope == "Namespaced":
            return question.in_namespace
        return self.scope != "Cluster" or not question.in_namespace

    def concerns(self, name: str) -> bool:
        return not self.names or name in self.names


def matching_kind(
    rules: Sequence[Rule], question: Question, kinds: Iterable[Kind], *, equivalent: bool
) -> tuple[Kind, Sequence[Rule]] | None:
    """The version to speak in, and the rules that match in it; None when no rule does.

    The request's own version comes first; with `equivalent` the others of the same objects are tried.
    """
    candidates = [question.kind]
    if equivalent:
        own = question.kind
        candidates += [kind for kind in kinds if kind.prefix == own.prefix and kind is not own]
    for kind in candidates:
        found = [rule for rule in rules if rule.matches(question, kind)]
        if found:
            return kind, found
    return None


@dataclass(frozen=True, slots=True)
class Selectors:
    """namespaceSelector and objectSelector."""

    namespaces: LabelSelector
    objects: LabelSelector

    @classmethod
    def parse(cls, source: Mapping[str, Object]) -> Selectors:
        return cls(
            LabelSelector.from_object(source.get("namespaceSelector") or {}),
            LabelSelector.from_object(source.get("objectSelector") or {}),
        )

    async def match(self, request: AdmissionRequest) -> bool:
        return self.match_objects(request) and (
            self.namespaces.empty or await match_namespace(self.namespaces, request)
        )

    def match_objects(self, request: AdmissionRequest) -> bool:
        """The new or the old object must match; an object without labels is one with none."""
        if self.objects.empty:
            return True
        found = [obj for obj in (request.obj, request.old) if obj is not None]
        return any(self.objects.matches((obj.get("metadata") or {}).get("labels") or {}) for obj in found)


async def match_namespace(selector: LabelSelector, request: AdmissionRequest) -> bool:
    """Cluster-scoped objects always match; namespaces by their own labels."""
    if is_namespace(request.kind):
        own = request.obj if request.obj is not None and not request.subresource else request.old
        return selector.matches(((own or {}).get("metadata") or {}).get("labels") or {})
    if not request.namespace:
        return True
    namespace = await request.lookup("", "namespaces", "", request.namespace)
    return selector.matches(((namespace or {}).get("metadata") or {}).get("labels") or {})


def is_namespace(kind: Kind) -> bool:
    return kind.group == "" and kind.plural == "namespaces"
