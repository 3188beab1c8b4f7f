"""FlowSchemas: which priority level a request belongs to, and which flow inside it. Pure.

The objects are `flowcontrol.apiserver.k8s.io/v1`; matching follows upstream's `pkg/util/flowcontrol/rule.go` (v1.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object

DEFAULT_PRECEDENCE = 1000
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class FlowSchema:
    """One schema, ready to match. `by` is the distinguisher's type: ByUser, ByNamespace or empty."""

    name: str
    uid: str
    level: str
    precedence: int
    by: str
    rules: Sequence[Object]


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a request belongs: requests with the same `distinguisher` share one flow of `schema`."""

    schema: FlowSchema
    distinguisher: str


def schema_of(obj: Object) -> FlowSchema:
    """A FlowSchema object, parsed. Takes what validation let pass."""
    spec = obj.get("spec") or {}
    method = spec.get("distinguisherMethod") or {}
    return FlowSchema(
        name=str(obj["metadata"]["name"]),
        uid=str(obj["metadata"].get("uid", "")),
        level=str((spec.get("priorityLevelConfiguration") or {}).get("name", "")),
        precedence=int(spec.get("matchingPrecedence") or DEFAULT_PRECEDENCE),
        by=str(method.get("type", "")),
        rules=tuple(spec.get("rules") or ()),
    )


def in_order(schemas: Sequence[FlowSchema]) -> list[FlowSchema]:
    """By precedence, the lowest number first; equal ones by name."""
    return sorted(schemas, key=lambda schema: (schema.precedence, schema.name))


def classify(schemas: Sequence[FlowSchema], user: UserInfo, info: RequestInfo) -> Flow | None:
    """The first schema (they are in order) that matches, and the flow in it; None when none does."""
    for schema in schemas:
        if any(_rule_matches(rule, user, info) for rule in schema.rules):
            by = {"ByUser": user.name, "ByNamespace": info.namespace}.get(schema.by, "")
            return Flow(schema, by)
    return None


def _rule_matches(rule: Mapping[str, object], user: UserInfo, info: RequestInfo) -> bool:
    if not any(_is_subject(subject, user) for subject in _list(rule, "subjects")):
        return False
    if info.is_resource:
        return any(_resource_matches(one, info) for one in _list(rule, "resourceRules"))
    return any(_path_matches(one, info) for one in _list(rule, "nonResourceRules"))


def _list(rule: Mapping[str, object], name: str) -> Sequence[Object]:
    found = rule.get(name)
    return found if isinstance(found, list) else ()


def _is_subject(subject: Object, user: UserInfo) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["user"]["name"] in ("*", user.name)
        case "Group":
            name = subject["group"]["name"]
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject["serviceAccount"]
            prefix = f"{_SERVICE_ACCOUNT}{account['namespace']}:"
            if account["name"] == "*":
                return user.name.startswith(prefix)
            return bool(user.name == prefix + account["name"])
        case _:
            return False


def _has(allowed: Object, field: str, value: str) -> bool:
    values = allowed.get(field) or ()
    return "*" in values or value in values


def _resource_matches(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _has(rule, "verbs", info.verb)
        and _has(rule, "apiGroups", info.group)
        and _has(rule, "resources", resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule, "namespaces", info.namespace)


def _path_matches(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule, "verbs", info.verb):
        return False
    for path in rule.get("nonResourceURLs") or ():
        if path in ("*", info.path) or (path.endswith("/*") and info.path.startswith(path[:-1])):
            return True
    return False
