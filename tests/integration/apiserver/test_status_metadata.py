"""What a write of the status may change besides: the metadata upstream's strategies let through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.apiserver import Served

MERGE = {"Content-Type": "application/merge-patch+json"}
SPACE = "/api/v1/namespaces/default"
POD_SPEC = {"containers": [{"name": "c", "image": "nginx"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
OBJECTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (f"{SPACE}/services", {"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}},
     {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}),
    (f"{SPACE}/pods", {"spec": POD_SPEC}, {"phase": "Running"}),
    ("/api/v1/nodes", {}, {"phase": "Running"}),
    (f"{SPACE}/resourcequotas", {"spec": {"hard": {"pods": "3"}}}, {"hard": {"pods": "3"}}),
    ("/apis/apps/v1/namespaces/default/deployments", {"spec": WORKLOAD}, {"replicas": 1}),
    ("/apis/apps/v1/namespaces/default/statefulsets", {"spec": {**WORKLOAD, "serviceName": "s"}}, {"replicas": 1}),
    ("/apis/apps/v1/namespaces/default/daemonsets", {"spec": WORKLOAD}, {"desiredNumberScheduled": 1}),
    ("/apis/batch/v1/namespaces/default/jobs", {"spec": {"template": {"spec": {**POD_SPEC, "restartPolicy": "Never"}}}},
     {"active": 1}),
]  # fmt: skip


async def write(api: Served, path: str, metadata: dict[str, Any], status: dict[str, Any]) -> Any:
    body = json.dumps({"metadata": metadata, "status": status})
    return await api.json("PATCH", f"{path}?fieldManager=me", data=body, headers=MERGE)


@pytest.mark.parametrize(
    ("path", "obj", "status"), OBJECTS, ids=lambda value: str(value).rpartition("/")[2][:20]
)
async def test_annotations_go_through(
    api: Served, path: str, obj: dict[str, Any], status: dict[str, Any]
) -> None:
    made = await api.json("POST", path, 201, json={"metadata": {"name": "x", "labels": {"l": "1"}}, **obj})
    metadata = {"annotations": {"patched": "yes"}, "labels": {"l": "2"}}
    changed = await write(api, f"{path}/x/status", metadata, status)
    assert changed["metadata"]["annotations"]["patched"] == "yes"
    assert changed["metadata"]["labels"] == {"l": "1" if path.endswith("deployments") else "2"}
    assert changed["metadata"].get("generation") == made["metadata"].get("generation")
    assert changed["spec"] == made["spec"]
    (entry,) = (one for one in changed["metadata"]["managedFields"] if one["manager"] == "me")
    owned = entry["fieldsV1"]
    assert entry["subresource"] == "status"
    assert owned["f:metadata"]["f:annotations"]["f:patched"] == {}
    assert ("f:labels" in owned["f:metadata"]) is not path.endswith("deployments")
    assert "f:status" in owned


async def test_pods_keep_their_owners(api: Served) -> None:
    await api.json("POST", f"{SPACE}/pods", 201, json={"metadata": {"name": "x"}, "spec": POD_SPEC})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}
    changed = await write(api, f"{SPACE}/pods/x/status", {"ownerReferences": [owner]}, {"phase": "Running"})
    assert "ownerReferences" not in changed["metadata"]


async def test_some_kinds_let_nothing_through(api: Served) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default"
    changed = await write(api, f"{path}/status", {"annotations": {"a": "b"}}, {})
    assert "a" not in (changed["metadata"].get("annotations") or {})
