"""The default roles and bindings of Kubernetes v1.32, as objects. Pure.

Read from `default_policy.json`. A rule there is one line, `VERBS GROUPS RESOURCES [NAMES]` or `VERBS PATHS`, with
commas inside the parts; `core` is the group without a name, READ, WRITE and ALL are the usual verbs, EVENTS is the
rule nearly every controller has. Subjects are `u:USER`, `g:GROUP` and `s:ACCOUNT` of kube-system.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import orjson

from controlplane.errors import Object

API_VERSION = "rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
NODE_ROLE = "system:node"
_LABEL = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_VERBS = {"READ": list(_READ), "WRITE": list(_WRITE), "ALL": sorted((*_READ, *_WRITE))}


@functools.cache
def _data() -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(
        files("controlplane.apiserver.authz").joinpath("default_policy.json").read_bytes()
    )
    return parsed


def default_objects() -> Iterator[Object]:
    """All of them, roles before the bindings that refer to them."""
    data = _data()
    for name, content in data["clusterRoles"].items():
        yield _cluster_role(name, content)
    for name, content in data["controllers"].items():
        yield _cluster_role(f"system:controller:{name}", content)
    for namespace, roles in data["roles"].items():
        for name, lines in roles.items():
            yield _object("Role", name, namespace, {"rules": rules(lines)})
    for name, subjects in data["clusterRoleBindings"].items():
        yield _binding("ClusterRoleBinding", name, "", "ClusterRole", name, subjects)
    for name in data["controllers"]:
        role = f"system:controller:{name}"
        yield _binding("ClusterRoleBinding", role, "", "ClusterRole", role, [f"s:{name}"])
    for namespace, bindings in data["roleBindings"].items():
        for name, content in bindings.items():
            listed = isinstance(content, list)
            role = name if listed else content["role"]
            subjects = content if listed else content["subjects"]
            yield _binding("RoleBinding", name, namespace, "Role", role, subjects)


def node_rules() -> list[Object]:
    """What every node may do, before the Node authorizer narrows it."""
    return rules(_data()["clusterRoles"][NODE_ROLE])


def rules(lines: Sequence[str]) -> list[Object]:
    """Rules from their one-line form."""
    return [_rule(line) for line in lines]


def _rule(line: str) -> Object:
    if line == "EVENTS":
        return {
            "verbs": ["create", "patch", "update"],
            "apiGroups": ["", "events.k8s.io"],
            "resources": ["events"],
        }
    words, *parts = line.split(" ")
    verbs = list(_VERBS.get(words) or words.split(","))
    if parts == ["ANYPATH"]:
        return {"verbs": verbs, "nonResourceURLs": ["*"]}
    if parts[0].startswith("/"):
        return {"verbs": verbs, "nonResourceURLs": parts[0].split(",")}
    rule: Object = {
        "verbs": verbs,
        "apiGroups": ["" if group == "core" else group for group in parts[0].split(",")],
        "resources": parts[1].split(","),
    }
    if len(parts) > 2:
        rule["resourceNames"] = parts[2].split(",")
    return rule


def _object(kind: str, name: str, namespace: str, content: Object) -> Object:
    metadata: Object = {"name": name, "labels": dict(_LABEL), "annotations": {AUTOUPDATE: "true"}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, **content}


def _cluster_role(name: str, content: Any) -> Object:
    if isinstance(content, list):
        return _object("ClusterRole", name, "", {"rules": rules(content)})
    role = _object("ClusterRole", name, "", {"rules": rules(content.get("rules", ()))})
    if "to" in content:
        role["metadata"]["labels"][_AGGREGATE + content["to"]] = "true"
    if "aggregate" in content:
        label = {_AGGREGATE + content["aggregate"]: "true"}
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": label}]}
        role["rules"] = None
    return role


def _binding(
    kind: str, name: str, namespace: str, role_kind: str, role: str, subjects: Sequence[str]
) -> Object:
    reference = {"apiGroup": GROUP, "kind": role_kind, "name": role}
    content: Object = {"roleRef": reference}
    if subjects:
        content["subjects"] = [_subject(text) for text in subjects]
    return _object(kind, name, namespace, content)


def _subject(text: str) -> Object:
    letter, _, name = text.partition(":")
    if letter == "s":
        return {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}
    return {"apiGroup": GROUP, "kind": "User" if letter == "u" else "Group", "name": name}
