"""Server-side apply and field owners over real TLS, on the built-in kinds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.apiserver import Served
from support.registry_kinds import WIDGET

from controlplane.apiserver.bodies import Target, decode_patch
from controlplane.errors import UnsupportedMediaType
from controlplane.schema.openapi_paths import paths

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"
PODS = "/api/v1/namespaces/default/pods"
APPLY = {"Content-Type": "application/apply-patch+yaml"}
MERGE = {"Content-Type": "application/merge-patch+json"}


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(replicas: int | None = 2, image: str = "nginx:1") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


async def apply(
    api: Served, path: str, obj: Any, status: int = 200, manager: str = "me", query: str = ""
) -> Any:
    data = obj if isinstance(obj, str | bytes) else json.dumps(obj)
    url = f"{path}?fieldManager={manager}{query}"
    return await api.json("PATCH", url, status, data=data, headers=APPLY)


def entry_of(obj: dict[str, Any], manager: str, subresource: str | None = None) -> dict[str, Any]:
    entries = obj["metadata"]["managedFields"]
    found: list[dict[str, Any]] = [
        entry for entry in entries if (entry["manager"], entry.get("subresource")) == (manager, subresource)
    ]
    assert len(found) == 1, entries
    return found[0]


async def test_apply_creates_updates_and_rests(api: Served) -> None:
    path = f"{DEPLOYMENTS}/a"
    made = await apply(api, path, deployment(), 201)
    assert made["metadata"]["generation"] == 1
    assert entry_of(made, "me")["operation"] == "Apply"
    assert await apply(api, path, deployment()) == made
    changed = await apply(api, path, deployment(image="nginx:2"))
    assert changed["metadata"]["generation"] == 2
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("nginx:2", "IfNotPresent")
    quantity = deployment()
    quantity["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "0.5"}}
    first = await apply(api, path, quantity)
    assert await apply(api, path, quantity) == first


async def test_yaml_is_what_it_takes(api: Served) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n  when: 2020-01-01\n"
    assert (await apply(api, f"{MAPS}/a", text, 201))["data"] == {"k": "v", "when": "2020-01-01"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "[]",
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array",
        ),
        ("a: b: c", "error decoding YAML: error converting YAML to JSON: yaml: line 1"),
        ("", "invalid object type: /, Kind="),
        (
            "a: &a [*a]",
            "error decoding YAML: error converting YAML to JSON: yaml: anchor value contains itself",
        ),
        ('{"apiVersion":"v1","kind":"Secret"}', "invalid object type: /v1, Kind=Secret"),
        ('{"apiVersion":"apps/v1","kind":"ConfigMap"}', "invalid object type: apps/v1, Kind=ConfigMap"),
    ],
)
async def test_bodies_that_are_no_such_object(api: Served, body: str, message: str) -> None:
    refused = await apply(api, f"{MAPS}/a", body, 400)
    assert refused["message"].startswith(message)


async def test_aliases_do_not_explode(api: Served) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 12):
        lines.append(f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]")
    refused = await apply(api, f"{MAPS}/a", "\n".join(lines), 400)
    assert "document contains excessive aliasing" in refused["message"]
    async with api.session.post(
        api.url + MAPS, data="\n".join(lines), headers={"Content-Type": "application/yaml"}
    ) as answer:
        assert answer.status == 400


async def test_what_the_body_may_not_say(api: Served) -> None:
    managed = {**config_map(), "metadata": {"name": "a", "managedFields": []}}
    assert (await apply(api, f"{MAPS}/a", managed, 400))["message"] == "metadata.managedFields must be nil"
    name = await apply(api, f"{MAPS}/a", config_map("b"), 400)
    assert name["message"] == "the name of the object (b) does not match the name on the URL (a)"
    space = {**config_map(), "metadata": {"name": "a", "namespace": "kube-system"}}
    assert (await apply(api, f"{MAPS}/a", space, 400))["message"] == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    uid = {**config_map(), "metadata": {"name": "a", "uid": "u"}}
    assert (
        "uid mismatch: the provided object specified uid u, and no existing object was found"
        in ((await apply(api, f"{MAPS}/a", uid, 409))["message"])
    )
    await apply(api, f"{MAPS}/a", config_map(k="v"), 201)
    assert (
        "Precondition failed: UID in precondition: u" in (await apply(api, f"{MAPS}/a", uid, 409))["message"]
    )
    stale = {**config_map(), "metadata": {"name": "a", "resourceVersion": "1"}}
    assert "the object has been modified" in (await apply(api, f"{MAPS}/a", stale, 409))["message"]


async def test_what_the_query_must_and_may_not_say(api: Served) -> None:
    missing = await api.json("PATCH", f"{MAPS}/a", 422, data="{}", headers=APPLY)
    assert missing["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )
    forced = await api.json("PATCH", f"{MAPS}/a?force=true", 422, data="{}", headers=MERGE)
    assert forced["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch'
    )
    long = await apply(api, f"{MAPS}/a", config_map(), 422, manager="m" * 129)
    assert "fieldManager: Too long: may not be more than 128 bytes" in long["message"]
    odd = await apply(api, f"{MAPS}/a", config_map(), 422, manager="a%0Ab")
    assert "invalid character U+000A (at position 1)" in odd["message"]
    word = await apply(api, f"{MAPS}/a", config_map(), 422, query="&fieldValidation=Loud")
    assert word["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Loud": supported values: "", '
        '"Ignore", "Strict", "Warn"'
    )
    cbor = {"Content-Type": "application/apply-patch+cbor"}
    refused = await api.json("PATCH", f"{MAPS}/a?fieldManager=m", 415, data=b"\xa0", headers=cbor)
    assert refused["message"].endswith(
        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, "
        "application/apply-patch+yaml"
    )


async def test_doubled_fields(api: Served) -> None:
    doubled = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}'
    strict = await apply(api, f"{MAPS}/a", doubled, 400, query="&fieldValidation=Strict")
    assert strict["message"] == (
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 1: key "k" already set in map'
    )
    async with api.session.patch(f"{api.url}{MAPS}/a?fieldManager=me", data=doubled, headers=APPLY) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "line 1: key \\"k\\" already set in map"'
        assert (await answer.json())["data"] == {"k": "2"}

    text = "kind: ConfigMap\nmetadata: {name: b}\ndata:\n  k: a\n  k: b\n"
    headers = {"Content-Type": "application/yaml"}
    refused = await api.json("POST", f"{MAPS}?fieldValidation=Strict", 400, data=text, headers=headers)
    assert refused["message"].endswith(
        'strict decoding error: yaml: unmarshal errors:\n  line 5: key "k" already set in map'
    )


async def test_unknown_fields_are_refused_whatever_the_validation(api: Served) -> None:
    for word in ("Strict", "Warn", "Ignore"):
        refused = await apply(
            api, f"{MAPS}/a", {**config_map(), "spec": {}}, 500, query=f"&fieldValidation={word}"
        )
        assert refused["message"] == (
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .spec: field not declared in schema"
        )
        assert "reason" not in refused


async def test_a_dry_run_stores_nothing(api: Served) -> None:
    made = await apply(api, f"{MAPS}/a", config_map(k="v"), 201, query="&dryRun=All")
    assert made["data"] == {"k": "v"}
    await api.json("GET", f"{MAPS}/a", 404)
    stored = await apply(api, f"{MAPS}/a", config_map(k="v"), 201)
    dry = await apply(api, f"{MAPS}/a", config_map(k="w"), query="&dryRun=All")
    assert dry["data"] == {"k": "w"}
    assert await api.json("GET", f"{MAPS}/a") == stored


async def test_conflict_force_and_shared_ownership(api: Served) -> None:
    await apply(api, f"{MAPS}/a", config_map(k="1", own="x"), 201)
    clash = await apply(api, f"{MAPS}/a", config_map(k="2"), 409, manager="other")
    assert clash["details"] == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".data.k"}]
    }
    assert clash["reason"] == "Conflict"
    await apply(api, f"{MAPS}/a", config_map(own="x"), manager="other")
    forced = await apply(api, f"{MAPS}/a", config_map(k="2", own="x"), manager="other", query="&force=true")
    assert entry_of(forced, "me")["fieldsV1"] == {"f:data": {"f:own": {}}}
    left = await apply(api, f"{MAPS}/a", config_map())
    assert left["data"] == {"k": "2", "own": "x"}
    bare = await apply(api, f"{MAPS}/a", config_map(), manager="other")
    assert "data" not in bare


async def test_status_has_owners_of_its_own(api: Served) -> None:
    await apply(api, f"{DEPLOYMENTS}/a", deployment(), 201)
    status = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "labels": {"not": "taken"}},
        "spec": {"replicas": 9},
        "status": {"observedGeneration": 1, "conditions": [{"type": "T", "status": "True"}]},
    }
    for changed, number in ((status, 1), (status, 1)):
        applied = await apply(api, f"{DEPLOYMENTS}/a/status", changed, manager="controller")
        assert applied["status"]["observedGeneration"] == number
    assert applied["spec"]["replicas"] == 2
    entry = entry_of(applied, "controller", "status")
    assert entry["fieldsV1"] == {
        "f:status": {
            "f:conditions": {'k:{"type":"T"}': {".": {}, "f:status": {}, "f:type": {}}},
            "f:observedGeneration": {},
        }
    }
    patched = await api.json(
        "PATCH", f"{DEPLOYMENTS}/a/status", data='{"status":{"replicas":3}}',
        headers={**MERGE, "User-Agent": "manager-of-old/v1"},
    )  # fmt: skip
    assert entry_of(patched, "manager-of-old", "status")["fieldsV1"] == {"f:status": {"f:replicas": {}}}
    missing = {**status, "metadata": {"name": "b"}}
    await apply(api, f"{DEPLOYMENTS}/b/status", missing, 404, manager="controller")


async def test_replicas_change_hands_through_scale(api: Served) -> None:
    await apply(api, f"{DEPLOYMENTS}/a", deployment(), 201)
    headers = {**MERGE, "User-Agent": "scaler/v1"}
    scale = await api.json("PATCH", f"{DEPLOYMENTS}/a/scale", data='{"spec":{"replicas":5}}', headers=headers)
    assert scale["spec"]["replicas"] == 5
    assert "managedFields" not in scale["metadata"]
    obj = await api.json("GET", f"{DEPLOYMENTS}/a")
    entry = entry_of(obj, "scaler", "scale")
    assert (entry["apiVersion"], entry["operation"], entry["fieldsV1"]) == (
        "apps/v1", "Update", {"f:spec": {"f:replicas": {}}},
    )  # fmt: skip
    assert "f:replicas" not in entry_of(obj, "me")["fieldsV1"]["f:spec"]
    clash = await apply(api, f"{DEPLOYMENTS}/a", deployment(), 409)
    assert clash["message"] == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas'
    )
    applied_scale = {
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 7},
    }  # fmt: skip
    refused = await apply(api, f"{DEPLOYMENTS}/a/scale", applied_scale, 409, manager="hpa")
    assert 'conflict with "scaler" with subresource "scale" using autoscaling/v1' in refused["message"]
    await apply(api, f"{DEPLOYMENTS}/a/scale", applied_scale, manager="hpa", query="&force=true")
    obj = await api.json("GET", f"{DEPLOYMENTS}/a")
    assert obj["spec"]["replicas"] == 7
    assert entry_of(obj, "hpa", "scale")["operation"] == "Apply"
    kept = await apply(api, f"{DEPLOYMENTS}/a", deployment(None))
    assert kept["spec"]["replicas"] == 7


async def test_service_ports_go_by_port_and_protocol(api: Served) -> None:
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dns"},
        "spec": {"ports": [{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]},
    }
    made = await apply(api, f"{SERVICES}/dns", service, 201)
    assert [port["protocol"] for port in made["spec"]["ports"]] == ["UDP", "TCP"]
    service["spec"]["ports"] = [{"name": "tcp", "port": 53}]
    left = await apply(api, f"{SERVICES}/dns", service)
    assert [port["name"] for port in left["spec"]["ports"]] == ["tcp"]
    assert left["spec"]["clusterIP"] == made["spec"]["clusterIP"]


async def test_managers_are_named_after_their_user_agents(api: Served) -> None:
    headers = {"User-Agent": "curl/8.0 (x)"}
    made = await api.json("POST", MAPS, 201, json=config_map(k="v"), headers=headers)
    assert entry_of(made, "curl")["fieldsV1"] == {"f:data": {".": {}, "f:k": {}}}
    named = await api.json("PUT", f"{MAPS}/a?fieldManager=mine", json=config_map(k="w"), headers=headers)
    assert entry_of(named, "mine")["fieldsV1"] == {"f:data": {"f:k": {}}}
    assert entry_of(named, "curl")["fieldsV1"] == {"f:data": {}}
    bootstrap = await api.json("GET", "/api/v1/namespaces/kube-system")
    assert entry_of(bootstrap, "kube-apiserver")["operation"] == "Update"


async def test_writes_of_nothing_new_are_none(api: Served) -> None:
    made = await api.json("POST", MAPS, 201, json=config_map(k="v"))
    assert await api.json("PUT", f"{MAPS}/a?fieldManager=other", json=config_map(k="v")) == made
    assert await api.json("PATCH", f"{MAPS}/a", data='{"data":{"k":"v"}}', headers=MERGE) == made


async def test_migration_patches_entries_themselves(api: Served) -> None:
    made = await api.json("POST", MAPS, 201, json=config_map(k="v"))
    (entry,) = made["metadata"]["managedFields"]
    operations = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [{**entry, "operation": "Apply"}]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
    ]
    headers = {"Content-Type": "application/json-patch+json"}
    moved = await api.json("PATCH", f"{MAPS}/a", data=json.dumps(operations), headers=headers)
    assert moved["metadata"]["managedFields"] == [{**entry, "operation": "Apply"}]
    await api.json("PATCH", f"{MAPS}/a", 409, data=json.dumps(operations), headers=headers)
    reset = await api.json("PATCH", f"{MAPS}/a", data='{"metadata":{"managedFields":[{}]}}', headers=MERGE)
    assert "managedFields" not in reset["metadata"]


async def test_binding_has_no_owner(api: Served) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.json("POST", PODS, 201, json={"metadata": {"name": "p"}, "spec": spec})
    await api.json(
        "POST", f"{PODS}/p/binding", 201, json={"metadata": {"name": "p"}, "target": {"name": "n"}}
    )
    pod = await api.json("GET", f"{PODS}/p")
    assert pod["spec"]["nodeName"] == "n"
    assert all("f:nodeName" not in e["fieldsV1"].get("f:spec", {}) for e in pod["metadata"]["managedFields"])


async def test_an_object_being_deleted_can_be_applied_to(api: Served) -> None:
    held = {**config_map(k="v"), "metadata": {"name": "a", "finalizers": ["x/y"]}}
    await apply(api, f"{MAPS}/a", held, 201)
    await api.json("DELETE", f"{MAPS}/a")
    held["data"] = {"k": "w"}
    assert (await apply(api, f"{MAPS}/a", held))["metadata"]["deletionTimestamp"]
    await apply(api, f"{MAPS}/a", config_map(k="w"))
    await api.json("GET", f"{MAPS}/a", 404)


async def test_owner_references_that_are_there_twice_count_once(api: Served) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    obj = {**config_map(), "metadata": {"name": "a", "ownerReferences": [owner, owner]}}
    async with api.session.post(api.url + MAPS, json=obj) as answer:
        assert answer.status == 201
        assert "duplicate UID(s) observed: u" in answer.headers["Warning"]
        assert (await answer.json())["metadata"]["ownerReferences"] == [owner]


async def test_what_patches_are_told(api: Served) -> None:
    await api.json("POST", MAPS, 201, json=config_map(k="v"))
    many = json.dumps([{"op": "test", "path": "/data/k", "value": "v"}] * 10_001)
    headers = {"Content-Type": "application/json-patch+json"}
    large = await api.json("PATCH", f"{MAPS}/a", 413, data=many, headers=headers)
    assert "allowed maximum operations in a JSON patch is 10000, got 10001" in large["message"]
    copies = [{"op": "add", "path": "/data/x", "value": "x" * 1000}]
    copies += [{"op": "copy", "from": "/data", "path": f"/data/d{number}"} for number in range(40)]
    refused = await api.json("PATCH", f"{MAPS}/a", 422, data=json.dumps(copies), headers=headers)
    assert refused["message"] == "the server rejected our request due to an error in our request"
    odd = '[{"op":"add","path":"/data/z","value":"1","path":"/data/y","extra":1}]'
    strict = await api.json("PATCH", f"{MAPS}/a?fieldValidation=Strict", 422, data=odd, headers=headers)
    assert (
        'strict decoding error: json patch duplicate field "[0].path", json patch unknown field "[0].extra"'
    ) in strict["message"]
    assert strict["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    unknown = {f"unknown{number:03}": 1 for number in range(150)}
    many_faults = await api.json(
        "POST", f"{MAPS}?fieldValidation=Strict", 400, json={**config_map("b"), **unknown}
    )
    assert many_faults["message"].count("unknown field") == 100


def test_custom_resources_take_no_strategic_merge_patch() -> None:
    custom = Target("test.example/v1", "Thing", strategic_merge=False)
    with pytest.raises(UnsupportedMediaType) as caught:
        decode_patch("application/strategic-merge-patch+json", b"{}", custom)
    assert caught.value.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )
    assert decode_patch("application/apply-patch+yaml", b"a: 1", custom).value == {"a": 1}
    (item,) = (
        item for path, item in paths(replace(WIDGET, strategic_merge=False)) if path.endswith("{name}")
    )
    assert list(item["patch"]["requestBody"]["content"]) == [
        "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    ]  # fmt: skip
