"""The audit policy: how much is told of which request. Pure.

An `audit.k8s.io/v1` Policy file as kube-apiserver takes it; the first rule that matches decides, and what no rule
matches is not told (`pkg/apis/audit`, `audit/policy` of v1.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo

API_VERSION = "audit.k8s.io/v1"


class Level(StrEnum):
    """How much is told, each including what stands before it."""

    NONE = "None"
    METADATA = "Metadata"
    REQUEST = "Request"
    REQUEST_RESPONSE = "RequestResponse"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


class Stage(StrEnum):
    """When an event is told."""

    RECEIVED = "RequestReceived"
    STARTED = "ResponseStarted"
    COMPLETE = "ResponseComplete"
    PANIC = "Panic"


class PolicyError(Exception):
    """The policy file cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class GroupResources:
    group: str
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    level: Level
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    omit_stages: frozenset[Stage] = frozenset()
    omit_managed_fields: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is told of one request."""

    level: Level
    omit_stages: frozenset[Stage] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...]
    omit_stages: frozenset[Stage] = frozenset()
    omit_managed_fields: bool = False

    def verdict(self, user: UserInfo, info: RequestInfo) -> Verdict:
        for rule in self.rules:
            if _matches(rule, user, info):
                omit = rule.omit_managed_fields
                return Verdict(
                    rule.level,
                    self.omit_stages | rule.omit_stages,
                    self.omit_managed_fields if omit is None else omit,
                )
        return Verdict(Level.NONE)


def _matches(rule: Rule, user: UserInfo, info: RequestInfo) -> bool:
    if rule.users and user.name not in rule.users:
        return False
    if rule.groups and not any(group in rule.groups for group in user.groups):
        return False
    if rule.verbs and info.verb not in rule.verbs:
        return False
    if rule.namespaces or rule.resources:
        return _matches_resource(rule, info)
    if rule.paths:
        return not info.is_resource and any(_is_path(pattern, info.path) for pattern in rule.paths)
    return True


def _matches_resource(rule: Rule, info: RequestInfo) -> bool:
    if not info.is_resource:
        return False
    if rule.namespaces and info.namespace not in rule.namespaces:
        return False
    if not rule.resources:
        return True
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    for entry in rule.resources:
        if entry.group != info.group:
            continue
        if not entry.resources:
            return True
        if entry.names and info.name not in entry.names:
            continue
        if any(_is_resource(pattern, whole, info) for pattern in entry.resources):
            return True
    return False


def _is_resource(pattern: str, whole: str, info: RequestInfo) -> bool:
    if pattern in ("*", whole):
        return True
    head, _, tail = pattern.partition("/")
    if not tail or not info.subresource:
        return False
    return (head == "*" and tail == info.subresource) or (tail == "*" and head == info.resource)


def _is_path(pattern: str, path: str) -> bool:
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.startswith(pattern[:-1])


def load(path: Path) -> Policy:
    """The policy in a file. Raises PolicyError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{path}: not valid YAML: {error}") from error
    try:
        return parse(document)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def parse(document: object) -> Policy:
    """The policy a parsed document states. Raises PolicyError with the field at fault."""
    top = _mapping(document, "the policy")
    if top.get("apiVersion") != API_VERSION or top.get("kind") != "Policy":
        raise PolicyError(f"expected apiVersion {API_VERSION} and kind Policy")
    _only(top, ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"), "the policy")
    rules = top.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError("rules: at least one is needed")
    return Policy(
        tuple(_rule(rule, f"rules[{index}]") for index, rule in enumerate(rules)),
        _stages(top.get("omitStages"), "omitStages"),
        bool(top.get("omitManagedFields")),
    )


_RULE_FIELDS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
    "omitManagedFields",
)  # fmt: skip


def _rule(value: object, where: str) -> Rule:
    rule = _mapping(value, where)
    _only(rule, _RULE_FIELDS, where)
    try:
        level = Level(rule.get("level", ""))
    except ValueError:
        raise PolicyError(f"{where}.level: {rule.get('level')!r} is none of {', '.join(Level)}") from None
    paths = _texts(rule.get("nonResourceURLs"), f"{where}.nonResourceURLs")
    resources = rule.get("resources") or []
    namespaces = _texts(rule.get("namespaces"), f"{where}.namespaces")
    if paths and (resources or namespaces):
        raise PolicyError(f"{where}.nonResourceURLs: rules cannot apply to both regular resources and paths")
    for index, path in enumerate(paths):
        if path != "*" and (not path.startswith("/") or "*" in path[:-1]):
            raise PolicyError(
                f"{where}.nonResourceURLs[{index}]: {path!r} must begin with / and may end in *"
            )
    omit = rule.get("omitManagedFields")
    if omit is not None and not isinstance(omit, bool):
        raise PolicyError(f"{where}.omitManagedFields: expected true or false")
    return Rule(
        level,
        _texts(rule.get("users"), f"{where}.users"),
        _texts(rule.get("userGroups"), f"{where}.userGroups"),
        _texts(rule.get("verbs"), f"{where}.verbs"),
        _group_resources(resources, f"{where}.resources"),
        namespaces,
        paths,
        _stages(rule.get("omitStages"), f"{where}.omitStages"),
        omit,
    )


def _group_resources(value: object, where: str) -> tuple[GroupResources, ...]:
    if not isinstance(value, list):
        raise PolicyError(f"{where}: expected a list")
    found: list[GroupResources] = []
    for index, item in enumerate(value):
        at = f"{where}[{index}]"
        entry = _mapping(item, at)
        _only(entry, ("group", "resources", "resourceNames"), at)
        group = entry.get("group") or ""
        if not isinstance(group, str) or "/" in group:
            raise PolicyError(f"{at}.group: {group!r} must be a group without version")
        resources = _texts(entry.get("resources"), f"{at}.resources")
        names = _texts(entry.get("resourceNames"), f"{at}.resourceNames")
        if names and not resources:
            raise PolicyError(f"{at}.resourceNames: using resourceNames requires at least one resource")
        found.append(GroupResources(group, resources, names))
    return tuple(found)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{where}: expected a mapping")
    return value


def _only(value: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise PolicyError(f"{where}: unknown field {key!r}")


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PolicyError(f"{where}: expected a list of texts")
    return tuple(value)


def _stages(value: object, where: str) -> frozenset[Stage]:
    try:
        return frozenset(Stage(text) for text in _texts(value, where))
    except ValueError as error:
        raise PolicyError(f"{where}: {error}") from None
