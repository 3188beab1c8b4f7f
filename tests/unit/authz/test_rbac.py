"""RBAC over a registry: subjects, freshness, reasons; tests/integration/authz/test_rbac_matrix.py asks everything."""

from __future__ import annotations

from support.policy import World, account, binding, group, person, role, rule, user

from controlplane.resources.catalog import CLUSTER_ROLE_BINDING


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
