"""RBAC: roles and bindings as they are in the watch caches, indexed by subject.

A decision looks at the bindings of the user's name and groups only. The index is brought up to date before each use
from the events the caches remember: a binding counts as soon as its writer was answered. Called by the chain, by the
check against escalation and by explanations; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.apiserver.authz.attributes import (
    NO_OPINION,
    Attributes,
    Decision,
    RulesAnswer,
    Verdict,
    aggregate,
)
from controlplane.apiserver.authz.follower import CacheSource, Follower, Held
from controlplane.apiserver.authz.rules import Rules, wanted
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.resources.fieldpath import quoted
from controlplane.store.events import Stored

GROUP = "rbac.authorization.k8s.io"
_ACCOUNT_PREFIX = "system:serviceaccount:"
_NOTHING = Rules(())


@dataclass(frozen=True, slots=True)
class RbacCaches:
    """The four kinds' caches."""

    roles: CacheSource
    cluster_roles: CacheSource
    role_bindings: CacheSource
    cluster_role_bindings: CacheSource


@dataclass(frozen=True, slots=True)
class _Bound:
    """One binding as one of its subjects sees it. `reason` is what an allowed request is told."""

    binding: Object
    reason: str


class _Bindings:
    """Bindings of one kind by (namespace, subject); namespace is empty for ClusterRoleBindings."""

    def __init__(self, source: CacheSource) -> None:
        self._by_subject: dict[tuple[str, str], dict[str, _Bound]] = {}
        self._follower = Follower(source, self._add, self._remove, self._by_subject.clear)
        self.refresh = self._follower.refresh

    def of(self, namespace: str, subject: str) -> Sequence[_Bound]:
        found = self._by_subject.get((namespace, subject))
        return tuple(found.values()) if found else ()

    def _add(self, binding: Object) -> None:
        for slot, subject in _slots(binding):
            reason = f"RBAC: allowed by {_described(binding, subject)}"
            bucket = self._by_subject.setdefault(slot, {})
            bucket.setdefault(binding["metadata"]["name"], _Bound(binding, reason))

    def _remove(self, binding: Object) -> None:
        for slot, _ in _slots(binding):
            bucket = self._by_subject.get(slot, {})
            bucket.pop(binding["metadata"]["name"], None)
            if not bucket:
                self._by_subject.pop(slot, None)


def _slots(binding: Object) -> Iterator[tuple[tuple[str, str], Object]]:
    namespace = binding["metadata"].get("namespace", "")
    for subject in binding.get("subjects") or ():
        key = _subject_key(subject, namespace)
        if key:
            yield (namespace, key), subject


def _subject_key(subject: Object, namespace: str) -> str:
    name = subject.get("name", "")
    match subject.get("kind"):
        case "User":
            return f"u:{name}"
        case "Group":
            return f"g:{name}"
        case "ServiceAccount":
            space = subject.get("namespace") or namespace
            return f"u:{_ACCOUNT_PREFIX}{space}:{name}" if space else ""
    return ""


