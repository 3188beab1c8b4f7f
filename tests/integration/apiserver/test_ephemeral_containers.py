"""pods/NAME/ephemeralcontainers over the real server: what may be added, and that nothing else changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster

PODS = "/api/v1/namespaces/default/pods"
SUB = f"{PODS}/web/ephemeralcontainers"
SMP = {"Content-Type": "application/strategic-merge-patch+json"}
MERGE = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with cluster(tmp_path) as served:
        await served.json("POST", PODS, 201, json=pod())
        yield served


def pod(name: str = "web", **spec: Any) -> Any:
    containers = [{"name": "main", "image": "nginx:1"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, "nodeName": "n1", **spec}}


def adding(*containers: Any) -> Any:
    return {"spec": {"ephemeralContainers": list(containers)}}


def causes(status: Any) -> list[str]:
    return [f"{each['field']}: {each['message']}" for each in status["details"]["causes"]]


async def test_containers_are_added_by_every_kind_of_patch(api: Served) -> None:
    before = await api.json("GET", SUB)
    one = {"name": "one", "image": "busybox", "targetContainerName": "main", "stdin": True, "tty": True}
    found = await api.json("PATCH", SUB, json=adding(one), headers=SMP)
    assert found["kind"] == "Pod"
    (added,) = found["spec"]["ephemeralContainers"]
    assert added == {
        **one, "resources": {}, "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }  # fmt: skip
    assert found["spec"]["containers"] == before["spec"]["containers"]
    two = {"name": "two", "image": "busybox:1"}
    await api.json("PATCH", SUB, json=adding({**two, "stdin": True}), headers=SMP)
    path = "/spec/ephemeralContainers/-"
    operation = {"op": "add", "path": path, "value": {**two, "name": "three"}}
    await api.json("PATCH", SUB, json=[operation], headers=JSON_PATCH)
    found = await api.json("GET", SUB)
    every = [*found["spec"]["ephemeralContainers"], {**two, "name": "four"}]
    found = await api.json("PATCH", SUB, json=adding(*every), headers=MERGE)
    found["spec"]["ephemeralContainers"].append({**two, "name": "five"})
    found["metadata"]["labels"] = {"app": "changed"}
    found["spec"]["containers"][0]["image"] = "other"
    found["status"] = {"phase": "Failed"}
    stored = await api.json("PUT", SUB, json=found)
    assert {each["name"] for each in stored["spec"]["ephemeralContainers"]} == {
        "one",
        "two",
        "three",
        "four",
        "five",
    }
    assert stored["spec"]["containers"][0]["image"] == "nginx:1"
    assert "labels" not in stored["metadata"]
    assert stored["status"]["phase"] == "Pending"
    applied = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        **adding({**two, "name": "six"}),
    }
    stored = await api.json("PATCH", f"{SUB}?fieldManager=me", json=applied, headers=APPLY)
    (entry,) = (each for each in stored["metadata"]["managedFields"] if each["manager"] == "me")
    assert (entry["operation"], entry["subresource"]) == ("Apply", "ephemeralcontainers")
    assert 'k:{"name":"six"}' in entry["fieldsV1"]["f:spec"]["f:ephemeralContainers"]


async def test_what_is_there_stays(api: Served) -> None:
    await api.json("PATCH", SUB, json=adding({"name": "one", "image": "busybox"}), headers=SMP)
    changed = {"name": "one", "image": "alpine", "command": ["sh"]}
    refused = await api.json("PATCH", SUB, 422, json=adding(changed), headers=SMP)
    (said,) = causes(refused)
    assert said.startswith(
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be changed'
    )
    refused = await api.json("PATCH", SUB, 422, json={"spec": {"ephemeralContainers": None}}, headers=MERGE)
    assert causes(refused) == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "one" may not be removed\n'
    ]
    # The pod itself does not let them in or out.
    refused = await api.json(
        "PATCH", f"{PODS}/web", 422, json=adding({"name": "b", "image": "b"}), headers=SMP
    )
    assert "pod updates may not change fields other than" in refused["message"]
    refused = await api.json(
        "POST", PODS, 422, json=pod("born", ephemeralContainers=[{"name": "a", "image": "a"}])
    )
    assert causes(refused) == ["spec.ephemeralContainers: Forbidden: cannot be set on create"]


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"name": "main"}, 'spec.ephemeralContainers[0].name: Duplicate value: "main"'),
        ({"name": ""}, "spec.ephemeralContainers[0].name: Required value"),
        ({"image": ""}, "spec.ephemeralContainers[0].image: Required value"),
        (
            {"targetContainerName": "nobody"},
            'spec.ephemeralContainers[0].targetContainerName: Not found: "nobody"',
        ),
        (
            {"ports": [{"containerPort": 80}]},
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"restartPolicy": "Always"},
            "spec.ephemeralContainers[0].restartPolicy: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"resources": {"limits": {"cpu": "1"}}},
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]},
            "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ],
)
async def test_bad_containers(api: Served, container: Any, said: str) -> None:
    added = {"name": "d", "image": "busybox", **container}
    refused = await api.json("PATCH", SUB, 422, json=adding(added), headers=SMP)
    assert said in causes(refused)
    assert "ephemeralContainers" not in (await api.json("GET", SUB))["spec"]


async def test_who_is_asked_for_is_there(api: Served) -> None:
    missing = await api.json("PATCH", f"{PODS}/no/ephemeralcontainers", 404, json=adding(), headers=SMP)
    assert missing["message"] == 'pods "no" not found'
    await api.json("POST", SUB, 405, json=pod())
    names = {row["name"]: row for row in (await api.json("GET", "/api/v1"))["resources"]}
    assert names["pods/ephemeralcontainers"]["verbs"] == ["get", "patch", "update"]
    dry = await api.json("PATCH", f"{SUB}?dryRun=All", json=adding({"name": "d", "image": "b"}), headers=SMP)
    assert dry["spec"]["ephemeralContainers"][0]["name"] == "d"
    assert "ephemeralContainers" not in (await api.json("GET", SUB))["spec"]
