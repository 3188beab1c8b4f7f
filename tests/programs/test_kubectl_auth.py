"""kubectl auth and RBAC with the real kubectl: can-i in all forms, reconcile, roles and bindings, refusals."""

from __future__ import annotations

import json

import pytest
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

pytestmark = pytest.mark.kubectl

POLICY = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [one], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}
- {kind: ServiceAccount, name: robot, namespace: default}
"""


async def can_i(kubectl: Kubectl, *arguments: str) -> str:
    """The answer and its exit code must fit."""
    result = await kubectl.run("auth", "can-i", *arguments)
    answer = result.out.strip().splitlines()[-1]
    assert (answer.split(" ")[0], result.code) in (("yes", 0), ("no", 1)), result
    return answer


@needs_kubectl(27)
async def test_can_i(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("policy.yaml", POLICY))
    assert await can_i(kubectl, "create", "pods", "--all-namespaces") == "yes"
    assert await can_i(kubectl, "*", "*") == "yes"
    bob = "--as=bob"
    for arguments, expected in (
        (("list", "pods"), "yes"),
        (("list", "po"), "yes"),
        (("list", "pods", "-n", "kube-system"), "no"),
        (("list", "pods", "-A"), "no"),
        (("delete", "pods"), "no"),
        (("get", "configmaps/one"), "yes"),
        (("get", "configmaps", "one"), None),
        (("get", "configmaps/two"), "no"),
        (("get", "pods", "--subresource=log"), "no"),
        (("list", "deployments.apps"), "no"),
        (("get", "/healthz"), "yes"),
        (("get", "/metrics"), "no"),
    ):
        if expected is not None:
            assert await can_i(kubectl, *arguments, bob) == expected, arguments
    assert await can_i(kubectl, "list", "pods", "--as=system:serviceaccount:default:robot") == "yes"
    assert await can_i(kubectl, "list", "nodes", "--as=eve", "--as-group=system:masters") == "yes"
    quiet = await kubectl.run("auth", "can-i", "list", "pods", bob, "--quiet")
    assert (quiet.code, quiet.out) == (0, "")
    result = await kubectl.run("auth", "can-i", "get", "unicorns", bob)
    assert "the server doesn't have a resource type" in result.err
    assert (result.out.strip(), result.code) == ("no", 1)


@needs_kubectl(27)
async def test_can_i_list(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("policy.yaml", POLICY))
    lines = (await kubectl("auth", "can-i", "--list", "--as=bob")).splitlines()
    assert lines[0].split() == ["Resources", "Non-Resource", "URLs", "Resource", "Names", "Verbs"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows["pods"].split(maxsplit=3) == ["pods", "[]", "[]", "[get list]"]
    assert rows["configmaps"].split() == ["configmaps", "[]", "[one]", "[get]"]
    assert "selfsubjectaccessreviews.authorization.k8s.io" in rows
    assert any("[/healthz]" in line for line in lines)
    root = await kubectl("auth", "can-i", "--list", "--as=root", "--as-group=system:masters")
    assert "*.*" in root


@needs_kubectl(27)
async def test_refusals(kubectl: Kubectl) -> None:
    assert await kubectl.fails("get", "pods", "--as=eve") == (
        'Error from server (Forbidden): pods is forbidden: User "eve" cannot list resource "pods" in API group "" '
        'in the namespace "default"\n'
    )
    assert await kubectl.fails("get", "deploy/x", "-n", "other", "--as=eve") == (
        'Error from server (Forbidden): deployments.apps "x" is forbidden: User "eve" cannot get resource '
        '"deployments" in API group "apps" in the namespace "other"\n'
    )
    await kubectl("create", "clusterrolebinding", "rw", "--clusterrole=edit", "--user=eve", "--group=writers")
    role = ("create", "role", "r", "--verb=get,list", "--resource=pods,secrets", "--as=eve")
    assert "cannot create resource" in await kubectl.fails(*role)
    await kubectl("create", "clusterrole", "roles", "--verb=create", "--resource=roles,rolebindings")
    await kubectl("create", "clusterrolebinding", "roles", "--clusterrole=roles", "--user=eve")
    await kubectl(*role)
    refused = await kubectl.fails("create", "role", "s", "--verb=get,delete", "--resource=nodes", "--as=eve")
    assert refused == (
        'Error from server (Forbidden): roles.rbac.authorization.k8s.io "s" is forbidden: user "eve" '
        '(groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["nodes"], Verbs:["get" "delete"]}\n'
    )
    refused = await kubectl.fails(
        "create", "rolebinding", "a", "--clusterrole=admin", "--user=eve", "--as=eve"
    )
    assert "is attempting to grant RBAC permissions not currently held:" in refused
    assert '{APIGroups:["rbac.authorization.k8s.io"], Resources:["roles"]' in refused
    refused = await kubectl.fails(
        "create", "rolebinding", "a", "--clusterrole=none", "--user=eve", "--as=eve"
    )
    assert 'clusterroles.rbac.authorization.k8s.io "none" not found' in refused


@needs_kubectl(27)
async def test_reconcile(kubectl: Kubectl) -> None:
    path = kubectl.write("policy.yaml", POLICY)

    async def reconcile(*options: str) -> str:
        result = await kubectl.run("auth", "reconcile", "-f", path, *options)
        assert result.code == 0, result.err
        return result.out + result.err

    first = await reconcile()
    assert "role.rbac.authorization.k8s.io/reader reconciled" in first
    assert "rolebinding.rbac.authorization.k8s.io/reader reconciled" in first
    kubectl.write("policy.yaml", POLICY.replace("verbs: [get, list]", "verbs: [get, watch]"))
    second = await reconcile()
    assert "missing rules added" in second
    rules = json.loads(await kubectl("get", "role", "reader", "-o", "json"))["rules"]
    verbs = {verb for rule in rules if rule["resources"] == ["pods"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
    third = await reconcile("--remove-extra-permissions", "--remove-extra-subjects")
    assert "extra rules removed" in third
    kubectl.write("policy.yaml", POLICY.replace("name: reader}\nsubjects", "name: other}\nsubjects"))
    fourth = await reconcile()
    assert "reconciliation required recreate" in fourth
    bound = json.loads(await kubectl("get", "rolebinding", "reader", "-o", "json"))
    assert bound["roleRef"]["name"] == "other"
    dry = await reconcile("--dry-run=client")
    assert "reconciled (dry run)" in dry


@needs_kubectl(27)
async def test_roles_and_bindings_print(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("policy.yaml", POLICY))
    lines = (await kubectl("get", "role,rolebinding")).splitlines()
    assert lines[0].split() == ["NAME", "CREATED", "AT"]
    assert lines[1].split()[0] == "role.rbac.authorization.k8s.io/reader"
    binding = next(line for line in lines if "rolebinding" in line)
    assert binding.split()[:2] == ["rolebinding.rbac.authorization.k8s.io/reader", "Role/reader"]
    wide = (await kubectl("get", "rolebinding", "-o", "wide")).splitlines()
    assert wide[0].split() == ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]
    assert wide[1].split()[-2:] == ["bob", "default/robot"]
    described = await kubectl("describe", "role", "reader")
    assert "pods        []                 []              [get list]" in described
    described = await kubectl("describe", "rolebinding", "reader")
    assert "ServiceAccount  robot  default" in described
    assert "cluster-admin" in await kubectl("get", "clusterroles")
    assert "*.*" in await kubectl("describe", "clusterrole", "cluster-admin")
    explained = await kubectl("explain", "clusterrole.aggregationRule.clusterRoleSelectors")
    assert "matchLabels" in explained
    created = await kubectl(
        "create", "clusterrole", "agg", "--aggregation-rule=a=b", "--dry-run=server", "-o", "yaml"
    )
    assert "rules: []" in created or "rules: null" in created


@needs_kubectl(27)
async def test_a_role_reference_cannot_be_changed(kubectl: Kubectl) -> None:
    path = kubectl.write("policy.yaml", POLICY)
    await kubectl("apply", "-f", path)
    kubectl.write("policy.yaml", POLICY.replace("name: reader}\nsubjects", "name: other}\nsubjects"))
    refused = await kubectl.fails("apply", "-f", path)
    assert refused == (
        'The RoleBinding "reader" is invalid: roleRef: Invalid value: rbac.RoleRef{APIGroup:'
        '"rbac.authorization.k8s.io", Kind:"Role", Name:"other"}: cannot change roleRef\n'
    )
