"""The real kubectl's server-side apply and all that shows or changes field owners."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

pytestmark = pytest.mark.kubectl

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "nginx:1", ports: [{containerPort: 80}]}
"""
ADVICE = "Please review the fields above--they currently have other managers."


async def owners(kubectl: Kubectl, name: str = "deploy/web") -> dict[tuple[str, str, str], Any]:
    """(manager, operation, subresource) -> fields."""
    obj = json.loads(await kubectl("get", name, "-o", "json", "--show-managed-fields"))
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", ())
    }


@needs_kubectl(24)
async def test_apply_conflict_force(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    for _ in range(2):
        applied = await kubectl("apply", "--server-side", "-f", path)
        assert applied == "deployment.apps/web serverside-applied\n"
    version = "-o=jsonpath={.metadata.resourceVersion}"
    before = await kubectl("get", "deploy", "web", version)
    await kubectl("apply", "--server-side", "-f", path)
    assert await kubectl("get", "deploy", "web", version) == before
    other = kubectl.write(
        "other.yaml", WEB.replace("replicas: 2", "replicas: 3").replace("nginx:1", "nginx:2")
    )
    mine = ("apply", "--server-side", "--field-manager=other", "-f", other)
    clash = await kubectl.run(*mine)
    assert clash.code == 1
    assert clash.err.startswith(
        'error: Apply failed with 2 conflicts: conflicts with "kubectl":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="c"].image\n' + ADVICE
    )
    assert await kubectl(*mine, "--force-conflicts") == "deployment.apps/web serverside-applied\n"
    found = await owners(kubectl)
    assert "f:replicas" in found["other", "Apply", ""]["f:spec"]
    assert "f:replicas" not in found["kubectl", "Apply", ""]["f:spec"]
    shown = await kubectl("get", "deploy", "web", "-o", "yaml")
    assert "managedFields" not in shown
    assert 'k:{"name":"c"}:' in await kubectl("get", "deploy", "web", "-o", "yaml", "--show-managed-fields")


@needs_kubectl(26)
async def test_from_client_side_apply_to_server_side_apply_and_back(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    await kubectl("apply", "-f", path)
    assert ("kubectl-client-side-apply", "Update", "") in await owners(kubectl)
    kubectl.write("web.yaml", WEB.replace("nginx:1", "nginx:2"))
    assert await kubectl("apply", "--server-side", "-f", path) == "deployment.apps/web serverside-applied\n"
    found = await owners(kubectl)
    assert {key[:2] for key in found} == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}
    assert "image: nginx:2" in await kubectl("apply", "view-last-applied", "deploy", "web")
    # What is left out now goes: ownership has really moved.
    kubectl.write(
        "web.yaml", WEB.replace("metadata: {name: web, labels: {app: web}}", "metadata: {name: web}")
    )
    await kubectl("apply", "--server-side", "-f", path)
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.metadata.labels}") == ""
    assert (await kubectl("apply", "-f", path)).startswith("deployment.apps/web ")


@needs_kubectl(24)
async def test_scaling_takes_the_replicas(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    await kubectl("apply", "--server-side", "-f", path)
    await kubectl("scale", "deploy", "web", "--replicas=5")
    (scaler,) = [key for key in await owners(kubectl) if key[2] == "scale"]
    clash = await kubectl.fails("apply", "--server-side", "-f", path)
    assert clash.startswith(
        f'error: Apply failed with 1 conflict: conflict with "{scaler[0]}" with subresource "scale" using apps/v1: '
        ".spec.replicas\n"
    )
    kubectl.write("web.yaml", WEB.replace("  replicas: 2\n", ""))
    await kubectl("apply", "--server-side", "-f", path)
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "5"


@needs_kubectl(24)
async def test_diff_on_the_server(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    await kubectl("apply", "--server-side", "-f", path)
    assert (await kubectl.run("diff", "--server-side", "-f", path)).code == 0
    kubectl.write("web.yaml", WEB.replace("nginx:1", "nginx:2"))
    difference = await kubectl.run("diff", "--server-side", "-f", path)
    assert difference.code == 1
    assert "-      - image: nginx:1\n+      - image: nginx:2" in difference.out
    assert "generation: 2" in difference.out
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:1"


@needs_kubectl(27)
async def test_writers_and_their_names(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    await kubectl("create", "-f", path)
    await kubectl("label", "deploy", "web", "a=b")
    await kubectl("annotate", "deploy", "web", "a=b", "--field-manager=noter")
    await kubectl("set", "image", "deploy/web", "c=nginx:3")
    await kubectl("patch", "deploy", "web", "-p", '{"spec":{"paused":true}}')
    await kubectl(
        "patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":1}}'
    )
    found = await owners(kubectl)
    assert found["kubectl-label", "Update", ""] == {"f:metadata": {"f:labels": {"f:a": {}}}}
    assert found["noter", "Update", ""] == {"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}}
    containers = found["kubectl-set", "Update", ""]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert containers == {'k:{"name":"c"}': {"f:image": {}}}
    assert found["kubectl-patch", "Update", ""] == {"f:spec": {"f:paused": {}}}
    assert found["kubectl-patch", "Update", "status"] == {"f:status": {"f:replicas": {}}}
    kubectl.write("web.yaml", WEB.replace("nginx:1", "nginx:4"))
    await kubectl("replace", "-f", path)
    found = await owners(kubectl)
    assert ("kubectl-set", "Update", "") not in found
    assert ("kubectl-label", "Update", "") not in found
    assert "f:template" in found["kubectl-replace", "Update", ""]["f:spec"]


@needs_kubectl(27)
async def test_edit(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", kubectl.write("web.yaml", WEB))
    edited = await kubectl("edit", "deploy", "web", KUBE_EDITOR="sed -i s/nginx:1/nginx:9/")
    assert edited == "deployment.apps/web edited\n"
    spec = (await owners(kubectl))["kubectl-edit", "Update", ""]["f:spec"]
    assert spec["f:template"]["f:spec"]["f:containers"] == {'k:{"name":"c"}': {"f:image": {}}}


@needs_kubectl(27)
async def test_fields_that_are_not_there(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB.replace("replicas: 2", "replicaz: 2"))
    refused = await kubectl.fails("apply", "--server-side", "-f", path)
    assert ".spec.replicaz: field not declared in schema" in refused
    assert refused.startswith(
        "Error from server: failed to create typed patch object (default/web; apps/v1, Kind=Deployment)"
    )
    await kubectl("create", "-f", kubectl.write("good.yaml", WEB))
    strict = await kubectl.fails(
        "patch", "deploy", "web", "--type=json", "-p", '[{"op":"remove","path":"/spec/nothing"}]'
    )
    assert strict == (
        "The request is invalid: the server rejected our request due to an error in our request\n"
    )


@needs_kubectl(27)
async def test_apply_sets(kubectl: Kubectl) -> None:
    def maps(*names: str) -> str:
        return "---\n".join(
            f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\n"
            for name in names
        )

    path = kubectl.write("maps.yaml", maps("one", "two"))
    command = ("apply", "--prune", "--applyset=parts", "-n", "default", "-f", path)
    assert (
        await kubectl(*command, KUBECTL_APPLYSET="true")
    ) == "configmap/one created\nconfigmap/two created\n"
    kubectl.write("maps.yaml", maps("one"))
    assert (await kubectl(*command, KUBECTL_APPLYSET="true")).endswith("configmap/two pruned\n")
    assert ("kubectl-applyset", "Apply", "") in await owners(kubectl, "secret/parts")
