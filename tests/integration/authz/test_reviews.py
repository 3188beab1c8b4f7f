"""The review kinds and the 403s over HTTP, and paths that try to be something else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster
from support.policy import account, binding, person, role, rule
from yarl import URL

ROOT = "/apis/authorization.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LOCAL = f"{ROOT}/namespaces/default/localsubjectaccessreviews"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """bob views `default`; carol reads the ConfigMap `one` there."""
    async with cluster(tmp_path) as served:
        for obj in (
            binding("bob", "ClusterRole/view", person("bob"), namespace="default"),
            role("one", rule("get,list,watch", "", "configmaps", "one"), namespace="default"),
            binding("one", "Role/one", person("carol"), namespace="default"),
            binding("sa", "ClusterRole/edit", account("default", "robot"), namespace="default"),
        ):
            namespace = obj["metadata"].get("namespace")
            where = f"namespaces/{namespace}/" if namespace else ""
            await served.json("POST", f"{RBAC}/{where}{obj['kind'].lower()}s", 201, json=obj)
        yield served


def as_user(name: str, *groups: str) -> dict[str, str]:
    headers = {"Impersonate-User": name}
    if groups:
        headers["Impersonate-Group"] = groups[0]
    return headers


async def review(api: Served, spec: dict[str, Any], status: int = 201, path: str = "") -> Any:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    if path:
        body["kind"] = "LocalSubjectAccessReview"
    return await api.json("POST", path or f"{ROOT}/subjectaccessreviews", status, json=body)


PODS = {"verb": "list", "resource": "pods", "namespace": "default"}


async def test_subject_access_reviews(api: Served) -> None:
    answer = await review(api, {"user": "bob", "resourceAttributes": PODS})
    assert answer["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "bob/default" of ClusterRole "view" to User "bob"',
    }
    assert answer["spec"] == {"user": "bob", "resourceAttributes": PODS}
    secrets = {**PODS, "resource": "secrets"}
    assert (await review(api, {"user": "bob", "resourceAttributes": secrets}))["status"] == {"allowed": False}
    path = {"path": "/healthz", "verb": "get"}
    spec = {"user": "x", "groups": ["system:authenticated"], "nonResourceAttributes": path}
    assert (await review(api, spec))["status"]["allowed"] is True
    assert (await review(api, {"groups": ["system:masters"], "resourceAttributes": secrets}))["status"] == {
        "allowed": True
    }


async def test_selectors_in_reviews(api: Served) -> None:
    node = {"user": "system:node:n1", "groups": ["system:nodes"]}
    requirement = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    pods = {"verb": "list", "resource": "pods"}
    for selector, allowed in (
        ({"requirements": [requirement]}, True),
        ({"rawSelector": "spec.nodeName=n1"}, True),
        ({"rawSelector": "spec.nodeName=n2"}, False),
        ({"requirements": [{**requirement, "values": ["n1", "n2"]}]}, False),
        ({"requirements": [{**requirement, "operator": "Weird"}]}, False),
    ):
        attributes = {**pods, "fieldSelector": selector}
        answer = await review(api, {**node, "resourceAttributes": attributes})
        assert answer["status"]["allowed"] is allowed, selector
    both = {"rawSelector": "a=b", "requirements": [requirement]}
    answer = await review(api, {**node, "resourceAttributes": {**pods, "fieldSelector": both}}, 422)
    assert "may not specified at the same time as requirements" in answer["message"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"user": "x"}, 'spec.resourceAttributes: Invalid value: "null": exactly one of'),
        (
            {"user": "x", "resourceAttributes": PODS, "nonResourceAttributes": {"path": "/"}},
            "cannot be specified in combination with resourceAttributes",
        ),
        (
            {"resourceAttributes": PODS},
            'spec.user: Invalid value: "": at least one of user or group must be specified',
        ),
    ],
)
async def test_faults_of_reviews(api: Served, spec: dict[str, Any], words: str) -> None:
    answer = await review(api, spec, 422)
    assert words in answer["message"]
    assert answer["message"].startswith('SubjectAccessReview.authorization.k8s.io "" is invalid: ')


async def test_local_reviews(api: Served) -> None:
    spec = {"user": "bob", "resourceAttributes": PODS}
    assert (await review(api, spec, path=LOCAL))["status"]["allowed"] is True
    other = {"user": "bob", "resourceAttributes": {**PODS, "namespace": "other"}}
    assert "must match metadata.namespace" in (await review(api, other, 422, LOCAL))["message"]
    path = {"user": "bob", "nonResourceAttributes": {"path": "/", "verb": "get"}}
    assert "disallowed on this kind of request" in (await review(api, path, 422, LOCAL))["message"]


async def test_self_reviews(api: Served) -> None:
    body = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    url = f"{ROOT}/selfsubjectaccessreviews"
    for who, allowed in (("bob", True), ("eve", False)):
        answer = await api.json(
            "POST", url, 201, json={**body, "spec": {"resourceAttributes": PODS}}, headers=as_user(who)
        )
        assert answer["status"]["allowed"] is allowed
    sar = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "x"}}
    await api.json("POST", f"{ROOT}/subjectaccessreviews", 403, json=sar, headers=as_user("bob"))


async def test_rules_reviews(api: Served) -> None:
    url = f"{ROOT}/selfsubjectrulesreviews"
    body = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1"}
    asked = {**body, "spec": {"namespace": "default"}}
    answer = await api.json("POST", url, 201, json=asked, headers=as_user("carol"))
    status = answer["status"]
    assert {
        "verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"],
        "resourceNames": ["one"],
    } in status["resourceRules"]  # fmt: skip
    assert any("/healthz" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    assert status["incomplete"] is False
    node = as_user("system:node:n1", "system:nodes")
    status = (await api.json("POST", url, 201, json=asked, headers=node))["status"]
    assert (status["incomplete"], status["evaluationError"]) == (
        True, "node authorizer does not support user rule resolution",
    )  # fmt: skip
    refused = await api.json("POST", url, 400, json={**body, "spec": {}})
    assert refused["message"] == "no namespace on request"


async def test_names_by_field_selector(api: Served) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    carol = as_user("carol")
    await api.json("GET", f"{maps}?fieldSelector=metadata.name%3Done", headers=carol)
    for query in ("", "?fieldSelector=metadata.name%3Dtwo", "?fieldSelector=metadata.name!%3Done"):
        await api.json("GET", maps + query, 403, headers=carol)
    refused = await api.json("GET", f"{maps}?fieldSelector=metadata.name%3Dtwo", 403, headers=carol)
    assert refused["message"].startswith('configmaps "two" is forbidden: User "carol" cannot list')
    assert refused["details"] == {"name": "two", "kind": "configmaps"}


async def test_an_update_that_creates_needs_the_right_to_create(api: Served) -> None:
    updater = role("up", rule("update", "coordination.k8s.io", "leases"), namespace="default")
    await api.json("POST", f"{RBAC}/namespaces/default/roles", 201, json=updater)
    bound = binding("up", "Role/up", person("dan"), namespace="default")
    await api.json("POST", f"{RBAC}/namespaces/default/rolebindings", 201, json=bound)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}}
    url = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    refused = await api.json("PUT", url, 403, json=lease, headers=as_user("dan"))
    assert 'User "dan" cannot create resource "leases"' in refused["message"]
    stored = await api.json("PUT", url, 201, json=lease)
    await api.json("PUT", url, json=stored, headers=as_user("dan"))


async def test_the_words_of_a_403(api: Served) -> None:
    refused = await api.json("DELETE", "/apis/apps/v1/namespaces/default/deployments/d", 403,
                             headers=as_user("bob"))  # fmt: skip
    assert refused["message"] == (
        'deployments.apps "d" is forbidden: User "bob" cannot delete resource "deployments" in API group "apps" '
        'in the namespace "default"'
    )
    assert refused["details"] == {"name": "d", "group": "apps", "kind": "deployments"}
    gone = binding("gone", "ClusterRole/gone", person("bob"))
    await api.json("POST", f"{RBAC}/clusterrolebindings", 201, json=gone)
    refused = await api.json("GET", "/api/v1/nodes", 403, headers=as_user("bob"))
    assert refused["message"].endswith(
        'at the cluster scope: RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found'
    )
    refused = await api.json("GET", "/metrics", 403, headers=as_user("<eve>"))
    assert refused["message"].startswith('forbidden: User "&lt;eve&gt;" cannot get path "/metrics"')


TRICKS = (
    "/api/v1/namespaces/default/../kube-system/secrets",
    "/api/v1/namespaces/default/pods/..%2f..%2fkube-system%2fsecrets",
    "/api/v1/namespaces/default%2f..%2fkube-system/pods",
    "/api/v1/namespaces/default/pods/%2e%2e/secrets",
    "/api/v1/namespaces/default/pods/%252e%252e/secrets",
    "/api/v1/namespaces/default/pods%2f..%2fsecrets",
    "/api/v1/namespaces/default/Secrets",
    "/api/v1/namespaces/default/secrets/",
    "/api/v1/namespaces/default//secrets",
    "/api/v1/namespaces/default/./secrets",
    "//api/v1/namespaces/default/secrets",
    "/API/v1/namespaces/default/secrets",
    "/api/v1/namespaces/kube-system/pods",
    "/api/v1/namespaces/default%00/pods",
    "/api/v1/namespaces/DEFAULT/pods",
    "/api/v1/secrets?namespace=default",
    "/api/v1/namespaces/default/pods/../secrets",
    "/api/v1/%6eamespaces/default/%73ecrets",
    "/apis//v1/namespaces/default/secrets",
    "/api/v1/watch/namespaces/default/secrets",
    "/api/v1/proxy/namespaces/default/pods/x",
    "/healthz/../api/v1/secrets",
    "/version/%2e%2e/metrics",
    "/openapi/..%2fmetrics",
    "/%6detrics",
    "/metrics/",
)


async def test_tricks_with_paths_open_nothing(api: Served) -> None:
    """bob may read pods of `default`; nothing else behind whatever spelling."""
    secret = {"metadata": {"name": "s"}, "stringData": {"k": "hidden-value"}}
    for namespace in ("default", "kube-system"):
        await api.json("POST", f"/api/v1/namespaces/{namespace}/secrets", 201, json=secret)
    for path in TRICKS:
        url = URL(api.url + path, encoded=True)
        for method in ("GET", "POST", "DELETE", "OPTIONS", "PUT"):
            async with api.session.request(
                method, url, headers=as_user("bob"), allow_redirects=False
            ) as answer:
                body = await answer.text()
                assert answer.status in (400, 403, 404, 405), (method, path, answer.status, body)
                assert "hidden-value" not in body


async def test_explanations(api: Served) -> None:
    page = "/debug/authorization/explain"
    asked = {
        "user": "bob",
        "group": "system:authenticated",
        "verb": "get",
        "resource": "pods",
        "namespace": "default",
    }
    found = await api.json("GET", page, params=asked)
    assert found["allowed"] is True
    assert found["authorizer"] == "RBAC"
    assert (found["binding"]["name"], found["binding"]["role"]["name"]) == ("bob", "view")
    assert "pods" in found["rule"]["resources"]
    found = await api.json("GET", page, params={**asked, "verb": "delete"})
    assert found["allowed"] is False
    assert [each["authorizer"] for each in found["opinions"]] == ["Node", "RBAC"]
    assert found["bindings"][0]["name"] == "bob"
    assert 'Resources:["configmaps"' in found["bindings"][0]["nearest"][0]
    node = {"user": "system:node:n1", "group": "system:nodes", "verb": "list", "resource": "nodes"}
    found = await api.json("GET", page, params=node)
    assert found["opinions"][0]["reason"] == "node 'n1' cannot read all nodes, only its own Node object"
    masters = {"user": "root", "group": "system:masters", "verb": "list", "resource": "nodes"}
    assert (await api.json("GET", page, params=masters))["authorizer"] == "system:masters"
    who = {"verb": "get", "resource": "configmaps", "namespace": "default", "name": "one"}
    found = await api.json("GET", "/debug/authorization/who-can", params=who)
    names = {(each["kind"], each["name"]) for each in found["subjects"]}
    assert {
        ("User", "bob"),
        ("User", "carol"),
        ("ServiceAccount", "robot"),
        ("Group", "system:masters"),
    } <= names
    await api.json("GET", page, 400, params={"user": "x"})
    await api.json("GET", page, 403, params=asked, headers=as_user("bob"))