class _Roles:
    """Compiled rules of roles, kept as long as the role does not change."""

    def __init__(self, caches: RbacCaches) -> None:
        self._roles = Held(caches.roles)
        self._cluster_roles = Held(caches.cluster_roles)
        self._compiled: dict[tuple[str, str], tuple[Stored, Rules]] = {}

    def of(self, reference: Object, namespace: str) -> Rules | str:
        """The rules a roleRef leads to, or why there are none."""
        name, kind = reference.get("name", ""), reference.get("kind", "")
        if kind == "ClusterRole":
            namespace, stored = "", self._cluster_roles().get("", name)
        elif kind == "Role":
            stored = self._roles().get(namespace, name)
        else:
            return f"unsupported role reference kind: {quoted(kind)}"
        key = (namespace, name)
        if stored is None:
            self._compiled.pop(key, None)
            return f"{kind.lower()}.{GROUP} {quoted(name)} not found"
        known = self._compiled.get(key)
        if known is not None and known[0] is stored:
            return known[1]
        rules = Rules(stored.object.get("rules") or ())
        self._compiled[key] = (stored, rules)
        return rules


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding that concerns a user, and the rules behind it, or why there are none."""

    binding: Object
    rules: Rules
    error: str = ""


class RbacPolicy:
    """The authorizer, and all questions about roles. Knows nothing before `follow`."""

    def __init__(self) -> None:
        self._cluster: _Bindings | None = None
        self._spaced: _Bindings | None = None
        self._roles: _Roles | None = None
        self._caches: RbacCaches | None = None

    def follow(self, caches: RbacCaches) -> None:
        """Decide by these caches from now on."""
        self._cluster = _Bindings(caches.cluster_role_bindings)
        self._spaced = _Bindings(caches.role_bindings)
        self._roles = _Roles(caches)
        self._caches = caches

    async def authorize(self, attributes: Attributes) -> Decision:
        """Allowed by the first rule found, with the binding in the reason; else no opinion."""
        info = attributes.info
        errors: list[str] = []
        combined, any_sub = wanted(info)
        for bound, rules in self._grants(attributes.user, info.namespace):
            if isinstance(rules, str):
                errors.append(rules)
                continue
            rule = rules.allowing(info, combined, any_sub)
            if rule is not None:
                facts: Object = {"binding": bound.binding, "rule": rule}
                return Decision(Verdict.ALLOW, bound.reason, "", "RBAC", facts)
        if errors:
            return Decision(Verdict.NO_OPINION, f"RBAC: {aggregate(errors)}")
        return NO_OPINION

    def grants(self, user: UserInfo, namespace: str) -> Iterator[Grant]:
        """All bindings that concern the user: cluster-wide ones, and those of `namespace` unless it is empty."""
        for bound, rules in self._grants(user, namespace):
            binding = bound.binding
            yield Grant(binding, _NOTHING, rules) if isinstance(rules, str) else Grant(binding, rules)

    def _grants(self, user: UserInfo, namespace: str) -> Iterator[tuple[_Bound, Rules | str]]:
        cluster, spaced, roles = self._cluster, self._spaced, self._roles
        if cluster is None or spaced is None or roles is None:
            return
        subjects = (f"u:{user.name}", *(f"g:{group}" for group in user.groups))
        cluster.refresh()
        for subject in subjects:
            for bound in cluster.of("", subject):
                yield bound, roles.of(bound.binding["roleRef"], "")
        if not namespace:
            return
        spaced.refresh()
        for subject in subjects:
            for bound in spaced.of(namespace, subject):
                yield bound, roles.of(bound.binding["roleRef"], namespace)

    def all_grants(self, namespace: str) -> Iterator[tuple[Object, Rules]]:
        """Every binding that counts for the cluster or in `namespace`, whoever its subjects are."""
        if self._caches is None or self._roles is None:
            return
        stored = [s for _, s in self._caches.cluster_role_bindings().scan()]
        if namespace:
            stored += [s for _, s in self._caches.role_bindings().scan(namespace)]
        for each in stored:
            space = each.object["metadata"].get("namespace", "")
            rules = self._roles.of(each.object["roleRef"], space)
            if not isinstance(rules, str):
                yield each.object, rules

    def rules_of(self, user: UserInfo, namespace: str) -> tuple[list[Object], list[str]]:
        """All rules of the user, and what could not be resolved."""
        rules: list[Object] = []
        errors: list[str] = []
        for grant in self.grants(user, namespace):
            rules += grant.rules.source
            if grant.error:
                errors.append(grant.error)
        return rules, errors

    def role_rules(self, reference: Object, namespace: str) -> Sequence[Object] | None:
        """The rules of the role a binding refers to, None when there is no such role."""
        found = self._roles.of(reference, namespace) if self._roles is not None else ""
        return None if isinstance(found, str) else found.source

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        rules, errors = self.rules_of(user, namespace)
        keys = ("verbs", "apiGroups", "resources", "resourceNames")
        resource = [_only(rule, keys) for rule in rules if rule.get("resources")]
        paths = [_only(rule, ("verbs", "nonResourceURLs")) for rule in rules if rule.get("nonResourceURLs")]
        return RulesAnswer(resource, paths, False, (aggregate(errors),) if errors else ())


def _only(rule: Object, keys: Sequence[str]) -> Object:
    return {key: list(rule[key]) for key in keys if rule.get(key)}


def _described(binding: Object, subject: Object) -> str:
    """`RoleBinding "b/ns" of Role "r" to User "u"`."""
    metadata, reference = binding["metadata"], binding["roleRef"]
    namespace = metadata.get("namespace", "")
    name = f"{metadata['name']}/{namespace}" if namespace else metadata["name"]
    subject_name = subject["name"]
    if subject["kind"] == "ServiceAccount":
        subject_name = f"{subject_name}/{subject.get('namespace') or namespace}"
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    return (
        f"{kind} {quoted(name)} of {reference['kind']} {quoted(reference['name'])} "
        f"to {subject['kind']} {quoted(subject_name)}"
    )
