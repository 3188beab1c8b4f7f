"""RBAC over a registry: subjects, freshness, reasons, and the matrix of everything against an oracle."""

from __future__ import annotations

import itertools

import pytest
from support.policy import World, account, binding, group, person, role, rule, user

from controlplane.apiserver.registry import ListOptions
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.resources.catalog import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, SERVED


async def test_a_binding_counts_as_soon_as_it_was_answered_and_no_longer(world: World) -> None:
    bob = user("bob")
    bound = binding("b", "ClusterRole/view", person("bob"), namespace="default")
    for _ in range(3):
        assert not await world.may(bob, "get", "pods", "default")
        await world.create(bound)
        assert await world.may(bob, "get", "pods", "default")
        assert not await world.may(bob, "get", "pods", "other")
        assert not await world.may(bob, "get", "pods")
        assert not await world.may(bob, "get", "secrets", "default")
        await world.delete(bound)
    stored = await world.create(bound)
    await world.update({**stored, "subjects": [person("eve")]})
    assert not await world.may(bob, "get", "pods", "default")
    assert await world.may(user("eve"), "get", "pods", "default")


async def test_a_change_of_a_role_counts_at_once(world: World) -> None:
    await world.create(binding("b", "Role/r", person("bob"), namespace="default"))
    decision = await world.decide(user("bob"), "get", "pods", "default")
    assert decision.reason == 'RBAC: role.rbac.authorization.k8s.io "r" not found'
    stored = await world.create(role("r", rule("get", "", "pods"), namespace="default"))
    assert await world.may(user("bob"), "get", "pods", "default")
    await world.update({**stored, "rules": [rule("list", "", "pods")]})
    assert not await world.may(user("bob"), "get", "pods", "default")
    assert await world.may(user("bob"), "list", "pods", "default")


async def test_subjects(world: World) -> None:
    await world.create(binding("g", "ClusterRole/view", group("team"), namespace="default"))
    await world.create(binding("s", "ClusterRole/view", account("other", "robot"), namespace="default"))
    own = {"kind": "ServiceAccount", "name": "local"}
    await world.create(binding("o", "ClusterRole/view", own, namespace="default"))
    for who, expected in (
        (user("bob", "team"), True),
        (user("team"), False),
        (user("system:serviceaccount:other:robot"), True),
        (user("system:serviceaccount:default:robot"), False),
        (user("system:serviceaccount:default:local"), True),
        (user("robot"), False),
    ):
        assert await world.may(who, "get", "pods", "default") is expected, who


async def test_reasons(world: World) -> None:
    await world.create(binding("b", "ClusterRole/view", account("other", "robot"), namespace="default"))
    robot = user("system:serviceaccount:other:robot")
    decision = await world.decide(robot, "get", "pods", "default")
    assert decision.source == "RBAC"
    assert decision.reason == (
        'RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to ServiceAccount "robot/other"'
    )
    decision = await world.decide(user("x"), "get", "/version")
    assert decision.reason == (
        'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" '
        'to Group "system:authenticated"'
    )
    await world.create(binding("c1", "ClusterRole/gone", person("x")))
    await world.create(binding("c2", "ClusterRole/gone2", person("x")))
    decision = await world.decide(user("x"), "get", "secrets", "default")
    assert decision.reason == (
        'RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, '
        'clusterrole.rbac.authorization.k8s.io "gone2" not found]'
    )


async def test_the_administrators_need_no_role(world: World) -> None:
    for name in ("cluster-admin",):
        stored = (await world.registry.cache(CLUSTER_ROLE_BINDING)).get("", name)
        assert stored is not None
        await world.delete(stored.object)
    assert await world.may(user("root", "system:masters"), "delete", "nodes", name="n")


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
