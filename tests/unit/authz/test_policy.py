"""The default roles and bindings: complete, valid, and reconciled at every start."""

from __future__ import annotations

from typing import Any

import pytest
from support.policy import World, person, role, rule, user

from controlplane.apiserver.authz.default_policy import AUTOUPDATE, default_objects
from controlplane.apiserver.authz.rules import missing
from controlplane.apiserver.policy_bootstrap import bootstrap_policy
from controlplane.errors import Object
from controlplane.meta.objects import clone, name, namespace
from controlplane.resources.catalog import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, KINDS, by_kind
from controlplane.resources.metadata import validate_metadata
from controlplane.resources.rbac import aggregated_rules

DEFAULTS = list(default_objects())


def stored(world: World, obj: Object) -> Object:
    kind = by_kind(obj["apiVersion"], obj["kind"])
    assert kind is not None
    found = world.registry.present_cache(kind).get(namespace(obj), name(obj))
    assert found is not None, name(obj)
    return found.object


@pytest.mark.parametrize("obj", DEFAULTS, ids=lambda obj: f"{obj['kind']}-{obj['metadata']['name']}")
def test_every_default_is_valid(obj: Object) -> None:
    kind = by_kind(obj["apiVersion"], obj["kind"])
    assert kind is not None
    copy = clone(obj)
    kind.default(copy)
    assert [*validate_metadata(kind, copy), *kind.validate(copy)] == []
    assert copy["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"


def test_every_binding_leads_to_a_role() -> None:
    roles = {(obj["kind"], namespace(obj), name(obj)) for obj in DEFAULTS if "roleRef" not in obj}
    for obj in DEFAULTS:
        if "roleRef" in obj:
            reference = obj["roleRef"]
            space = "" if reference["kind"] == "ClusterRole" else namespace(obj)
            assert (reference["kind"], space, reference["name"]) in roles


def test_well_known_ones() -> None:
    names = {name(obj) for obj in DEFAULTS if obj["kind"] == "ClusterRole"}
    assert {
        "cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user", "system:node",
        "system:public-info-viewer", "system:node-proxier", "system:kube-scheduler", "system:monitoring",
        "system:kube-controller-manager", "system:auth-delegator", "system:service-account-issuer-discovery",
        "system:volume-scheduler", "system:aggregate-to-admin", "system:aggregate-to-edit",
        "system:aggregate-to-view", "system:controller:deployment-controller",
        "system:certificates.k8s.io:kubelet-serving-approver", "system:node-bootstrapper",
    } <= names  # fmt: skip
    assert len(names) == 65


async def test_aggregated_roles_count_from_the_first_moment(world: World) -> None:
    view, edit, admin = (stored(world, {"apiVersion": CLUSTER_ROLE.api_version, "kind": "ClusterRole",
                                        "metadata": {"name": n}}) for n in ("view", "edit", "admin"))  # fmt: skip
    assert missing(edit["rules"], view["rules"]) == []
    assert missing(admin["rules"], edit["rules"]) == []
    assert missing(view["rules"], [rule("get", "", "secrets")])
    assert missing(edit["rules"], [rule("create", "rbac.authorization.k8s.io", "roles")])
    every = [s.object for _, s in world.registry.present_cache(CLUSTER_ROLE).scan()]
    for each in (view, edit, admin):
        assert aggregated_rules(each, every) == each["rules"]


async def test_a_second_start_changes_nothing(world: World) -> None:
    before = {key: s.revision for key, s in world.registry.present_cache(CLUSTER_ROLE).scan()}
    await bootstrap_policy(world.registry)
    assert {key: s.revision for key, s in world.registry.present_cache(CLUSTER_ROLE).scan()} == before


async def test_what_was_taken_away_comes_back_and_what_was_added_stays(world: World) -> None:
    scheduler = next(obj for obj in DEFAULTS if name(obj) == "system:kube-scheduler" and "rules" in obj)
    present = clone(stored(world, scheduler))
    present["rules"] = [rule("get", "example.com", "things"), *present["rules"][3:]]
    present["metadata"]["labels"] = {"mine": "yes"}
    await world.update(present)
    bound = next(obj for obj in DEFAULTS if name(obj) == "system:node-proxier" and "roleRef" in obj)
    await world.update({**clone(stored(world, bound)), "subjects": [person("eve")]})
    gone = next(obj for obj in DEFAULTS if name(obj) == "system:monitoring" and "rules" in obj)
    await world.delete(stored(world, gone))
    protected = next(obj for obj in DEFAULTS if name(obj) == "system:discovery" and "rules" in obj)
    tamed = clone(stored(world, protected))
    tamed["metadata"]["annotations"][AUTOUPDATE] = "false"
    tamed["rules"] = [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]
    await world.update(tamed)

    await bootstrap_policy(world.registry)

    again = stored(world, scheduler)
    assert missing(again["rules"], scheduler["rules"]) == []
    assert again["rules"][0] == rule("get", "example.com", "things")
    assert again["metadata"]["labels"] == {"kubernetes.io/bootstrapping": "rbac-defaults", "mine": "yes"}
    assert {s["name"] for s in stored(world, bound)["subjects"]} == {"eve", "system:kube-proxy"}
    assert stored(world, gone)["rules"] == gone["rules"]
    assert stored(world, protected)["rules"] == tamed["rules"]


async def test_a_binding_to_another_role_is_made_anew(world: World) -> None:
    bound = next(obj for obj in DEFAULTS if name(obj) == "system:kube-dns" and "roleRef" in obj)
    await world.delete(stored(world, bound))
    await world.create({**clone(bound), "roleRef": {**bound["roleRef"], "name": "view"}})
    await bootstrap_policy(world.registry)
    assert stored(world, bound)["roleRef"]["name"] == "system:kube-dns"


async def test_additional_policy_is_treated_alike(world: World) -> None:
    extra: list[Any] = [role("mine", rule("get", "", "pods"))]
    await bootstrap_policy(world.registry, extra)
    found = stored(world, extra[0])
    await world.update({**clone(found), "rules": [rule("list", "", "pods")]})
    await bootstrap_policy(world.registry, [role("mine", rule("get", "", "pods"))])
    assert len(stored(world, extra[0])["rules"]) == 2


async def test_controllers_are_bound_to_their_own_roles(world: World) -> None:
    who = user("system:serviceaccount:kube-system:replicaset-controller")
    assert await world.may(who, "create", "pods", "default")
    assert not await world.may(who, "create", "deployments.apps", "default")
    assert world.registry.present_cache(CLUSTER_ROLE_BINDING).get(
        "", "system:controller:replicaset-controller"
    )
    assert KINDS
