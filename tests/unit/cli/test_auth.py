"""`netkit auth`: what is asked, what is printed, and the exit code."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from controlplane.client.transport import Response
from netkit.cli.main import app
from netkit.cluster import authorization
from netkit.cluster.authorization import Action, groups_of

ALLOWED = {
    "allowed": True, "known": True, "user": "bob", "groups": ["system:authenticated"], "authorizer": "RBAC",
    "action": "list pods in namespace default", "reason": "RBAC: allowed by ...", "opinions": [],
    "binding": {"kind": "RoleBinding", "name": "b", "namespace": "default",
                "role": {"kind": "ClusterRole", "name": "view"}},
    "rule": {}, "ruleText": '{APIGroups:[""], Resources:["pods"], Verbs:["list"]}',
}  # fmt: skip
REFUSED = {
    "allowed": False, "known": False, "user": "bob", "groups": ["system:authenticated"], "authorizer": "",
    "action": "delete unicorns", "reason": "", "error": "", "refusal": "...",
    "opinions": [{"authorizer": "Node", "decision": "no opinion", "reason": "", "error": ""},
                 {"authorizer": "RBAC", "decision": "no opinion", "reason": "RBAC: x not found", "error": ""}],
    "bindings": [{"kind": "ClusterRoleBinding", "name": "c", "namespace": "", "error": "x not found",
                  "role": {"kind": "ClusterRole", "name": "gone"}, "nearest": ["{...}"]}],
}  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *arguments: str) -> Any:
    asked: list[Any] = []

    def explain(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return answer

    monkeypatch.setattr(authorization, "explain", explain)
    result = CliRunner().invoke(app, ["auth", "explain", *arguments])
    return result, asked[0]


def test_an_allowed_action(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = run(
        monkeypatch, ALLOWED, "bob", "list", "pods", "x", "-n", "default", "--as-group", "a", "--as-group",
        "b", "--subresource", "log", "-p", "blue",
    )  # fmt: skip
    assert result.exit_code == 0
    assert asked == ("blue", "bob", ["a", "b"], Action("list", "pods", "x", "default", "log"))
    lines = result.output.splitlines()
    assert lines[0] == "yes: bob may list pods in namespace default"
    assert "  binding     RoleBinding default/b" in lines
    assert "  role        ClusterRole view" in lines
    assert '  rule        {APIGroups:[""], Resources:["pods"], Verbs:["list"]}' in lines


def test_a_refused_action(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = run(monkeypatch, REFUSED, "bob", "delete", "unicorns", "-A")
    assert result.exit_code == 1
    assert asked[3].namespace == ""
    assert result.output.startswith("no: bob may not delete unicorns\n")
    assert "the server serves no such resource" in result.output
    assert "  RBAC        no opinion: RBAC: x not found" in result.output
    assert "  ClusterRoleBinding c -> ClusterRole gone\n      x not found\n      {...}\n" in result.output


def test_json_is_the_answer_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = run(monkeypatch, REFUSED, "bob", "delete", "unicorns", "-o", "json")
    assert (json.loads(result.output), result.exit_code) == (REFUSED, 1)


def test_who_can(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = [
        {"kind": "Group", "name": "system:masters", "namespace": "", "by": "system:masters"},
        {
            "kind": "ServiceAccount",
            "name": "s",
            "namespace": "n",
            "by": "RBAC",
            "binding": ALLOWED["binding"],
        },
    ]
    value = {"subjects": subjects, "authorizers": ["Node", "RBAC"]}
    monkeypatch.setattr(authorization, "who_can", lambda *_: value)
    result = CliRunner().invoke(app, ["auth", "who-can", "list", "pods"])
    lines = result.output.splitlines()
    assert lines[1].split() == ["Group", "system:masters", "always"]
    assert lines[2].split() == [
        "ServiceAccount", "n/s", "RoleBinding", "default/b", "->", "ClusterRole", "view",
    ]  # fmt: skip
    assert lines[-1].endswith("not listed here: Node.")


@pytest.mark.parametrize(
    ("user", "given", "expected"),
    [
        ("bob", ["team"], ["team", "system:authenticated"]),
        ("kubernetes-admin", [], ["system:masters", "system:authenticated"]),
        ("system:anonymous", [], ["system:unauthenticated"]),
        ("system:node:n1", [], ["system:nodes", "system:authenticated"]),
        ("system:serviceaccount:a:b", [],
         ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]),
        ("system:serviceaccount:a", [], ["system:authenticated"]),
    ],
)  # fmt: skip
def test_groups(user: str, given: list[str], expected: list[str]) -> None:
    assert groups_of(user, given) == expected


class Discovery:
    """Answers aggregated discovery."""

    async def raw(self, method: str, path: str, headers: Any = None) -> Response:
        def entry(resource: str, scope: str, *short: str) -> dict[str, Any]:
            return {
                "resource": resource, "singularResource": resource[:-1], "scope": scope, "shortNames": short,
            }  # fmt: skip

        core = [{"metadata": {}, "versions": [{"resources": [entry("pods", "Namespaced", "po"),
                                                             entry("nodes", "Cluster", "no")]}]}]  # fmt: skip
        apps = [{"metadata": {"name": "apps"}, "versions": [{"resources": [entry("deployments", "Namespaced",
                                                                                 "deploy")]}]}]  # fmt: skip
        return Response(200, {}, orjson.dumps({"items": core if path == "/api" else apps}))


@pytest.mark.parametrize(
    ("action", "query", "text"),
    [
        (Action("get", "po", namespace="ns"), {"resource": "pods", "namespace": "ns"},
         "get pods in namespace ns"),
        (Action("get", "node", "n", "ns"), {"resource": "nodes", "name": "n"},
         'get nodes "n" at the cluster scope'),
        (Action("update", "deploy/scale"),
         {"resource": "deployments", "apiGroup": "apps", "subresource": "scale"},
         "update deployments.apps/scale in all namespaces"),
        (Action("get", "deployments.apps"), {"resource": "deployments", "apiGroup": "apps"},
         "get deployments.apps in all namespaces"),
        (Action("get", "/healthz"), {"path": "/healthz"}, "get /healthz"),
        (Action("use", "things.example.com"), {"resource": "things", "apiGroup": "example.com"},
         "use things.example.com in all namespaces"),
    ],
)  # fmt: skip
async def test_what_is_asked(action: Action, query: dict[str, str], text: str) -> None:
    resolved = await authorization._resolve(Discovery(), action)  # type: ignore[arg-type]
    assert dict(resolved.query) == {"verb": action.verb, **query}
    assert resolved.text == text
    assert resolved.known is (action.resource != "things.example.com")
