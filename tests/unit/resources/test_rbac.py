"""Role, ClusterRole and bindings: defaults, faults in upstream's words, rows, aggregation."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.errors import Object
from controlplane.resources.catalog import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from controlplane.resources.kind import Kind
from controlplane.resources.rbac import aggregated_rules, path_segment

GROUP = "rbac.authorization.k8s.io"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def faults(kind: Kind, obj: Object) -> list[tuple[str, str]]:
    kind.default(obj)
    return [(cause.field, cause.message) for cause in kind.validate(obj)]


def test_defaults() -> None:
    binding: Object = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
    }
    assert faults(ROLE_BINDING, binding) == []
    assert binding["roleRef"]["apiGroup"] == GROUP
    assert [subject.get("apiGroup") for subject in binding["subjects"]] == [GROUP, None]
    role: Object = {"metadata": {"name": "r"}}
    assert faults(ROLE, role) == []
    assert role["rules"] is None


@pytest.mark.parametrize(
    ("kind", "rule", "field", "message"),
    [
        (ROLE, {}, "rules[0].verbs", "Required value: verbs must contain at least one value"),
        (ROLE, {"verbs": ["get"]}, "rules[0].apiGroups",
         "Required value: resource rules must supply at least one api group"),
        (ROLE, {"verbs": ["get"], "apiGroups": [""]}, "rules[0].resources",
         "Required value: resource rules must supply at least one resource"),
        (ROLE, {"verbs": ["get"], "nonResourceURLs": ["/x"]}, "rules[0].nonResourceURLs",
         'Invalid value: []string{"/x"}: namespaced rules cannot apply to non-resource URLs'),
        (CLUSTER_ROLE, {"verbs": ["get"], "nonResourceURLs": ["/x"], "apiGroups": [""]},
         "rules[0].nonResourceURLs",
         'Invalid value: []string{"/x"}: rules cannot apply to both regular resources and non-resource URLs'),
    ],
)  # fmt: skip
def test_faults_of_rules(kind: Kind, rule: Object, field: str, message: str) -> None:
    assert (field, message) in faults(kind, {"metadata": {"name": "r"}, "rules": [rule]})


def test_faults_of_aggregation() -> None:
    role: Object = {"metadata": {"name": "r"}, "aggregationRule": {}}
    assert faults(CLUSTER_ROLE, role) == [
        (
            "aggregationRule.clusterRoleSelectors",
            "Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
        )
    ]


@pytest.mark.parametrize(
    ("kind", "change", "field", "message"),
    [
        (ROLE_BINDING, {"roleRef": {"kind": "Other", "name": "r"}}, "roleRef.kind",
         'Unsupported value: "Other": supported values: "Role", "ClusterRole"'),
        (CLUSTER_ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "r"}}, "roleRef.kind",
         'Unsupported value: "Role": supported values: "ClusterRole"'),
        (ROLE_BINDING, {"roleRef": {"kind": "Role", "name": ""}}, "roleRef.name", "Required value"),
        (ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "a/b"}}, "roleRef.name",
         'Invalid value: "a/b": may not contain \'/\''),
        (ROLE_BINDING, {"roleRef": {"kind": "Role", "name": "r", "apiGroup": "x"}}, "roleRef.apiGroup",
         f'Unsupported value: "x": supported values: "{GROUP}"'),
        (ROLE_BINDING, {"subjects": [{"kind": "User"}]}, "subjects[0].name", "Required value"),
        (ROLE_BINDING, {"subjects": [{"kind": "Robot", "name": "x"}]}, "subjects[0].kind",
         'Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"'),
        (ROLE_BINDING, {"subjects": [{"kind": "ServiceAccount", "name": "x", "apiGroup": "y"}]},
         "subjects[0].apiGroup", 'Unsupported value: "y": supported values: ""'),
        (CLUSTER_ROLE_BINDING, {"subjects": [{"kind": "ServiceAccount", "name": "x"}]},
         "subjects[0].namespace", "Required value"),
        (ROLE_BINDING, {"subjects": [{"kind": "Group", "name": "x", "apiGroup": "y"}]},
         "subjects[0].apiGroup", f'Unsupported value: "y": supported values: "{GROUP}"'),
    ],
)  # fmt: skip
def test_faults_of_bindings(kind: Kind, change: Object, field: str, message: str) -> None:
    binding = {"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"}, **change}
    assert (field, message) in faults(kind, binding)


def test_a_role_reference_cannot_change() -> None:
    old: Object = {"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "a"}}
    new: Object = {"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "b"}}
    (cause,) = ROLE_BINDING.validate_update(new, old)
    assert (cause.field, cause.message) == (
        "roleRef",
        f'Invalid value: rbac.RoleRef{{APIGroup:"{GROUP}", Kind:"Role", Name:"b"}}: cannot change roleRef',
    )
    assert ROLE_BINDING.validate_update(old, dict(old)) == []


def test_names_are_path_segments() -> None:
    assert path_segment("system:node") == []
    assert path_segment("With Blanks") == []
    assert path_segment("..") == ["may not be '..'"]
    assert path_segment("a/b%c") == ["may not contain '/'", "may not contain '%'"]


def test_rows() -> None:
    binding: Object = {
        "metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [
            {"kind": "User", "name": "u"},
            {"kind": "User", "name": "v"},
            {"kind": "Group", "name": "g"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
        ],
    }
    assert ROLE_BINDING.row is not None
    assert ROLE_BINDING.row(binding, NOW) == ("b", "Role/r", "24h", "u, v", "g", "n/s")
    assert CLUSTER_ROLE.row is not None
    assert CLUSTER_ROLE.row(binding, NOW) == ("b", "2026-01-01T00:00:00Z")


def test_aggregation() -> None:
    def role(name: str, rules: list[Object], **labels: str) -> Object:
        return {"metadata": {"name": name, "labels": labels}, "rules": rules}

    one, two = {"verbs": ["get"], "resources": ["a"]}, {"verbs": ["get"], "resources": ["b"]}
    whole = role("whole", [], to="x")
    whole["aggregationRule"] = {
        "clusterRoleSelectors": [
            {"matchLabels": {"to": "x"}},
            {"matchExpressions": [{"key": "k", "operator": "Exists"}]},
        ]
    }
    roles = [role("z", [one, two], to="x"), role("a", [two], to="x"), role("k", [one], k=""), whole]
    assert aggregated_rules(whole, roles) == [two, one]
    assert aggregated_rules(roles[0], roles) is None
