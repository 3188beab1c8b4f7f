"""Definitions and their instances over the real server: served at once, in several versions, gone in order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support.apiserver import Served
from support.custom import CRDS, GROUP, WIDGETS, definition, schema, version, widget
from support.definitions import made, wait_for
from support.protobuf import envelope, length, number

from controlplane.apiserver.custom_resources.definitions import CustomResources
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.meta import conditions

PROTOBUF = "application/vnd.kubernetes.protobuf"
BETA = WIDGETS.replace("/v1/", "/v1beta1/")


def causes(status: Any) -> list[str]:
    return [f"{each['field']}: {each['message']}" for each in status["details"]["causes"]]


async def test_a_kind_is_there_as_soon_as_it_is_established(api: Served) -> None:
    found = await made(api, definition(names={"shortNames": ["wd"], "categories": ["all"]}))
    assert found["status"]["acceptedNames"] == {
        "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"],
        "categories": ["all"],
    }  # fmt: skip
    assert found["status"]["storedVersions"] == ["v1"]
    resources = await api.json("GET", f"/apis/{GROUP}/v1")
    assert resources["resources"][0]["name"] == "widgets"
    assert GROUP in {group["name"] for group in (await api.json("GET", "/apis"))["groups"]}
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    groups = (await api.json("GET", "/apis", headers=accept))["items"]
    (served,) = (group["versions"][0] for group in groups if group["metadata"]["name"] == GROUP)
    assert served["freshness"] == "Current"
    assert served["resources"][0]["responseKind"] == {"group": GROUP, "version": "v1", "kind": "Widget"}
    index = (await api.json("GET", "/openapi/v3"))["paths"]
    document = await api.json("GET", index[f"apis/{GROUP}/v1"]["serverRelativeURL"])
    patch = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}"]["patch"]
    assert list(patch["requestBody"]["content"]) == [
        "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    ]  # fmt: skip
    spec = document["components"]["schemas"]["com.example.stable.v1.Widget"]["properties"]["spec"]
    assert spec["properties"]["size"]["default"] == 1


async def test_the_life_of_a_custom_resource(api: Served) -> None:
    await made(api, definition())
    new = await api.json("POST", f"{WIDGETS}?fieldValidation=Ignore", 201, json=widget(colour="red", extra=1))
    assert new["spec"] == {"colour": "red", "size": 1}
    assert new["metadata"]["generation"] == 1
    refused = await api.json("POST", f"{WIDGETS}?fieldValidation=Strict", 400, json=widget("x", extra=1))
    assert refused["message"] == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.extra"'
    )
    async with api.session.post(api.url + WIDGETS, json=widget("warned", extra=1)) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "unknown field \\"spec.extra\\""'
    bad = await api.json("POST", WIDGETS, 422, json=widget("bad", size=0, colour="blue"))
    assert bad["message"].startswith('Widget.stable.example.com "bad" is invalid: [')
    assert causes(bad) == [
        "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        'spec.colour: Unsupported value: "blue": supported values: "red", "green"',
    ]
    unconditional = await api.json("PUT", f"{WIDGETS}/w", 422, json=widget(size=2))
    assert causes(unconditional) == [
        "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    ]
    changed = await api.json("PUT", f"{WIDGETS}/w", json={**new, "spec": {"size": 2}})
    assert (changed["spec"], changed["metadata"]["generation"]) == ({"size": 2}, 2)
    smp = {"Content-Type": "application/strategic-merge-patch+json"}
    refused = await api.json("PATCH", f"{WIDGETS}/w", 415, json={"spec": {"size": 3}}, headers=smp)
    assert "application/apply-patch+yaml" in refused["message"]
    apply = {"Content-Type": "application/apply-patch+yaml"}
    applied = await api.json(
        "PATCH", f"{WIDGETS}/w?fieldManager=me&force=true", json=widget(size=4), headers=apply
    )
    owners = {entry["manager"]: entry["fieldsV1"] for entry in applied["metadata"]["managedFields"]}
    assert owners["me"] == {"f:spec": {"f:size": {}}}


async def test_status_and_scale(api: Served) -> None:
    paths = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.phase",
    }
    await made(api, definition(version(subresources={"status": {}, "scale": paths})))
    new = await api.json("POST", WIDGETS, 201, json={**widget(), "status": {"size": 9}})
    assert "status" not in new
    new["status"] = {"size": 3, "phase": "a=b"}
    told = await api.json("PUT", f"{WIDGETS}/w/status", json={**new, "spec": {"size": 7}})
    assert (told["spec"], told["status"], told["metadata"]["generation"]) == ({"size": 1}, new["status"], 1)
    scale = await api.json("GET", f"{WIDGETS}/w/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 3, "selector": "a=b"})
    merge = {"Content-Type": "application/merge-patch+json"}
    await api.json("PATCH", f"{WIDGETS}/w/scale", json={"spec": {"replicas": 5}}, headers=merge)
    assert (await api.json("GET", f"{WIDGETS}/w"))["spec"]["size"] == 5


async def test_versions_without_a_webhook(api: Served) -> None:
    beta = version("v1beta1", storage=False, deprecated=True, selectableFields=[{"jsonPath": ".spec.colour"}])
    await made(api, definition(version(), beta))
    await api.json("POST", WIDGETS, 201, json=widget("one", colour="red"))
    await api.json("POST", BETA, 201, json=widget("two", f"{GROUP}/v1beta1", colour="green"))
    for path, api_version in ((WIDGETS, f"{GROUP}/v1"), (BETA, f"{GROUP}/v1beta1")):
        listed = await api.json("GET", path)
        assert [(each["metadata"]["name"], each["apiVersion"]) for each in listed["items"]] == [
            ("one", api_version), ("two", api_version),
        ]  # fmt: skip
    async with api.session.get(f"{api.url}{BETA}/one") as answer:
        assert answer.headers["Warning"] == f'299 - "{GROUP}/v1beta1 Widget is deprecated"'
    selected = await api.json("GET", f"{BETA}?fieldSelector=spec.colour=green")
    assert [each["metadata"]["name"] for each in selected["items"]] == ["two"]
    assert (
        "field label not supported"
        in (await api.json("GET", f"{WIDGETS}?fieldSelector=spec.colour=red", 400))["message"]
    )
    merge = {"Content-Type": "application/merge-patch+json"}
    await api.json("PATCH", f"{WIDGETS}/two", json={"spec": {"size": 8}}, headers=merge)
    assert (await api.json("GET", f"{BETA}/two"))["spec"]["size"] == 8
    await api.json("DELETE", f"{BETA}/two")
    await api.json("GET", f"{WIDGETS}/two", 404)


async def test_watches_of_another_version_see_what_the_first_one_writes(api: Served) -> None:
    await made(api, definition(version(), version("v1beta1", storage=False)))
    async with api.session.get(f"{api.url}{BETA}?watch=true&timeoutSeconds=20") as answer:
        await api.json("POST", WIDGETS, 201, json=widget())
        line = await asyncio.wait_for(answer.content.readline(), 10)
    event = json.loads(line)
    assert (event["type"], event["object"]["apiVersion"]) == ("ADDED", f"{GROUP}/v1beta1")


async def test_a_changed_schema_counts_at_once_for_what_is_stored(api: Served) -> None:
    found = await made(api, definition())
    await api.json("POST", WIDGETS, 201, json=widget(colour="red"))
    spec = {
        "type": "object",
        "properties": {"size": {"type": "integer"}, "more": {"type": "string", "default": "new"}},
    }
    found["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema(spec)
    await api.json("PUT", f"{CRDS}/{found['metadata']['name']}", json=found)
    async with asyncio.timeout(10):
        while (now := await api.json("GET", f"{WIDGETS}/w"))["spec"] != {"size": 1, "more": "new"}:
            assert now["spec"] == {"size": 1, "colour": "red"}


async def test_names_are_given_once(api: Served) -> None:
    await made(api, definition(names={"shortNames": ["wd"]}))
    other = definition(plural="gadgets", kind="Widget", names={"shortNames": ["wd"]})
    await api.json("POST", CRDS, 201, json=other)
    found = await wait_for(api, f"gadgets.{GROUP}", "NamesAccepted", "False")
    refused = conditions.of(found, "NamesAccepted")
    assert refused is not None
    assert (refused["reason"], refused["message"]) == ("ListKindConflict", '"WidgetList" is already in use')
    assert conditions.status_of(found, "Established") == "False"
    await api.json("GET", f"/apis/{GROUP}/v1/gadgets", 404)
    await api.json("DELETE", f"{CRDS}/widgets.{GROUP}")
    await wait_for(api, f"gadgets.{GROUP}", "Established")
    await api.json("GET", f"/apis/{GROUP}/v1/gadgets")


async def test_instances_go_before_their_definition(api: Served) -> None:
    await made(api, definition())
    held = widget()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.json("POST", WIDGETS, 201, json=held)
    answer = await api.json("DELETE", f"{CRDS}/widgets.{GROUP}")
    assert answer["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await wait_for(api, f"widgets.{GROUP}", "Terminating")
    async with asyncio.timeout(10):
        while not (await api.json("GET", f"{WIDGETS}/w"))["metadata"].get("deletionTimestamp"):
            """The deletion begins a moment after the condition."""
    refused = await api.json("POST", WIDGETS, 405, json=widget("late"))
    assert refused["message"] == "create not allowed while custom resource definition is terminating"
    merge = {"Content-Type": "application/merge-patch+json"}
    await api.json("PATCH", f"{WIDGETS}/w", json={"metadata": {"finalizers": None}}, headers=merge)
    async with asyncio.timeout(10):
        while True:
            async with api.session.get(f"{api.url}{CRDS}/widgets.{GROUP}") as gone:
                if gone.status == 404:
                    break
    async with asyncio.timeout(10):
        while True:
            async with api.session.get(f"{api.url}{WIDGETS}") as gone:
                if gone.status == 404:
                    break


async def test_a_stored_version_stays(api: Served) -> None:
    found = await made(api, definition(version(), version("v2", storage=False)))
    first, second = found["spec"]["versions"]
    first["storage"], second["storage"] = False, True
    found = await api.json("PUT", f"{CRDS}/widgets.{GROUP}", json=found)
    assert found["status"]["storedVersions"] == ["v1", "v2"]
    found["spec"]["versions"] = [second]
    refused = await api.json("PUT", f"{CRDS}/widgets.{GROUP}", 422, json=found)
    (cause,) = causes(refused)
    assert cause.startswith(
        'status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was'
    )
    found["status"]["storedVersions"] = ["v2"]
    found["spec"]["versions"] = [first, second]
    found = await api.json("PUT", f"{CRDS}/widgets.{GROUP}/status", json=found)
    found["spec"]["versions"] = [second]
    await api.json("PUT", f"{CRDS}/widgets.{GROUP}", json=found)


NONSENSE: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": 5}}}},
    {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"properties": "x"}}}},
    {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": 5}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": True}}},
    {"type": "object", "dependencies": {"a": 5}},
    {"type": "object", "properties": {"$ref": {"type": "nothing"}}, "$ref": "x"},
]


async def test_nonsense_is_refused_in_one_piece(api: Served) -> None:
    versions = [[version(schema=each)] for each in NONSENSE]
    for spec in [*({**definition()["spec"], "versions": each} for each in [*versions, [{}]]), {}]:
        async with api.session.post(api.url + CRDS, json={**definition(), "spec": spec}) as answer:
            assert answer.status in (400, 422), (spec, await answer.text())


async def test_deeply_nested_objects_are_refused(api: Served) -> None:
    await made(
        api, definition(version(schema={"type": "object", "x-kubernetes-preserve-unknown-fields": True}))
    )
    deep: Any = 1
    for _ in range(230):
        deep = {"a": deep}
    async with api.session.post(api.url + WIDGETS, json={**widget(), "more": deep}) as answer:
        assert answer.status == 400, await answer.text()


async def test_a_hundred_definitions_at_once(api: Served) -> None:
    async def one(number: int) -> None:
        await api.json("POST", CRDS, 201, json=definition(plural=f"k{number}s", kind=f"K{number}"))

    await asyncio.gather(*(one(number) for number in range(100)))
    await asyncio.gather(*(wait_for(api, f"k{number}s.{GROUP}", "Established") for number in range(100)))
    found = await api.json("GET", f"/apis/{GROUP}/v1")
    assert len(found["resources"]) == 100


async def test_columns(api: Served) -> None:
    columns = [
        {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "None", "type": "string", "jsonPath": ".status.phase"},
    ]
    await made(api, definition(version(additionalPrinterColumns=columns)))
    await api.json("POST", WIDGETS, 201, json=widget(colour="red"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = await api.json("GET", WIDGETS, headers=accept)
    assert [(each["name"], each["priority"]) for each in table["columnDefinitions"]] == [
        ("Name", 0), ("Colour", 0), ("Size", 1), ("Since", 0), ("None", 0),
    ]  # fmt: skip
    name, colour, size, since, nothing = table["rows"][0]["cells"]
    assert (name, colour, size, nothing) == ("w", "red", 1, None)
    assert since.endswith("s")


async def test_bytes_from_outside(api: Served) -> None:
    await made(api, definition())
    for body in (b"", b"[]", b"{", b"\xff", b'{"metadata":[]}', b'{"spec":[]}', b'{"metadata":{"labels":1}}'):
        headers = {"Content-Type": "application/json"}
        async with api.session.post(api.url + WIDGETS, data=body, headers=headers) as answer:
            assert answer.status in (400, 422), (body, await answer.text())


async def test_what_has_no_number_has_no_scale(api: Served) -> None:
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.size"}
    spec = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    await made(api, definition(version(schema=schema(spec), subresources={"scale": paths})))
    await api.json("POST", WIDGETS, 201, json=widget())
    refused = await api.json("GET", f"{WIDGETS}/w/scale", 500)
    assert (
        refused["message"]
        == 'Internal error occurred: the spec replicas field ".spec.replicas" does not exist'
    )


async def test_without_a_status_subresource_the_status_is_a_field(api: Served) -> None:
    await made(api, definition())
    new = await api.json("POST", WIDGETS, 201, json={**widget(), "status": {"phase": "new"}})
    assert new["status"] == {"phase": "new"}
    changed = await api.json("PUT", f"{WIDGETS}/w", json={**new, "status": {"phase": "old"}})
    assert (changed["status"], changed["metadata"]["generation"]) == ({"phase": "old"}, 2)
    await api.json("PUT", f"{WIDGETS}/w/status", 404, json=changed)


async def test_bodies_in_protobuf_are_refused(api: Served) -> None:
    await made(api, definition())
    headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    async with api.session.post(api.url + WIDGETS, data=b"k8s\0", headers=headers) as answer:
        assert answer.status == 415


async def test_cluster_scoped_kinds(api: Served) -> None:
    await made(api, definition(scope="Cluster"))
    path = f"/apis/{GROUP}/v1/widgets"
    made_ = await api.json("POST", path, 201, json=widget())
    assert "namespace" not in made_["metadata"]
    await api.json("GET", WIDGETS, 404)
    assert len((await api.json("GET", path))["items"]) == 1


async def test_kinds_are_served_after_a_restart(api: Served) -> None:
    """A second follower of the same definitions, as after a restart, serves them before it has seen any change."""
    await made(api, definition())
    await api.json("POST", WIDGETS, 201, json=widget())
    registry = api.server._core._registry
    registry.kinds.replace(f"widgets.{GROUP}", ())
    await api.json("GET", WIDGETS, 404)

    async def no_dial(address: str, port: int) -> Any:
        raise ConnectionError

    second = CustomResources(registry, WebhookClient(EndpointResolver(registry), no_dial))
    await second.start()
    assert len((await api.json("GET", WIDGETS))["items"]) == 1
    await second.close()


async def test_versions_have_api_services_while_they_are_served(api: Served) -> None:
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    before = {each["metadata"]["name"] for each in (await api.json("GET", path))["items"]}
    await made(api, definition())
    await made(api, definition(version(), version("v2", storage=False), plural="gadgets", kind="Gadget"))
    now = {each["metadata"]["name"] for each in (await api.json("GET", path))["items"]}
    assert now - before == {f"v1.{GROUP}", f"v2.{GROUP}"}
    service = await api.json("GET", f"{path}/v1.{GROUP}")
    assert (service["spec"]["groupPriorityMinimum"], service["spec"]["versionPriority"]) == (1000, 100)
    await api.json("DELETE", f"{CRDS}/gadgets.{GROUP}")
    async with asyncio.timeout(10):
        while {each["metadata"]["name"] for each in (await api.json("GET", path))["items"]} - before != {
            f"v1.{GROUP}"
        }:
            """The definition goes a moment later."""


async def test_a_definition_in_protobuf(api: Served) -> None:
    schema = length(1, length(5, b"object") + number(38, 1))
    version = length(1, b"v1") + number(2, 1) + number(3, 1) + length(4, schema)
    names = length(1, b"gears") + length(4, b"Gear")
    spec = length(1, b"example.com") + length(3, names) + length(4, b"Cluster") + length(7, version)
    body = length(1, length(1, b"gears.example.com")) + length(2, spec)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    data = envelope(body, "apiextensions.k8s.io/v1", "CustomResourceDefinition")
    made = await api.json("POST", path, 201, data=data, headers={"Content-Type": PROTOBUF})
    assert made["spec"]["names"] == {
        "plural": "gears", "singular": "gear", "kind": "Gear", "listKind": "GearList",
    }  # fmt: skip
