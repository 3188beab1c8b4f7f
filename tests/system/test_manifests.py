"""Manifests written by other people, driven by real kubectl from apply to delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster, eventually, needs_kubectl

MANIFESTS = Path(__file__).parent / "manifests"


@pytest.fixture
def manifest(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The manifest named by the test's parameter, deleted again afterwards with all its pods."""
    path = MANIFESTS / str(request.param)
    yield path
    _delete(cluster, path)


def _delete(cluster: Cluster, path: Path) -> None:
    cluster.kubectl("delete", "-f", str(path), "--ignore-not-found", "--now")
    cluster.kubectl("delete", "pods", "--all", "--now")
    eventually("no pods left", lambda: not cluster.get("pods")["items"])


def pods(cluster: Cluster, label: str) -> list[str]:
    """Names of the pods with this label that are not being deleted."""
    return [
        item["metadata"]["name"]
        for item in cluster.get("pods", "-l", label)["items"]
        if "deletionTimestamp" not in item["metadata"]
    ]


@pytest.mark.parametrize("manifest", ["two-containers.yaml"], indirect=True)
def test_containers_of_a_pod_share_localhost(cluster: Cluster, manifest: Path) -> None:
    cluster.kubectl("apply", "-f", str(manifest))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/my-nginx-pod", "--timeout=30s")
    assert re.search(r"my-nginx-pod\s+2/2\s+Running\s+0", cluster.kubectl("get", "pods"))

    page = cluster.kubectl(
        "exec", "my-nginx-pod", "-c", "ubuntu-sidecar-container", "--", "curl", "-s", "localhost"
    )
    assert "Welcome to nginx!" in page

    logs = cluster.kubectl("logs", "my-nginx-pod", "-c", "my-nginx-container")
    assert "GET / HTTP/1.1" in logs
    error = cluster.kubectl(
        "exec", "my-nginx-pod", "-c", "ubuntu-sidecar-container", "--", "sh", "-c", "exit 7", check=False
    )
    assert "exit code 7" in error
    assert (
        cluster.kubectl("exec", "my-nginx-pod", "-c", "ubuntu-sidecar-container", "--", "hostname")
        == "my-nginx-pod\n"
    )
    described = cluster.kubectl("describe", "pod", "my-nginx-pod")
    assert "Successfully assigned default/my-nginx-pod to" in described
    assert re.search(r"Started\s.*Started container ubuntu-sidecar-container", described) or (
        "Started container: ubuntu-sidecar-container" in described
    )


@pytest.mark.parametrize("manifest", ["replicaset.yaml"], indirect=True)
def test_a_replicaset_lets_go_of_a_pod_whose_label_is_edited_away(
    cluster: Cluster, manifest: Path, tmp_path: Path
) -> None:
    cluster.kubectl("apply", "-f", str(manifest))
    eventually(
        "three ready", lambda: cluster.get("rs", "replicaset-nginx")["status"].get("readyReplicas") == 3
    )
    first = pods(cluster, "app=my-nginx-pods-label")
    assert len(first) == 3

    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i '/^    app: my-nginx-pods-label$/d; /^  labels:$/d' \"$1\"\n")
    editor.chmod(0o755)
    orphan = first[0]
    cluster.environment["KUBE_EDITOR"] = str(editor)
    assert "edited" in cluster.kubectl("edit", "pod", orphan)

    def replaced() -> list[str] | None:
        now = pods(cluster, "app=my-nginx-pods-label")
        return now if len(now) == 3 and orphan not in now else None

    eventually("a new pod", replaced)
    assert "ownerReferences" not in cluster.get("pod", orphan)["metadata"]
    cluster.kubectl("delete", "rs", "replicaset-nginx")
    eventually("the others are collected", lambda: not pods(cluster, "app=my-nginx-pods-label"))
    assert cluster.get("pod", orphan)["status"]["phase"] == "Running"


