"""What `api.py` writes: a pod as a Deployment makes it, the status of one that runs, and requests that change them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.api_client import request

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
TYPE = {"apiVersion": "v1", "kind": "Pod"}


def pod(name: str, node: str = "") -> bytes:
    """A pod as a Deployment makes them."""
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5}
    environment: list[dict[str, Any]] = [
        {"name": f"SETTING_{number}", "value": f"value of setting {number}"} for number in range(8)
    ]
    fields = ("metadata.name", "metadata.namespace", "status.podIP", "spec.nodeName")
    environment += [
        {"name": path.upper().replace(".", "_"), "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for path in fields
    ]
    container = {
        "name": "web",
        "image": "registry.example/shop/frontend:1.27.3",
        "env": environment,
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "frontend-5d4f", "uid": "0" * 36}
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "frontend", "tier": "web", "pod-template-hash": "5d4f"},
            "annotations": {"shop.example/checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "containers": [container],
            **({"nodeName": node} if node else {}),
            "volumes": [{"name": "settings", "configMap": {"name": "frontend"}}],
        },
    }
    return json.dumps(obj).encode()


def running(obj: dict[str, Any]) -> bytes:
    """The pod with the status of one that runs; it is about 3 KB then."""
    now = obj["metadata"]["creationTimestamp"]
    state = {
        "name": "web",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    image = obj["spec"]["containers"][0]["image"]
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    obj["status"] = {
        "phase": "Running",
        "conditions": [{"type": name, "status": "True", "lastTransitionTime": now} for name in types],
        "hostIP": "172.18.0.3",
        "podIP": "10.244.1.17",
        "startTime": now,
        "containerStatuses": [
            {**state, "image": image, "imageID": image, "containerID": f"netkit://{'0' * 64}"}
        ],
    }
    return json.dumps(obj).encode()


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def creates(count: int) -> Callable[[str], Iterator[bytes]]:
    return lambda namespace: (
        request("POST", pods_of(namespace), pod(f"frontend-5d4f-{number:05}")) for number in range(count)
    )


def updates(present: Sequence[dict[str, Any]], count: int) -> Callable[[str], Iterator[bytes]]:
    """Each pod in turn gets another annotation."""

    def requests(namespace: str) -> Iterator[bytes]:
        for number in range(count):
            obj = json.loads(json.dumps(present[number % len(present)]))
            metadata = obj["metadata"]
            metadata["annotations"]["shop.example/run"] = f"{namespace}-{number}"
            del metadata["resourceVersion"]
            path = f"{pods_of(metadata['namespace'])}/{metadata['name']}"
            yield request("PUT", path, json.dumps(obj).encode())

    return requests


def patches(names: Sequence[str], namespace: str, count: int) -> Callable[[str], Iterator[bytes]]:
    """Each pod in turn gets another label by a merge patch."""

    def requests(run: str) -> Iterator[bytes]:
        for number in range(count):
            path = f"{pods_of(namespace)}/{names[number % len(names)]}"
            patch = {"metadata": {"labels": {"run": f"{run}-{number}"}}}
            kind = "application/merge-patch+json"
            yield request("PATCH", path, json.dumps(patch).encode(), content_type=kind)

    return requests


def applies(count: int, changing: bool) -> Callable[[str], Iterator[bytes]]:
    """Server-side applies of 100 Deployments in turn; when `changing` each time with another image."""

    def requests(namespace: str) -> Iterator[bytes]:
        template = json.loads(pod("x"))
        for number in range(count):
            name = f"frontend-{number % 100}"
            spec = {**template["spec"]}
            image = f"registry.example/shop/frontend:{number // 100 if changing else 1}"
            spec["containers"] = [{**spec["containers"][0], "image": image}]
            obj = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "labels": {"app": "frontend"}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "frontend"}},
                    "template": {"metadata": {"labels": {"app": "frontend"}}, "spec": spec},
                },
            }
            path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}?fieldManager=bench&force=true"
            kind = "application/apply-patch+yaml"
            yield request("PATCH", path, json.dumps(obj).encode(), content_type=kind)

    return requests


def same(data: bytes, count: int) -> Callable[[str], Iterator[bytes]]:
    return lambda _: itertools.repeat(data, count)


def statuses(present: Sequence[dict[str, Any]], count: int) -> Callable[[str], Iterator[bytes]]:
    """Each pod in turn gets another status, as its node writes it: by a strategic merge patch."""

    def requests(run: str) -> Iterator[bytes]:
        for number in range(count):
            metadata = present[number % len(present)]["metadata"]
            condition = {"type": "Ready", "status": "True", "message": f"{run}-{number}"}
            patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
            path = f"{pods_of(metadata['namespace'])}/{metadata['name']}/status"
            kind = "application/strategic-merge-patch+json"
            yield request("PATCH", path, json.dumps(patch).encode(), content_type=kind)

    return requests


def settings(count: int, place: str = "") -> Callable[[str], Iterator[bytes]]:
    """New ConfigMaps in the run's namespace, or in `place`."""

    def requests(namespace: str) -> Iterator[bytes]:
        for number in range(count):
            metadata = {"name": f"{namespace}-{number}"}
            obj = {"metadata": metadata, "data": {"settings.yaml": "log: info\nlisten: 0.0.0.0:8080\n"}}
            path = f"/api/v1/namespaces/{place or namespace}/configmaps"
            yield request("POST", path, json.dumps(obj).encode())

    return requests
