"""Definitions and their instances over the real server: served at once, in several versions, gone in order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.apiserver import Served
from support.custom import CRDS, GROUP, SPEC, WIDGETS, definition, schema, version, widget
from support.definitions import made, wait_for

from controlplane.meta import conditions

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
    await api.json("POST", WIDGETS, 405, json=widget("late"))
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


PROPERTIES = "spec.validation.openAPIV3Schema.properties[spec]"


def with_spec(spec: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"versions": [version(schema=schema(spec))]}}


def with_rule(rule: str) -> dict[str, Any]:
    return with_spec({**SPEC, "x-kubernetes-validations": [{"rule": rule}]})


def with_version(**rest: Any) -> dict[str, Any]:
    return {"spec": {"versions": [version(**rest)]}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metadata": {"name": "wrong.example.com"}},
         'metadata.name: Invalid value: "wrong.example.com": must be spec.names.plural+"."+spec.group'),
        ({"spec": {"scope": "Everywhere"}},
         'spec.scope: Unsupported value: "Everywhere": supported values: "Cluster", "Namespaced"'),
        (with_version(storage=False), "must have exactly one version marked as storage version"),
        ({"spec": {"versions": [{**version(), "schema": {}}]}},
         "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        (with_spec({"properties": {"a": {"type": "string"}}}),
         f"{PROPERTIES}.type: Required value: must not be empty for specified object fields"),
        (with_version(schema={"type": "object", "anyOf": [{"properties": {"x": {}}}]}),
         "spec.validation.openAPIV3Schema.properties[x]: Required value: because it is defined in "
         "spec.validation.openAPIV3Schema.anyOf[0].properties[x]"),
        (with_spec({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}),
         f'{PROPERTIES}.properties[n].default: Invalid value: "string": {PROPERTIES}.properties[n].default in body '
         'must be of type integer: "string"'),
        (with_spec({"type": "object", "properties": {"n": {"type": "object", "default": {"x": 1}}}}),
         "must not have unknown fields"),
        (with_spec({"type": "string", "pattern": "("}), "must be a valid regular expression, but isn't: "),
        (with_version(additionalPrinterColumns=[{"name": "a", "type": "text", "jsonPath": "spec"}]),
         'spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of '
         "boolean,date,integer,number,string"),
        ({"spec": {"conversion": {"strategy": "Webhook"}}},
         "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        (with_rule("self.x > 1"), "undefined field 'x'"),
        (with_rule("self.size"), "cel expression must evaluate to a bool"),
        (with_spec({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [
            {"rule": "self == oldSelf"}]}}),
         "oldSelf cannot be used on the uncorrelatable portion of the schema within"),
        (with_spec({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
                    "x-kubernetes-validations": [{"rule": "self.all(x, x.all(y, y.contains('a')))"}]}),
         "estimated rule cost exceeds budget by factor of more than 100x"),
        (with_version(selectableFields=[{"jsonPath": ".spec.nothing"}]),
         'spec.selectableFields[0].jsonPath: Invalid value: ".spec.nothing": is an invalid path'),
    ],
)  # fmt: skip
async def test_bad_definitions(api: Served, change: dict[str, Any], expected: str) -> None:
    wanted = definition()
    for part, values in change.items():
        wanted[part] = {**wanted[part], **values}
    refused = await api.json("POST", CRDS, 422, json=wanted)
    assert any(expected in each for each in causes(refused)), causes(refused)


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


@pytest.mark.parametrize(
    "spec",
    [
        {"versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"a": {"type": "array", "items": {"type": 5}}}}}}]},
        {"versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "additionalProperties": {"properties": "x"}}}}]},
        {"versions": [{}]},
        {},
    ],
)  # fmt: skip
async def test_nonsense_is_refused_in_one_piece(api: Served, spec: dict[str, Any]) -> None:
    wanted = {**definition(), "spec": spec}
    async with api.session.post(api.url + CRDS, json=wanted) as answer:
        assert answer.status in (400, 422), await answer.text()


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