@pytest.mark.parametrize("manifest", ["deployment.yaml"], indirect=True)
def test_a_deployment_rolls_forward_and_back(cluster: Cluster, manifest: Path) -> None:
    cluster.kubectl("apply", "-f", str(manifest))
    cluster.rollout("deployment/my-nginx-deployment")
    assert cluster.kubectl("scale", "deployment/my-nginx-deployment", "--replicas=4") == (
        "deployment.apps/my-nginx-deployment scaled\n"
    )
    cluster.rollout("deployment/my-nginx-deployment")
    assert len(pods(cluster, "app=my-nginx")) == 4

    cluster.kubectl("set", "image", "deployment/my-nginx-deployment", "nginx=nginx:1.11")
    cluster.rollout("deployment/my-nginx-deployment")
    images = {
        item["spec"]["containers"][0]["image"] for item in cluster.get("pods", "-l", "app=my-nginx")["items"]
    }
    assert "nginx:1.11" in images
    history = cluster.kubectl("rollout", "history", "deployment/my-nginx-deployment")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]

    cluster.kubectl("rollout", "undo", "deployment/my-nginx-deployment")
    cluster.rollout("deployment/my-nginx-deployment")
    spec = cluster.get("deployment", "my-nginx-deployment")["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "nginx:1.10"
    history = cluster.kubectl("rollout", "history", "deployment/my-nginx-deployment")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["2", "3"]
    assert "ScalingReplicaSet" in cluster.kubectl("describe", "deployment", "my-nginx-deployment")


@pytest.mark.parametrize("manifest", ["hostname.yaml"], indirect=True)
def test_services_answer_from_everywhere(cluster: Cluster, manifest: Path) -> None:
    cluster.kubectl("apply", "-f", str(manifest))
    cluster.rollout("deployment/hostname-deployment")
    names = set(pods(cluster, "app=webserver"))
    assert {item["spec"]["nodeName"] for item in cluster.get("pods", "-l", "app=webserver")["items"]} == {
        "node1", "node2", "node3",
    }  # fmt: skip
    cluster_ip = cluster.get("service", "hostname-svc-clusterip")["spec"]["clusterIP"]
    port = cluster.get("service", "hostname-svc-nodeport")["spec"]["ports"][0]["nodePort"]

    def answering(machine: str, url: str) -> set[str]:
        found: set[str] = set()
        for _ in range(60):
            found |= set(re.findall(r"hostname-deployment-[a-z0-9]+-[a-z0-9]+", cluster.curl(machine, url)))
            if found == names:
                break
        return found

    for machine in ("node1", "node2", "node3"):
        assert answering(machine, f"http://{cluster_ip}:8080") == names
    for address in cluster.node_addresses():
        assert answering("client", f"http://{address}:{port}") == names

    victim = sorted(names)[0]
    cluster.kubectl("delete", "pod", victim, "--now")
    cluster.rollout("deployment/hostname-deployment")
    names = set(pods(cluster, "app=webserver"))
    assert victim not in names
    assert answering("node1", f"http://{cluster_ip}:8080") == names


def test_a_service_without_endpoints_refuses(cluster: Cluster) -> None:
    cluster.kubectl(
        "create",
        "-f",
        "-",
        stdin="""
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {ports: [{port: 80}], selector: {app: nobody}}
""",
    )
    try:
        address = cluster.get("service", "nobody")["spec"]["clusterIP"]

        def refused() -> bool:
            return (
                cluster.netkit(
                    "exec",
                    "-p",
                    cluster.name,
                    "node1",
                    "--",
                    "curl",
                    "-s",
                    "-m",
                    "2",
                    f"http://{address}",
                    check=False,
                ).returncode
                == 7
            )

        eventually("connection refused", refused)
    finally:
        cluster.kubectl("delete", "service", "nobody")


def test_a_taken_node_port_is_refused(cluster: Cluster) -> None:
    manifest = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, ports: [{{port: 80, nodePort: 30777}}], selector: {{app: x}}}}
"""
    cluster.kubectl("create", "-f", "-", stdin=manifest.format(name="first"))
    try:
        error = cluster.kubectl("create", "-f", "-", check=False, stdin=manifest.format(name="second"))
        assert error == (
            'The Service "second" is invalid: spec.ports[0].nodePort: Invalid value: 30777: '
            "provided port is already allocated\n"
        )
        assert "NotFound" in cluster.kubectl("get", "service", "second", check=False)
    finally:
        cluster.kubectl("delete", "service", "first")


@needs_kubectl(25)
@pytest.mark.parametrize(
    ("manifest_text", "message"),
    [
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selectorr: {app: x}, ports: [{port: 80}]}\n",
            'unknown field "spec.selectorr"',
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 80}\n",
            "json: cannot unmarshal number into Go struct field ServiceSpec.spec.ports",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 70000}]}\n",
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
    ],
)
def test_bad_manifests_are_refused_and_change_nothing(
    cluster: Cluster, manifest_text: str, message: str
) -> None:
    assert message in cluster.kubectl("apply", "-f", "-", check=False, stdin=manifest_text)
    assert "NotFound" in cluster.kubectl("get", "service", "a", check=False)


def test_an_image_that_cannot_run_says_why(cluster: Cluster) -> None:
    cluster.kubectl(
        "create",
        "-f",
        "-",
        stdin="""
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec: {containers: [{name: c, image: "example.com/no/such:1"}]}
""",
    )
    try:

        def waiting() -> str | None:
            statuses = cluster.get("pod", "stranger")["status"].get("containerStatuses") or [{}]
            reason: str = statuses[0].get("state", {}).get("waiting", {}).get("reason", "")
            return reason if reason in ("ErrImagePull", "ImagePullBackOff") else None

        eventually("a reason", waiting)
        assert "netkit image add" in cluster.kubectl("describe", "pod", "stranger")
    finally:
        cluster.kubectl("delete", "pod", "stranger", "--now")
