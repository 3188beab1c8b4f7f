"""Admission as people meet it with kubectl: webhooks, policies and Pod Security say no, warn and change things."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster
from support.kubectl import Kubectl
from support.webhook import WebhookServer, allow, configuration, deny, patch, webhook_server

pytestmark = pytest.mark.kubectl

MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {a: "1"}
"""

POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.example.com}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations:
  - expression: object.spec.replicas <= 5
    messageExpression: "'%d replicas are too many'.format([object.spec.replicas])"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas.example.com}
spec: {policyName: replicas.example.com, validationActions: [Deny]}
"""


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[WebhookServer]:
    async with webhook_server(tmp_path) as server:
        yield server


@pytest.fixture
async def api(tmp_path: Path, hooks: WebhookServer) -> AsyncIterator[Served]:
    async with cluster(tmp_path, hooks.dial) as served:
        yield served


async def register(kubectl: Kubectl, sort: str, *webhooks: dict[str, Any]) -> None:
    path = kubectl.write(f"{sort}.json", json.dumps(configuration(sort, "test", *webhooks)))
    made = await kubectl("apply", "-f", path)
    assert made == f"{sort.lower()}webhookconfiguration.admissionregistration.k8s.io/test created\n"


async def test_denied_by_a_webhook(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hooks.hook("check", deny("not on a Friday", code=403, reason="Forbidden"))
    await register(kubectl, "Validating", hooks.webhook("friday.example.com", "check"))
    path = kubectl.write("map.yaml", MAP)
    result = await kubectl.run("create", "-f", path)
    assert result.code == 1
    assert result.err == (
        f'Error from server (Forbidden): error when creating "{path}": admission webhook "friday.example.com" denied '
        "the request: not on a Friday\n"
    )
    columns = (await kubectl("get", "validatingwebhookconfigurations")).split()
    assert columns[:5] == ["NAME", "WEBHOOKS", "AGE", "test", "1"]


async def test_changed_by_a_webhook(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hooks.hook("change", patch({"op": "add", "path": "/data/added", "value": "by-webhook"}))
    await register(kubectl, "Mutating", hooks.webhook("change.example.com", "change"))
    path = kubectl.write("map.yaml", MAP)
    assert await kubectl("apply", "-f", path) == "configmap/web created\n"
    assert await kubectl("get", "configmap", "web", "-o", "jsonpath={.data.added}") == "by-webhook"
    assert await kubectl("apply", "-f", path) == "configmap/web unchanged\n"


async def test_warned_by_a_webhook(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hooks.hook("check", lambda request: {"allowed": True, "warnings": ["this is deprecated"]})
    await register(kubectl, "Validating", hooks.webhook("warn.example.com", "check"))
    result = await kubectl.run("create", "configmap", "x")
    assert (result.code, result.err) == (0, "Warning: this is deprecated\n")


async def test_dry_run_asks_and_stores_nothing(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hook = hooks.hook("check", allow)
    await register(
        kubectl, "Validating", hooks.webhook("dry.example.com", "check", sideEffects="NoneOnDryRun")
    )
    made = await kubectl("create", "configmap", "x", "--dry-run=server")
    assert made == "configmap/x created (server dry run)\n"
    assert [each["dryRun"] for each in hook.seen] == [True]
    assert "NotFound" in await kubectl.fails("get", "configmap", "x")


async def test_failure_policies(kubectl: Kubectl, hooks: WebhookServer) -> None:
    gone = {"url": "https://127.0.0.1:1/x", "caBundle": hooks.bundle}
    webhook = hooks.webhook("gone.example.com", "check", clientConfig=gone)
    await register(kubectl, "Validating", webhook)
    error = await kubectl.fails("create", "configmap", "x")
    assert error == (
        'error: failed to create configmap: Internal error occurred: failed calling webhook "gone.example.com": '
        'failed to call webhook: Post "https://127.0.0.1:1/x?timeout=5s": dial tcp 127.0.0.1:1: connect: '
        "connection refused\n"
    )
    change = '[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]'
    await kubectl("patch", "validatingwebhookconfigurations", "test", "--type=json", "-p", change)
    assert await kubectl("create", "configmap", "x") == "configmap/x created\n"


async def test_exec_is_asked_about(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hooks.hook("check", deny("no shells"))
    webhook = hooks.webhook("exec.example.com", "check")
    webhook["rules"][0].update(operations=["CONNECT"], resources=["pods/exec"])
    await register(kubectl, "Validating", webhook)
    await kubectl("run", "p", "--image=i")
    error = await kubectl.fails("exec", "p", "--", "sh")
    assert 'admission webhook "exec.example.com" denied the request: no shells' in error


async def test_a_policy_in_cel(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("policy.yaml", POLICY))
    error = await kubectl.fails("create", "deployment", "web", "--image=i", "--replicas=9")
    assert error == (
        'error: failed to create deployment: deployments.apps "web" is forbidden: ValidatingAdmissionPolicy '
        "'replicas.example.com' with binding 'replicas.example.com' denied request: 9 replicas are too many\n"
    )
    await kubectl("create", "deployment", "web", "--image=i", "--replicas=5")
    error = await kubectl.fails("scale", "deployment", "web", "--replicas=2", "--current-replicas=3")
    assert "Expected replicas to be 3" in error
    listed = (await kubectl("get", "validatingadmissionpolicies")).split()
    assert listed[:7] == ["NAME", "VALIDATIONS", "PARAMKIND", "AGE", "replicas.example.com", "1", "<unset>"]
    listed = (await kubectl("get", "validatingadmissionpolicybindings")).split()
    assert listed[:7] == [
        "NAME", "POLICYNAME", "PARAMREF", "AGE", "replicas.example.com", "replicas.example.com", "<unset>",
    ]  # fmt: skip


async def test_a_policy_that_is_none(kubectl: Kubectl) -> None:
    path = kubectl.write(
        "policy.yaml", POLICY.replace("object.spec.replicas <= 5", "objct.spec.replicas <= 5")
    )
    error = await kubectl.fails("apply", "-f", path)
    assert (
        'The ValidatingAdmissionPolicy "replicas.example.com" is invalid: spec.validations[0].expression: Invalid '
        'value: "objct.spec.replicas <= 5": compilation failed: ERROR: <input>:1:1: undeclared reference to '
        "'objct' (in container '')" in error
    )


async def test_pod_security(kubectl: Kubectl) -> None:
    await kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
    error = await kubectl.fails("run", "p", "--image=i")
    assert error.startswith(
        'Error from server (Forbidden): pods "p" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "p" must set securityContext.allowPrivilegeEscalation=false), '
    )
    await kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce-")
    await kubectl("label", "namespace", "default", "pod-security.kubernetes.io/warn=baseline")
    override = '{"spec": {"hostNetwork": true}}'
    result = await kubectl.run("run", "p", "--image=i", f"--overrides={override}")
    assert result.code == 0
    assert result.err == (
        'Warning: would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)\n'
    )
    result = await kubectl.run("label", "namespace", "default", "pod-security.kubernetes.io/enforce=baseline")
    assert result.err == (
        'Warning: existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"\n'
        "Warning: p: host namespaces\n"
    )
    error = await kubectl.fails(
        "label", "--overwrite", "namespace", "default", "pod-security.kubernetes.io/enforce=x"
    )
    assert "must be one of privileged, baseline, restricted" in error


async def test_explained(kubectl: Kubectl) -> None:
    told = await kubectl("explain", "validatingadmissionpolicy.spec.validations")
    assert "messageExpression" in told
    assert "failurePolicy" in await kubectl("explain", "validatingwebhookconfiguration.webhooks")


async def test_applied_from_the_server_s_side(kubectl: Kubectl, hooks: WebhookServer) -> None:
    hooks.hook("change", patch({"op": "add", "path": "/data/added", "value": "by-webhook"}))
    await register(kubectl, "Mutating", hooks.webhook("change.example.com", "change"))
    path = kubectl.write("map.yaml", MAP)
    assert await kubectl("apply", "--server-side", "-f", path) == "configmap/web serverside-applied\n"
    assert await kubectl("apply", "--server-side", "-f", path) == "configmap/web serverside-applied\n"
    assert await kubectl("get", "configmap", "web", "-o", "jsonpath={.data.added}") == "by-webhook"
