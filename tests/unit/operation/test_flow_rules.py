"""Which FlowSchema a request belongs to, and what levels the objects make."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.apiserver.flowcontrol.follow import levels_of
from controlplane.apiserver.flowcontrol.rules import classify, in_order, schema_of
from controlplane.apiserver.routing import RequestInfo, resolve
from controlplane.apiserver.user import UserInfo


def schema(
    name: str, precedence: int, subject: dict[str, Any], rule: dict[str, Any], by: str = "ByUser"
) -> dict[str, Any]:
    kind = "resourceRules" if "resources" in rule else "nonResourceRules"
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {
            "priorityLevelConfiguration": {"name": f"level-{name}"},
            "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": by},
            "rules": [{"subjects": [subject], kind: [rule]}],
        },
    }


ANY = {"kind": "Group", "group": {"name": "*"}}
PODS = {"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}
SCHEMAS = in_order(
    [
        schema_of(obj)
        for obj in (
            schema("rest", 9000, ANY, {**PODS, "resources": ["*"], "apiGroups": ["*"], "clusterScope": True}),
            schema("paths", 8000, ANY, {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}),
            schema("pods", 500, {"kind": "User", "user": {"name": "ann"}}, PODS, "ByNamespace"),
            schema(
                "accounts",
                400,
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "ci", "name": "*"}},
                {**PODS, "resources": ["pods/log"]},
            ),
        )
    ]
)


def info(path: str, method: str = "GET") -> RequestInfo:
    return resolve(method, path)


@pytest.mark.parametrize(
    ("user", "path", "name", "distinguisher"),
    [
        ("ann", "/api/v1/namespaces/a/pods", "pods", "a"),
        ("bob", "/api/v1/namespaces/a/pods", "rest", "bob"),
        ("ann", "/api/v1/pods", "rest", "ann"),
        ("ann", "/apis/apps/v1/namespaces/a/deployments", "rest", "ann"),
        ("ann", "/healthz", "paths", "ann"),
        ("ann", "/api/v1", "paths", "ann"),
        ("system:serviceaccount:ci:x", "/api/v1/namespaces/a/pods/p/log", "accounts", None),
        ("system:serviceaccount:cinema:x", "/api/v1/namespaces/a/pods/p/log", "rest", None),
        ("system:serviceaccount:ci:x", "/api/v1/namespaces/a/pods/p", "rest", None),
    ],
)
def test_the_first_schema_by_precedence_takes_the_request(
    user: str, path: str, name: str, distinguisher: str | None
) -> None:
    flow = classify(SCHEMAS, UserInfo(user, groups=("g",)), info(path))
    assert flow is not None
    assert flow.schema.name == name
    assert flow.distinguisher == (user if distinguisher is None else distinguisher)


def test_what_no_schema_knows_belongs_to_none() -> None:
    assert classify(SCHEMAS, UserInfo("ann", groups=("g",)), info("/metrics")) is None


def test_levels_share_the_seats() -> None:
    def level(name: str, shares: int | None, response: dict[str, Any] | None) -> dict[str, Any]:
        limited: dict[str, Any] = {"limitResponse": response}
        if shares is not None:
            limited["nominalConcurrencyShares"] = shares
        return {"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}}

    objects = [
        {
            "metadata": {"name": "exempt"},
            "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}},
        },
        level(
            "queued", None, {"type": "Queue", "queuing": {"queues": 3, "handSize": 2, "queueLengthLimit": 7}}
        ),
        level("strict", 10, {"type": "Reject"}),
    ]
    exempt, queued, strict = levels_of(objects, 100)
    assert (exempt.exempt, queued.exempt) == (True, False)
    assert (queued.seats, queued.queues, queued.hand_size, queued.queue_length) == (75, 3, 2, 7)
    assert (strict.seats, strict.queues) == (25, 0)
