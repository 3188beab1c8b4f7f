"""The OpenAPI v2 document and its protobuf form, read back field by field."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from controlplane.resources.catalog import SERVED
from controlplane.resources.versions import gather
from controlplane.schema import openapi_v2
from controlplane.schema.protobuf_wire import parts

DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


@cache
def document() -> dict[str, Any]:
    return openapi_v2.swagger(tuple(gather(SERVED)))


@cache
def protobuf() -> bytes:
    return openapi_v2.encode(document())


def fields(data: bytes | memoryview, number: int) -> list[memoryview]:
    return [part.data for part in parts(memoryview(data)) if part.field == number]


def text(data: memoryview, number: int) -> str:
    return str(fields(data, number)[0], "utf-8")


def named(data: memoryview, number: int) -> dict[str, memoryview]:
    return {text(each, 1): fields(each, 2)[0] for each in fields(data, number)}


def test_patches_are_what_dry_runs_are_looked_for_in() -> None:
    patch = document()["paths"][DEPLOYMENT]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
    }
    assert {"name": "dryRun", "in": "query", "type": "string"}.items() <= patch["parameters"][0].items()
    assert "application/strategic-merge-patch+json" in patch["consumes"]
    body = patch["parameters"][-1]
    assert (body["in"], body["schema"]) == (
        "body", {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"},
    )  # fmt: skip


def test_every_reference_leads_somewhere() -> None:
    definitions = document()["definitions"]

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for each in value.values() for found in references(each)]
        return [found for each in value for found in references(each)] if isinstance(value, list) else []

    found = set(references(document()))
    assert len(found) > 300
    assert {each.removeprefix("#/definitions/") for each in found} <= definitions.keys()
    assert "#/components" not in json.dumps(document())


def test_what_v2_cannot_say() -> None:
    definitions = document()["definitions"]
    assert definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"
    assert definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] == "string"
    assert "oneOf" not in definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]


def test_the_protobuf_form_has_all_paths_and_definitions() -> None:
    (paths,), (definitions,) = fields(protobuf(), 8), fields(protobuf(), 9)
    assert named(paths, 2).keys() == document()["paths"].keys()
    assert named(definitions, 1).keys() == document()["definitions"].keys()
    (patch,) = fields(named(paths, 2)[DEPLOYMENT], 8)
    extension = named(patch, 13)["x-kubernetes-group-version-kind"]
    assert json.loads(text(extension, 2))["kind"] == "Deployment"
    queries = [
        fields(fields(fields(each, 1)[0], 2)[0], 3)
        for each in fields(patch, 8)
        if fields(fields(each, 1)[0], 2)
    ]
    assert "dryRun" in {text(query[0], 4) for query in queries}


def test_a_definition_in_protobuf() -> None:
    (definitions,) = fields(protobuf(), 9)
    schema = named(definitions, 1)["io.k8s.api.core.v1.ServiceSpec"]
    (properties,) = fields(schema, 25)
    ports = named(properties, 1)["ports"]
    assert text(fields(ports, 22)[0], 1) == "array"
    assert json.loads(text(named(ports, 31)["x-kubernetes-patch-merge-key"], 2)) == "port"
    (item,) = fields(fields(ports, 23)[0], 1)
    assert text(item, 1) == "#/definitions/io.k8s.api.core.v1.ServicePort"
