"""What the audit log says of real requests, under a policy like the one of Kubernetes' documentation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster

from controlplane.apiserver.operation import OperationSettings
from controlplane.apiserver.registry import Registry

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  resources: [{group: "", resources: [pods]}]
- level: Metadata
  resources: [{group: "", resources: [pods/log, pods/status]}]
- level: None
  resources: [{group: "", resources: [configmaps], resourceNames: [controller-leader]}]
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", /version]
- level: Request
  resources: [{group: "", resources: [configmaps]}]
  namespaces: [kube-system]
- level: Metadata
  resources: [{group: "", resources: [secrets, configmaps]}]
- level: Request
  omitManagedFields: true
  resources: [{group: ""}, {group: extensions}]
- level: Metadata
  omitStages: [RequestReceived]
"""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    operation = OperationSettings(audit_policy_file=policy, audit_log_path=tmp_path / "logs" / "audit.log")
    async with cluster(tmp_path, operation=operation) as served:
        yield served


class Log:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "logs" / "audit.log"

    def events(self, **wanted: str) -> list[dict[str, Any]]:
        """Of those with these verbs or resources, oldest first."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        for key, value in wanted.items():
            found = [one for one in found if (one.get("objectRef", {}).get(key) or one.get(key)) == value]
        return found


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


PODS = "/api/v1/namespaces/default/pods"


async def test_levels_as_the_policy_says(api: Served, log: Log) -> None:
    await api.json("POST", PODS, 201, json=pod("a"))
    (made,) = log.events(resource="pods", verb="create")
    assert made["level"] == "RequestResponse"
    assert made["stage"] == "ResponseComplete"
    assert made["requestObject"]["metadata"]["name"] == "a"
    assert made["responseObject"]["metadata"]["uid"]
    assert made["objectRef"]["name"] == "a"
    maps = "/api/v1/namespaces/{}/configmaps"
    body = {"metadata": {"name": "m"}, "data": {"a": "1"}}
    await api.json("POST", maps.format("default"), 201, json=body)
    await api.json("POST", maps.format("kube-system"), 201, json=body)
    await api.json("GET", maps.format("default") + "/controller-leader", 404)
    await api.json("GET", "/version")
    plain, full = log.events(resource="configmaps", verb="create")
    assert plain["level"] == "Metadata"
    assert "requestObject" not in plain
    assert full["level"] == "Request"
    assert full["requestObject"]["data"] == {"a": "1"}
    assert "responseObject" not in full
    assert not log.events(name="controller-leader")
    assert not [one for one in log.events() if one["requestURI"] == "/version"]
    assert {one["stage"] for one in log.events()} == {"ResponseComplete"}


async def test_an_impersonator_is_named(api: Served, log: Log) -> None:
    await api.json("GET", PODS, 403, headers={"Impersonate-User": "ann", "Impersonate-Group": "people"})
    (event,) = log.events(resource="pods", verb="list")
    assert event["user"]["username"] == "kubernetes-admin"
    assert event["impersonatedUser"] == {"username": "ann", "groups": ["people", "system:authenticated"]}
    assert event["responseStatus"]["code"] == 403
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"


async def test_pod_security_notes_what_it_saw(api: Served, log: Log) -> None:
    labels = {
        "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/enforce": "baseline",
    }
    await api.json("POST", "/api/v1/namespaces", 201, json={"metadata": {"name": "strict", "labels": labels}})
    await api.json("POST", "/api/v1/namespaces/strict/pods", 201, json=pod("a"))
    (event,) = log.events(resource="pods", verb="create")
    notes = event["annotations"]
    assert notes["pod-security.kubernetes.io/enforce-policy"] == "baseline:latest"
    assert notes["pod-security.kubernetes.io/audit-violations"].startswith(
        'would violate PodSecurity "restricted:latest": '
    )


async def test_policies_note_what_they_are_told_to(api: Served, log: Log) -> None:
    base = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'bad'", "message": "no bad pods"}],
        "auditAnnotations": [{"key": "named", "valueExpression": "'pod ' + object.metadata.name"}],
    }
    await api.json(
        "POST",
        f"{base}/validatingadmissionpolicies",
        201,
        json={"metadata": {"name": "p.example.com"}, "spec": spec},
    )
    binding = {
        "metadata": {"name": "p.example.com"},
        "spec": {"policyName": "p.example.com", "validationActions": ["Audit"]},
    }
    await api.json("POST", f"{base}/validatingadmissionpolicybindings", 201, json=binding)
    await api.json("POST", PODS, 201, json=pod("bad"))
    (event,) = log.events(resource="pods", verb="create")
    assert event["annotations"]["p.example.com/named"] == "pod bad"
    told = json.loads(event["annotations"]["validation.policy.admission.k8s.io/validation_failure"])
    assert told[0]["message"] == "no bad pods"
    assert told[0]["policy"] == "p.example.com"


async def test_a_failure_inside_the_server_is_a_panic(
    api: Served, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Registry, "get", broken)
    await api.json("GET", f"{PODS}/a", 500)
    (event,) = log.events(resource="pods", verb="get")
    assert event["stage"] == "Panic"
    assert event["responseStatus"]["code"] == 500
    assert event["responseStatus"]["reason"] == "InternalError"
    assert event["responseStatus"]["message"] == "APIServer panic'd: division by zero"


async def test_long_answers_are_not_copied(api: Served, log: Log) -> None:
    for number in range(3):
        big = pod(f"p{number}")
        big["metadata"]["annotations"] = {"note": "x" * 100_000}
        await api.json("POST", PODS, 201, json=big)
    await api.json("GET", PODS)
    (event,) = log.events(resource="pods", verb="list")
    assert event["responseObject"]["kind"] == "Unknown"
    assert len(json.dumps(event)) < 5000
