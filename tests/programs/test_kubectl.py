"""The real kubectl against the server: what people type, and what they are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml
from support.cluster import needs_kubectl
from support.kubectl import LIMIT, Kubectl

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
      - {name: side, image: "busybox:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: 80, nodePort: 30080}]
"""

LIST = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one, labels: {of: list}}, data: {k: v}}
- {apiVersion: v1, kind: Secret, metadata: {name: two, labels: {of: list}}, stringData: {k: v}}
"""


@needs_kubectl(27)
async def test_apply_again_and_again(kubectl: Kubectl) -> None:
    path = kubectl.write("web.yaml", WEB)
    assert await kubectl("apply", "-f", path) == "deployment.apps/web created\nservice/web created\n"
    assert await kubectl("apply", "-f", path) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    kubectl.write(
        "web.yaml", WEB.replace("nginx:1", "nginx:2").replace('- {name: side, image: "busybox:1"}', "")
    )
    difference = await kubectl.run("diff", "-f", path)
    assert difference.code == 1
    assert "-      - image: nginx:1" in difference.out
    assert "-  generation: 1" in difference.out
    applied = await kubectl("apply", "-f", path)
    assert applied == "deployment.apps/web configured\nservice/web unchanged\n"
    images = await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}")
    assert images == "nginx:2"
    assert await kubectl("delete", "-f", path) == 'deployment.apps "web" deleted\nservice "web" deleted\n'
    assert "not found" in await kubectl.fails("get", "deploy", "web")


@needs_kubectl(24)
async def test_get_prints_what_the_server_says(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("web.yaml", WEB))
    lines = (await kubectl("get", "deploy,svc", "-o", "wide")).splitlines()
    assert lines[0].split()[:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert lines[1].split()[:2] == ["deployment.apps/web", "0/2"]
    assert "c,side" in lines[1]
    assert next(line for line in lines if "service/web" in line).split()[4] == "8080:30080/TCP"
    assert "service/kubernetes" in await kubectl("get", "all")
    assert (await kubectl("get", "svc", "-A", "-l", "component=apiserver", "-o", "name")).strip() == (
        "service/kubernetes"
    )
    one = yaml.safe_load(await kubectl("get", "svc", "web", "-o", "yaml"))
    assert (one["apiVersion"], one["kind"], one["spec"]["ports"][0]["nodePort"]) == ("v1", "Service", 30080)
    many = json.loads(await kubectl("get", "ns", "-o", "json"))
    assert {item["kind"] for item in many["items"]} == {"Namespace"}
    selected = await kubectl("get", "svc", "--field-selector", "metadata.name!=web", "-o", "name")
    assert selected.strip() == "service/kubernetes"
    table = await kubectl("get", "deploy", "web", "--subresource=scale")
    assert table.splitlines()[0].split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
    labels = await kubectl("get", "deploy", "--show-labels")
    assert "app=web" in labels
    columns = await kubectl("get", "svc", "web", "-o", "custom-columns=P:.spec.ports[0].port")
    assert columns.split() == ["P", "8080"]


async def test_long_lists_come_in_chunks(kubectl: Kubectl) -> None:
    for number in range(7):
        await kubectl.api.json(
            "POST", "/api/v1/namespaces/default/configmaps", 201, json={"metadata": {"name": f"c{number}"}}
        )
    result = await kubectl.run("get", "cm", "--chunk-size=3", "-v=6")
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == [f"c{n}" for n in range(7)]
    assert result.err.count("configmaps?") == 3


async def test_watching_prints_changes(kubectl: Kubectl) -> None:
    process = await kubectl.start("get", "cm", "-w", "--output-watch-events")
    try:
        assert process.stdout is not None
        await kubectl.api.json(
            "POST", "/api/v1/namespaces/default/configmaps", 201, json={"metadata": {"name": "a"}}
        )
        async with asyncio.timeout(LIMIT):
            header = (await process.stdout.readline()).split()
            added = (await process.stdout.readline()).split()
            await kubectl.api.json("DELETE", "/api/v1/namespaces/default/configmaps/a")
            deleted = (await process.stdout.readline()).split()
    finally:
        process.kill()
        await process.communicate()
    assert header == [b"EVENT", b"NAME", b"DATA", b"AGE"]
    assert (added[:2], deleted[:2]) == ([b"ADDED", b"a"], [b"DELETED", b"a"])


async def test_manifests_that_are_lists(kubectl: Kubectl) -> None:
    path = kubectl.write("list.yaml", LIST)
    assert await kubectl("apply", "-f", path) == "configmap/one created\nsecret/two created\n"
    assert await kubectl("get", "secret", "two", "-o", "jsonpath={.data.k}") == "dg=="
    assert await kubectl("delete", "cm,secret", "-l", "of=list") == (
        'configmap "one" deleted\nsecret "two" deleted\n'
    )


async def test_changing_an_object_in_every_way(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", kubectl.write("web.yaml", WEB))

    async def read(path: str) -> str:
        return await kubectl("get", "deploy", "web", "-o", f"jsonpath={{{path}}}")

    assert await kubectl("scale", "deploy", "web", "--replicas=5") == "deployment.apps/web scaled\n"
    assert await read(".spec.replicas") == "5"
    assert "Expected replicas to be 1" in await kubectl.fails(
        "scale", "deploy", "web", "--current-replicas=1", "--replicas=2"
    )
    await kubectl("scale", "deploy", "web", "--current-replicas=5", "--replicas=4")
    await kubectl("label", "deploy", "web", "tier=front", "app-")
    assert json.loads(await read(".metadata.labels")) == {"tier": "front"}
    await kubectl("annotate", "deploy", "web", "note=x y")
    assert "note" in await read(".metadata.annotations")
    await kubectl("set", "image", "deploy/web", "side=busybox:2")
    assert await read(".spec.template.spec.containers[*].image") == "nginx:1 busybox:2"
    await kubectl(
        "patch",
        "deploy",
        "web",
        "-p",
        '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"n:3"}]}}}}',
    )
    assert await read(".spec.template.spec.containers[*].image") == "n:3 busybox:2"
    await kubectl("patch", "deploy", "web", "--type=merge", "-p", '{"spec":{"paused":true}}')
    await kubectl("patch", "deploy", "web", "--type=json", "-p", '[{"op":"remove","path":"/spec/paused"}]')
    assert await read(".spec.paused") == ""
    unchanged = await kubectl("patch", "deploy", "web", "-p", '{"spec":{"replicas":4}}')
    assert unchanged == "deployment.apps/web patched (no change)\n"
    edited = await kubectl("edit", "deploy", "web", KUBE_EDITOR="sed -i 's/replicas: 4/replicas: 3/'")
    assert edited == "deployment.apps/web edited\n"
    assert await read(".spec.replicas") == "3"
    assert await kubectl("rollout", "pause", "deploy/web") == "deployment.apps/web paused\n"
    assert await kubectl("replace", "--force", "-f", str(kubectl.directory / "web.yaml"))
    assert await read(".spec.replicas") == "2"


@needs_kubectl(27)
async def test_describe_explain_and_discovery(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", kubectl.write("web.yaml", WEB))
    described = await kubectl("describe", "svc", "web")
    assert "NodePort:                 http  30080/TCP" in described
    assert "2 desired | 0 updated" in await kubectl("describe", "deploy", "we")
    assert "<integer>" in await kubectl("explain", "deploy.spec.replicas")
    assert "FIELDS:" in await kubectl("explain", "service.spec.ports")
    resources = (await kubectl("api-resources", "--namespaced=true", "-o", "name")).split()
    assert {"pods", "services", "deployments.apps", "endpointslices.discovery.k8s.io"} <= set(resources)
    assert "nodes" not in resources
    assert "apps/v1" in (await kubectl("api-versions")).split()
    assert json.loads(await kubectl("version", "-o", "json"))["serverVersion"]["minor"] == "32"
    assert await kubectl("get", "--raw", "/readyz") == "ok"


POD = """
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {nodeName: n1, containers: [{name: c, image: nginx}]}
"""


@needs_kubectl(24)
async def test_pods_go_gracefully(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", kubectl.write("pod.yaml", POD))
    selected = await kubectl(
        "get", "pods", "--field-selector", "spec.nodeName=n1,status.phase!=Failed", "-o", "name"
    )
    assert selected == "pod/p\n"
    waiting = await kubectl.start("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    headers = {"Content-Type": "application/merge-patch+json"}
    path = "/api/v1/namespaces/default/pods/p"
    await kubectl.api.json("PATCH", f"{path}/status", data=json.dumps(status), headers=headers)
    out, err = await asyncio.wait_for(waiting.communicate(), LIMIT)
    assert (waiting.returncode, out) == (0, b"pod/p condition met\n"), err
    assert await kubectl("delete", "pod", "p", "--wait=false") == 'pod "p" deleted\n'
    assert "Terminating" in await kubectl("get", "pod", "p")
    deleting = await kubectl.start("wait", "--for=delete", "pod/p", "--timeout=30s")
    await kubectl.api.json("DELETE", path, json={"gracePeriodSeconds": 0})
    out, err = await asyncio.wait_for(deleting.communicate(), LIMIT)
    assert deleting.returncode == 0, err


@needs_kubectl(25)
@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (WEB.replace("selector: {app: web}\n  ports", "selectorr: {app: web}\n  ports"),
         'strict decoding error: unknown field "spec.selectorr"'),
        (WEB.replace("replicas: 2", "replicas: two"), "cannot unmarshal string into Go struct field"),
        (WEB.replace("nodePort: 30080", "nodePort: 80"), "provided port is not in the valid range"),
        (WEB.replace("port: 8080", "port: 0"), "must be between 1 and 65535, inclusive"),
        (WEB.replace("name: web}\nspec:\n  type", "name: Web_1}\nspec:\n  type"), "a DNS-1035 label must consist of"),
    ],
)  # fmt: skip
async def test_mistakes_are_named(kubectl: Kubectl, manifest: str, words: str) -> None:
    assert words in await kubectl.fails("apply", "-f", kubectl.write("bad.yaml", manifest))


@needs_kubectl(27)
async def test_warnings_and_dry_runs(kubectl: Kubectl) -> None:
    odd = kubectl.write("odd.yaml", WEB.replace("  replicas: 2", "  replicas: 2\n  odd: 1"))
    result = await kubectl.run("apply", "--validate=warn", "--dry-run=server", "-f", odd)
    assert result.code == 0
    assert 'Warning: unknown field "spec.odd"' in result.err
    assert "deployment.apps/web created (server dry run)" in result.out
    assert "not found" in await kubectl.fails("get", "deploy", "web")
    assert 'namespaces "nope" not found' in await kubectl.fails(
        "create", "-n", "nope", "-f", odd, "--validate=false"
    )


async def test_what_is_refused_says_so(kubectl: Kubectl) -> None:
    assert 'resource type "nonsense"' in await kubectl.fails("get", "nonsense")
    assert "cannot list resource" in await kubectl.fails("get", "pods", "--as", "bob")


async def test_run_and_expose(kubectl: Kubectl) -> None:
    assert await kubectl("run", "x", "--image=nginx", "--port=80") == "pod/x created\n"
    pod: dict[str, Any] = json.loads(await kubectl("get", "pod", "x", "-o", "json"))
    assert pod["status"]["phase"] == "Pending"
    assert await kubectl("expose", "pod", "x", "--port=8080", "--target-port=80") == "service/x exposed\n"
    assert (await kubectl("get", "svc", "x")).splitlines()[1].split()[4] == "8080/TCP"
