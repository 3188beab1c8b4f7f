"""PolicyRules: whether they allow a request, cover other rules, and how they are printed. Pure.

Called by the RBAC and Node authorizers and by the check against escalation. The comparisons and texts are upstream's
(`pkg/apis/rbac/v1/evaluation_helpers.go`, `pkg/registry/rbac/validation`, v1.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.apiserver.routing import RequestInfo
from controlplane.errors import Object
from controlplane.resources.fieldpath import quoted_list

ALL = "*"


class _Resources:
    """One rule about resources, taken apart for quick answers."""

    __slots__ = ("groups", "names", "number", "resources")

    def __init__(self, rule: Object, number: int) -> None:
        self.number = number
        self.groups = frozenset(rule.get("apiGroups") or ())
        self.resources = frozenset(rule.get("resources") or ())
        self.names = frozenset(rule.get("resourceNames") or ())

    def allows(self, info: RequestInfo, combined: str, any_sub: str) -> bool:
        groups, resources, names = self.groups, self.resources, self.names
        return (
            (info.group in groups or ALL in groups)
            and (combined in resources or ALL in resources or any_sub in resources)
            and (not names or info.name in names)
        )


class Rules:
    """The rules of one role, by verb. `source` are the rules as they are in the object."""

    __slots__ = ("_paths", "_resources", "source")

    def __init__(self, source: Sequence[Object]) -> None:
        self.source = source
        self._resources: dict[str, list[_Resources]] = {}
        self._paths: dict[str, list[tuple[int, str]]] = {}
        for number, rule in enumerate(source):
            resources = _Resources(rule, number)
            for verb in dict.fromkeys(rule.get("verbs") or ()):
                if resources.resources:
                    self._resources.setdefault(verb, []).append(resources)
                for url in rule.get("nonResourceURLs") or ():
                    self._paths.setdefault(verb, []).append((number, url))

    def allowing(self, info: RequestInfo, combined: str, any_sub: str) -> Object | None:
        """The first rule found that allows it. `combined` and `any_sub` come from `wanted`."""
        if not info.is_resource:
            for verb in (info.verb, ALL):
                for number, url in self._paths.get(verb, ()):
                    if path_matches(url, info.path):
                        return self.source[number]
            return None
        for verb in (info.verb, ALL):
            for rule in self._resources.get(verb, ()):
                if rule.allows(info, combined, any_sub):
                    return self.source[rule.number]
        return None


def wanted(info: RequestInfo) -> tuple[str, str]:
    """How rules may name the request's resource: exactly, or as a subresource of anything."""
    if not info.subresource:
        return info.resource, info.resource
    return f"{info.resource}/{info.subresource}", f"*/{info.subresource}"


def path_matches(url: str, path: str) -> bool:
    """Whether a rule's nonResourceURL, which may end in `*`, names the path."""
    return url in (ALL, path) or (url.endswith(ALL) and path.startswith(url.rstrip(ALL)))


def broken_down(rule: Object) -> Iterable[Object]:
    """The rule as the smallest rules it consists of: one verb, and one resource of one group and name, or one URL."""
    verbs = rule.get("verbs") or ()
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in verbs:
                one = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                names = rule.get("resourceNames") or ()
                if not names:
                    yield one
                for name in names:
                    yield {**one, "resourceNames": [name]}
    for url in rule.get("nonResourceURLs") or ():
        for verb in verbs:
            yield {"nonResourceURLs": [url], "verbs": [verb]}


def missing(owned: Sequence[Object], wanted_rules: Iterable[Object]) -> list[Object]:
    """What of `wanted_rules`, broken down, no single one of the `owned` rules covers."""
    return [
        part
        for rule in wanted_rules
        for part in broken_down(rule)
        if not any(_covers(owner, part) for owner in owned)
    ]


def _covers(owner: Object, part: Object) -> bool:
    names, owned_names = part.get("resourceNames") or (), owner.get("resourceNames") or ()
    return (
        _has_all(owner.get("verbs") or (), part["verbs"])
        and _has_all(owner.get("apiGroups") or (), part.get("apiGroups") or ())
        and _resources_cover(owner.get("resources") or (), part.get("resources") or ())
        and all(
            any(_url_covers(url, each) for url in owner.get("nonResourceURLs") or ())
            for each in part.get("nonResourceURLs") or ()
        )
        and (not owned_names or (bool(names) and set(names) <= set(owned_names)))
    )


def _has_all(owned: Sequence[str], asked: Sequence[str]) -> bool:
    return ALL in owned or all(each in owned for each in asked)


def _resources_cover(owned: Sequence[str], asked: Sequence[str]) -> bool:
    if _has_all(owned, asked):
        return True
    for resource in asked:
        _, slash, subresource = resource.partition("/")
        if resource not in owned and not (slash and f"*/{subresource}" in owned):
            return False
    return True


def _url_covers(owned: str, asked: str) -> bool:
    return owned == asked or (owned.endswith(ALL) and asked.startswith(owned.rstrip(ALL)))


def compact(rules: Iterable[Object]) -> list[Object]:
    """The rules with the verbs of simple ones (one group, one resource, at most one name) gathered."""
    result: list[Object] = []
    simple: dict[tuple[str, str, str | None], Object] = {}
    for rule in rules:
        groups, resources = list(rule.get("apiGroups") or ()), list(rule.get("resources") or ())
        names = list(rule.get("resourceNames") or ())
        if len(names) > 1 or rule.get("nonResourceURLs") or len(groups) != 1 or len(resources) != 1:
            result.append(rule)
            continue
        key = (groups[0], resources[0], names[0] if names else None)
        known = simple.setdefault(key, {**rule, "verbs": []})
        known["verbs"] += [verb for verb in rule.get("verbs") or () if verb not in known["verbs"]]
    return [*result, *simple.values()]


def compact_text(rule: Object) -> str:
    """`{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`."""
    parts = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    texts = [f"{word}:{quoted_list(rule[key])}" for word, key in parts if rule.get(key)]
    return "{" + ", ".join(texts) + "}"
