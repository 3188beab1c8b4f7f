"""RBAC against an oracle: every verb on everything served, for users of many kinds."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from support.policy import World, account, authorized, binding, person, role, rule, user

from controlplane.apiserver.registry import ListOptions
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.resources.catalog import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, SERVED


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with authorized() as made:
        yield made


SUBJECTS: tuple[tuple[UserInfo, str], ...] = (
    (UserInfo("system:anonymous", groups=("system:unauthenticated",)), "anonymous"),
    (user("nobody"), "nobody"),
    (user("ada"), "admin of default"),
    (user("ed"), "editor of default"),
    (user("vi"), "viewer of the cluster"),
    (user("named"), "one object"),
    (user("scaler"), "all scales"),
    (user("root"), "cluster-admin by binding"),
    (user("system:serviceaccount:other:bot", "system:serviceaccounts", "system:serviceaccounts:other"), "SA"),
    (user("system:kube-proxy"), "proxy"),
    (user("system:kube-scheduler"), "scheduler"),
    (user("system:kube-controller-manager"), "controller manager"),
    (user("system:serviceaccount:kube-system:deployment-controller"), "controller"),
)
VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "bind",
    "escalate",
)  # fmt: skip


def owned(objects: dict[str, list[Object]], who: UserInfo, namespace: str) -> list[Object]:
    """The rules the documentation of RBAC gives a user in a namespace, read literally and slowly."""

    def mine(subject: Object, space: str) -> bool:
        if subject["kind"] == "ServiceAccount":
            full = f"system:serviceaccount:{subject.get('namespace') or space}:{subject['name']}"
            return full == who.name
        return subject["name"] in ((who.name,) if subject["kind"] == "User" else who.groups)

    rules: list[Object] = []
    for bound in objects["ClusterRoleBinding"] + objects["RoleBinding"]:
        space = bound["metadata"].get("namespace", "")
        if space and space != namespace:
            continue
        if not any(mine(subject, space) for subject in bound.get("subjects") or ()):
            continue
        reference = bound["roleRef"]
        for found in objects[reference["kind"]]:
            same_space = reference["kind"] == "ClusterRole" or found["metadata"].get("namespace") == space
            if found["metadata"]["name"] == reference["name"] and same_space:
                rules += found["rules"] or ()
    return rules


def oracle(rules: list[Object], verb: str, target: tuple[str, ...]) -> bool:
    api_group, resource, subresource, _, name = target
    full = f"{resource}/{subresource}" if subresource else resource
    for each in rules:
        names = each.get("resourceNames")
        if (
            {verb, "*"} & set(each["verbs"])
            and {api_group, "*"} & set(each.get("apiGroups") or ())
            and {full, "*", f"*/{subresource}" if subresource else full} & set(each.get("resources") or ())
            and (not names or name in names)
        ):
            return True
    return False


@pytest.mark.parametrize(("who", "what"), SUBJECTS, ids=[what for _, what in SUBJECTS])
async def test_the_matrix(world: World, who: UserInfo, what: str) -> None:
    """Every verb x every served kind and subresource x scope x name, against the oracle."""
    for obj in (
        binding("ada", "ClusterRole/admin", person("ada"), namespace="default"),
        binding("ed", "ClusterRole/edit", person("ed"), namespace="default"),
        binding("vi", "ClusterRole/view", person("vi")),
        role("one", rule("get,delete", "", "configmaps", "x"), namespace="default"),
        binding("one", "Role/one", person("named"), namespace="default"),
        role("scale", rule("get,update", "*", "*/scale")),
        binding("scale", "ClusterRole/scale", person("scaler")),
        binding("root", "ClusterRole/cluster-admin", person("root")),
        binding("bot", "ClusterRole/edit", account("other", "bot"), namespace="default"),
    ):
        await world.create(obj)
    objects = {
        kind.kind: [s.object for s in (await world.registry.list(kind, "", ListOptions())).items]
        for kind in (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)
    }
    targets = [
        (kind.group, kind.plural, subresource, namespace, name)
        for kind in SERVED
        for subresource in (
            "", "status", *(["scale"] if kind.scale else []), *(s.name for s in kind.subresources)
        )
        for namespace in (("default", "other", "") if kind.namespaced else ("",))
        for name in ("", "x")
    ]  # fmt: skip
    rules = {namespace: owned(objects, who, namespace) for namespace in ("default", "other", "")}
    answers = set()
    for verb, target in itertools.product(VERBS, targets):
        api_group, resource, subresource, namespace, name = target
        named = f"{resource}.{api_group}" if api_group else resource
        asked = f"{named}/{subresource}" if subresource else named
        allowed = await world.may(who, verb, asked, namespace, name)
        assert allowed is oracle(rules[namespace], verb, target), (verb, target)
        answers.add(allowed)
    assert answers == {"cluster-admin by binding": {True}, "anonymous": {False}}.get(what, {True, False})
