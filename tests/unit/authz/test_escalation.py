"""Nobody gives away what he does not have."""

from __future__ import annotations

import pytest
from support.policy import World, binding, group, person, role, rule, user

from controlplane.apiserver.user import UserInfo
from controlplane.errors import Forbidden, NotFound, Object

BOB = user("bob")
MAY_WRITE = rule("*", "rbac.authorization.k8s.io", "roles,rolebindings,clusterroles,clusterrolebindings")


@pytest.fixture
async def bob(world: World) -> World:
    """bob may write roles and bindings, and read pods; both in `default` only for the latter."""
    await world.create(role("writer", rule("create,update,patch,delete", MAY_WRITE["apiGroups"][0],
                                           "roles,rolebindings,clusterroles,clusterrolebindings")))  # fmt: skip
    await world.create(binding("writer", "ClusterRole/writer", person("bob")))
    await world.create(role("reader", rule("get,list", "", "pods"), namespace="default"))
    await world.create(binding("reader", "Role/reader", person("bob"), namespace="default"))
    return world


async def refused(world: World, obj: Object, who: UserInfo = BOB, update: bool = False) -> str:
    with pytest.raises(Forbidden) as caught:
        await (world.update if update else world.create)(obj, who)
    return caught.value.message


async def test_the_text_lists_what_is_missing(bob: World) -> None:
    wanted = role(
        "r",
        rule("get,list,delete", "", "pods,secrets"),
        rule("get", "apps", "deployments"),
        namespace="default",
    )
    assert await refused(bob, wanted) == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "bob" (groups=["system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "delete"]}\n'
        '{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}'
    )
    await bob.create(role("r", rule("get", "", "pods"), namespace="default"), BOB)


async def test_rights_in_one_namespace_are_none_in_another(bob: World) -> None:
    for where in ({"namespace": "other"}, {}):
        assert "not currently held" in await refused(bob, role("r", rule("get", "", "pods"), **where))


async def test_updates_are_checked_as_a_whole(bob: World) -> None:
    await bob.create(role("strong", rule("get", "", "secrets"), namespace="default"))
    stored = await bob.create(role("weak", rule("get", "", "pods"), namespace="default"), BOB)
    widened = {**stored, "rules": [rule("get", "", "secrets")]}
    assert "not currently held" in await refused(bob, widened, update=True)
    labelled = {**stored, "metadata": {**stored["metadata"], "labels": {"a": "b"}}}
    await bob.update(labelled, BOB)


async def test_what_the_garbage_collector_changes_is_free(bob: World) -> None:
    stored = await bob.create(role("strong", rule("get", "", "secrets"), namespace="default"))
    freed = {**stored, "metadata": {**stored["metadata"], "finalizers": ["example.com/x"]}}
    await bob.update(freed, BOB)


async def test_the_verb_escalate(bob: World) -> None:
    await bob.create(role("esc", rule("escalate", "rbac.authorization.k8s.io", "roles"), namespace="default"))
    await bob.create(binding("esc", "Role/esc", person("bob"), namespace="default"))
    await bob.create(role("r", rule("*", "*", "*"), namespace="default"), BOB)
    await refused(bob, role("r", rule("*", "*", "*")))


async def test_bindings(bob: World) -> None:
    wanted = binding("b", "ClusterRole/view", person("eve"), namespace="default")
    text = await refused(bob, wanted)
    assert text.startswith(
        'rolebindings.rbac.authorization.k8s.io "b" is forbidden: user "bob" (groups=["system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
    )
    assert '{APIGroups:[""], Resources:["configmaps"], Verbs:["get" "list" "watch"]}' in text
    await bob.create(binding("b", "Role/reader", person("eve"), namespace="default"), BOB)
    with pytest.raises(NotFound) as missing:
        await bob.create(binding("c", "ClusterRole/none", person("eve"), namespace="default"), BOB)
    assert missing.value.message == 'clusterroles.rbac.authorization.k8s.io "none" not found'


async def test_the_verb_bind(bob: World) -> None:
    await bob.create(role("bind", rule("bind", "rbac.authorization.k8s.io", "clusterroles", "admin")))
    await bob.create(binding("bind", "ClusterRole/bind", person("bob"), namespace="default"))
    await bob.create(binding("b", "ClusterRole/admin", person("eve"), namespace="default"), BOB)
    await refused(bob, binding("b", "ClusterRole/edit", person("eve"), namespace="default"))
    await refused(bob, binding("b", "ClusterRole/admin", person("eve"), namespace="other"))
    await refused(bob, binding("b", "ClusterRole/admin", person("eve")))


async def test_aggregation_needs_everything(bob: World) -> None:
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    assert await refused(bob, role("agg", aggregationRule=selector)) == (
        'clusterroles.rbac.authorization.k8s.io "agg" is forbidden: '
        "must have cluster-admin privileges to use the aggregationRule"
    )
    await bob.create(binding("root", "ClusterRole/cluster-admin", person("root")))
    stored = await bob.create(role("agg", aggregationRule=selector), user("root"))
    without = {key: value for key, value in stored.items() if key != "aggregationRule"}
    assert "cluster-admin privileges" in await refused(bob, without, update=True)


async def test_unresolved_roles_are_told(bob: World) -> None:
    await bob.create(binding("gone", "ClusterRole/gone", group("g")))
    text = await refused(bob, role("r", rule("get", "", "secrets"), namespace="default"), user("bob", "g"))
    assert text.endswith('; resolution errors: [clusterroles.rbac.authorization.k8s.io "gone" not found]')


async def test_superusers_are_free(world: World) -> None:
    await world.create(role("r", rule("*", "*", "*")), user("root", "system:masters"))
