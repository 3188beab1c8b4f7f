"""Objects of RBAC, users, and a world of a registry and an authorizer, for tests of authorization."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from controlplane.apiserver.admission.node_restriction import NodeRestriction
from controlplane.apiserver.authz import Attributes, Decision
from controlplane.apiserver.authz.escalation import EscalationCheck
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.authz.selectors import field_requirements
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.apiserver.registry import LOOPBACK_USER, DeleteOptions, Registry, WriteOptions
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.resources.catalog import SERVED, by_kind
from controlplane.store.memory import MemoryStore

RBAC = "rbac.authorization.k8s.io"


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name, groups=(*groups, "system:authenticated"))


def binding(name: str, role: str, *subjects: Object, namespace: str = "") -> Object:
    """A binding to `Kind/name`, in a namespace or for the cluster."""
    kind, _, role_name = role.partition("/")
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


def role(name: str, *rules: Object, namespace: str = "", **more: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    kind = "Role" if namespace else "ClusterRole"
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules), **more}


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Object:
    found: Object = {
        "verbs": verbs.split(","),
        "apiGroups": groups.split(","),
        "resources": resources.split(","),
    }
    if names:
        found["resourceNames"] = names.split(",")
    return found


def person(name: str) -> Object:
    return {"kind": "User", "apiGroup": RBAC, "name": name}


def group(name: str) -> Object:
    return {"kind": "Group", "apiGroup": RBAC, "name": name}


def account(namespace: str, name: str) -> Object:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


@dataclass(slots=True)
class World:
    registry: Registry
    authorization: Authorization

    async def create(self, obj: Object, who: UserInfo = LOOPBACK_USER) -> Object:
        kind = by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None
        namespace = obj["metadata"].get("namespace", "")
        copy = {**obj, "metadata": dict(obj["metadata"])}
        return (await self.registry.create(kind, namespace, copy, WriteOptions(user=who))).object

    async def update(self, obj: Object, who: UserInfo = LOOPBACK_USER) -> Object:
        kind = by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None
        metadata = obj["metadata"]
        stored, _ = await self.registry.update(
            kind, metadata.get("namespace", ""), metadata["name"], obj, WriteOptions(user=who)
        )
        return stored.object

    async def delete(self, obj: Object) -> None:
        kind = by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None
        metadata = obj["metadata"]
        options = DeleteOptions(user=LOOPBACK_USER)
        await self.registry.delete(kind, metadata.get("namespace", ""), metadata["name"], options)

    async def decide(
        self, who: UserInfo, verb: str, what: str, namespace: str = "", name: str = "", fields: str = ""
    ) -> Decision:
        """`what` is `resource[.group][/subresource]`, or a path."""
        if what.startswith("/"):
            info = RequestInfo(verb, what)
        else:
            resource, _, subresource = what.partition("/")
            plural, _, api_group = resource.partition(".")
            info = RequestInfo(verb, "", True, api_group, "v1", namespace, plural, name, subresource)
        return await self.authorization.chain.authorize(Attributes(who, info, field_requirements(fields)))

    async def may(self, who: UserInfo, verb: str, what: str, namespace: str = "", name: str = "") -> bool:
        return (await self.decide(who, verb, what, namespace, name)).allowed


@asynccontextmanager
async def authorized() -> AsyncIterator[World]:
    """A registry with the default policy and some namespaces, and the chain over it."""
    store = MemoryStore()
    authorization = Authorization.of(AuthorizationSettings())
    plugins = [NodeRestriction(), EscalationCheck(authorization.rbac, authorization.chain)]
    registry = Registry(store, SERVED, admission=plugins)
    await registry.start()
    await authorization.follow(registry)
    made = World(registry, authorization)
    for name in ("default", "kube-system", "kube-public", "other", "kube-node-lease"):
        await made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await bootstrap_policy(registry)
    try:
        yield made
    finally:
        await registry.close()
        await store.close()
