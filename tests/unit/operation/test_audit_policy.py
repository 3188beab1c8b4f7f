"""The audit policy: files as kube-apiserver takes them, and which rule decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.apiserver.audit.policy import Level, PolicyError, Stage, load, parse
from controlplane.apiserver.routing import resolve
from controlplane.apiserver.user import UserInfo

HEAD = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
RULES: list[dict[str, Any]] = [
    {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"]},
    {"level": "None", "nonResourceURLs": ["/healthz*", "/version"]},
    {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "pods/log"]}]},
    {
        "level": "Request",
        "resources": [{"group": "apps", "resources": ["deployments/*"]}],
        "omitStages": ["RequestReceived"],
    },
    {
        "level": "RequestResponse",
        "resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["one"]}],
    },
    {"level": "Request", "namespaces": ["kube-system"]},
    {"level": "Metadata", "userGroups": ["people"], "omitManagedFields": False},
]
POLICY = parse({**HEAD, "rules": RULES, "omitManagedFields": True})


@pytest.mark.parametrize(
    ("user", "group", "method", "path", "watch", "level"),
    [
        ("system:kube-proxy", "g", "GET", "/api/v1/services", True, Level.NONE),
        ("system:kube-proxy", "g", "GET", "/api/v1/services", False, Level.NONE),
        ("ann", "people", "GET", "/api/v1/services", True, Level.METADATA),
        ("ann", "people", "GET", "/healthz/ping", False, Level.NONE),
        ("ann", "people", "GET", "/versions", False, Level.METADATA),
        ("ann", "g", "GET", "/api/v1/namespaces/a/secrets/s", False, Level.METADATA),
        ("ann", "g", "GET", "/api/v1/namespaces/a/pods/p/log", False, Level.METADATA),
        ("ann", "g", "GET", "/api/v1/namespaces/a/pods/p", False, Level.NONE),
        ("ann", "g", "PUT", "/apis/apps/v1/namespaces/a/deployments/d/scale", False, Level.REQUEST),
        ("ann", "g", "PUT", "/apis/apps/v1/namespaces/a/deployments/d", False, Level.NONE),
        ("ann", "g", "PUT", "/api/v1/namespaces/a/configmaps/one", False, Level.REQUEST_RESPONSE),
        ("ann", "g", "PUT", "/api/v1/namespaces/a/configmaps/two", False, Level.NONE),
        ("ann", "g", "PUT", "/api/v1/namespaces/kube-system/configmaps/two", False, Level.REQUEST),
    ],
)
def test_the_first_rule_that_matches_decides(
    user: str, group: str, method: str, path: str, watch: bool, level: Level
) -> None:
    verdict = POLICY.verdict(UserInfo(user, groups=(group,)), resolve(method, path, watch=watch))
    assert verdict.level is level


def test_stages_and_managed_fields_are_left_out_as_asked() -> None:
    scale = resolve("PUT", "/apis/apps/v1/namespaces/a/deployments/d/scale")
    verdict = POLICY.verdict(UserInfo("ann"), scale)
    assert (verdict.omit_stages, verdict.omit_managed_fields) == (frozenset({Stage.RECEIVED}), True)
    verdict = POLICY.verdict(UserInfo("ann", groups=("people",)), resolve("GET", "/api/v1/pods"))
    assert not verdict.omit_managed_fields


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "the policy: expected a mapping"),
        ({"kind": "Policy"}, "expected apiVersion audit.k8s.io/v1"),
        ({**HEAD}, "rules: at least one"),
        ({**HEAD, "rules": [{"level": "All"}]}, r"rules\[0\].level: 'All' is none of"),
        ({**HEAD, "rules": [{"level": "None", "user": []}]}, r"rules\[0\]: unknown field 'user'"),
        ({**HEAD, "rules": [{"level": "None", "users": "ann"}]}, r"rules\[0\].users: expected a list"),
        ({**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["x"]}]}, "must begin with /"),
        (
            {**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["/*"], "namespaces": ["a"]}]},
            "cannot apply to both",
        ),
        ({**HEAD, "rules": [{"level": "None", "resources": [{"group": "apps/v1"}]}]}, "without version"),
        (
            {**HEAD, "rules": [{"level": "None", "resources": [{"resourceNames": ["a"]}]}]},
            "requires at least one",
        ),
        ({**HEAD, "rules": [{"level": "None", "omitStages": ["Last"]}]}, "Last"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_the_place(document: object, text: str) -> None:
    with pytest.raises(PolicyError, match=text):
        parse(document)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("{a: ]")
    with pytest.raises(PolicyError, match=r"bad\.yaml: not valid YAML"):
        load(tmp_path / "bad.yaml")
