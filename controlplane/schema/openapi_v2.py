"""OpenAPI v2 (Swagger) as `/openapi/v2` serves it: one document over all groups, for clients before kubectl 1.27.

Made from the v3 documents when first asked for, and kept until the served kinds change. Called by the API server, in a
thread: it takes some tenths of a second. The protobuf form is `openapi_v2_protobuf.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.resources.kind import Kind
from controlplane.schema import definitions, openapi
from controlplane.schema.openapi_v2_protobuf import encode

JSON_CONTENT_TYPE = "application/json"
PROTOBUF_CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""With dots: kubectl sends it with an `@` in its place and fails over the same in an answer."""

_METHODS = ("get", "put", "post", "delete", "patch")
_V3 = "#/components/schemas/"
_V2 = "#/definitions/"
_KEPT = (
    "description", "format", "type", "required", "default", "enum", "maximum", "minimum", "exclusiveMaximum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxProperties",
    "minProperties", "multipleOf", "title",
)  # fmt: skip
_UNTYPED = (
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "nullable",
)
"""What v2 has no words for: such a schema says nothing, so that no old client refuses what the server takes."""
_SPECIAL: Mapping[str, Object] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class Documents:
    """One document in its two forms; `etag` is of its content."""

    json: bytes
    protobuf: bytes
    etag: str


def build(kinds: Iterable[Kind]) -> Documents:
    """The document of all `kinds`."""
    document = swagger(tuple(kinds))
    text = orjson.dumps(document)
    return Documents(text, encode(document), hashlib.sha256(text).hexdigest().upper())


def swagger(kinds: tuple[Kind, ...]) -> Object:
    """The document as an object."""
    paths: Object = {}
    schemas: Object = {}
    for group, version in dict.fromkeys((kind.group, kind.version) for kind in kinds):
        found: Object = orjson.loads(openapi.document(group, version, kinds))
        paths.update((path, _path(item)) for path, item in found["paths"].items())
        schemas.update(found["components"]["schemas"])
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": definitions.version()},
        "paths": dict(sorted(paths.items())),
        "definitions": {name: _definition(name, schema) for name, schema in sorted(schemas.items())},
    }


def _path(item: Object) -> Object:
    made: Object = {method: _operation(item[method]) for method in _METHODS if method in item}
    if item.get("parameters"):
        made["parameters"] = [_parameter(each) for each in item["parameters"]]
    return made


def _operation(operation: Object) -> Object:
    made: Object = {key: operation[key] for key in ("tags", "description", "operationId") if key in operation}
    made.update((key, value) for key, value in operation.items() if key.startswith("x-"))
    parameters = [_parameter(each) for each in operation.get("parameters", ())]
    body = operation.get("requestBody")
    if body is not None:
        content = body["content"]
        made["consumes"] = list(content)
        schema = _schema(next(iter(content.values()))["schema"])
        parameters.append(
            {"name": "body", "in": "body", "required": bool(body.get("required")), "schema": schema}
        )
    if parameters:
        made["parameters"] = parameters
    made["produces"] = sorted(
        {kind for each in operation["responses"].values() for kind in each.get("content", ())}
    )
    made["responses"] = {code: _response(each) for code, each in operation["responses"].items()}
    return made


def _parameter(parameter: Object) -> Object:
    schema = parameter["schema"]
    made: Object = {}
    made.update(
        (key, parameter[key]) for key in ("name", "in", "description", "required") if key in parameter
    )
    return {**made, "type": schema["type"], "uniqueItems": True}


def _response(response: Object) -> Object:
    made: Object = {"description": response["description"]}
    for media in response.get("content", {}).values():
        made["schema"] = _schema(media["schema"])
        break
    return made


def _definition(name: str, schema: Object) -> Object:
    special = _SPECIAL.get(name)
    if special is None:
        return _schema(schema)
    return {"description": schema.get("description", ""), **special}


def _schema(schema: Any) -> Object:
    """A v3 schema in v2: what v2 does not know is left out, references keep nothing beside their description."""
    if not isinstance(schema, dict):
        return {}
    reference = _reference(schema)
    if reference:
        described = {"description": schema["description"]} if "description" in schema else {}
        return {**described, "$ref": reference}
    if any(schema.get(key) for key in _UNTYPED):
        kept = {key: value for key, value in schema.items() if key.startswith("x-") or key == "description"}
        return {**kept, **({"type": "object"} if schema.get("type") == "object" else {})}
    made = {key: schema[key] for key in _KEPT if key in schema}
    made.update(_members(schema))
    return made


def _members(schema: Object) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key == "properties":
            yield key, {name: _schema(each) for name, each in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            yield key, _schema(value)
        elif key.startswith("x-"):
            yield key, value


def _reference(schema: Object) -> str:
    found = schema.get("$ref")
    if found is None and len(schema.get("allOf") or ()) == 1:
        found = schema["allOf"][0].get("$ref")
    return found.replace(_V3, _V2) if isinstance(found, str) else ""
