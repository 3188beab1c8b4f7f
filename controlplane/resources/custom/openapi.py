"""The OpenAPI v3 schemas of a custom kind: its own, with what every object has, and that of its list. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.errors import Object

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_API_VERSION = {
    "type": "string",
    "description": "APIVersion defines the versioned schema of this representation of an object. Servers should "
    "convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
}
_KIND = {
    "type": "string",
    "description": "Kind is a string value representing the REST resource this object represents. Servers may infer "
    "this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
}
_DOCUMENTED = (
    "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def type_name(group: str, version: str, kind: str) -> str:
    """`com.example.stable.v1.CronTab`."""
    return ".".join([*reversed(group.split(".")), version, kind])


def definitions(
    group: str, version: str, kind: str, list_kind: str, schema: Object | None
) -> Mapping[str, Object]:
    """Both schemas by full name. Without a schema everything is allowed."""
    name = type_name(group, version, kind)
    own = _resource(schema) if schema else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    listing = {
        "description": f"{list_kind} is a list of {kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": _API_VERSION,
            "kind": _KIND,
            "items": {
                "type": "array",
                "description": f"List of {name.rpartition('.')[2].lower()}s. More info: "
                "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
                "items": _reference(name),
            },
            "metadata": {
                **_reference(f"{_META}.ListMeta"),
                "description": f"Standard list metadata. {_DOCUMENTED}",
            },
        },
    }
    return {
        name: _named(own, group, version, kind),
        type_name(group, version, list_kind): _named(listing, group, version, list_kind),
    }


def _named(schema: Object, group: str, version: str, kind: str) -> Object:
    names = [{"group": group, "version": version, "kind": kind}]
    return {**schema, "x-kubernetes-group-version-kind": names}


def _reference(name: str) -> Object:
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}


def _resource(schema: Object) -> Object:
    """The schema with the fields that every resource has, whether they are listed or not."""
    properties = {
        **{name: _embedded(member) for name, member in (schema.get("properties") or {}).items()},
        "apiVersion": _API_VERSION,
        "kind": _KIND,
        "metadata": {
            **_reference(f"{_META}.ObjectMeta"),
            "description": f"Standard object's metadata. {_DOCUMENTED}",
        },
    }
    return {**schema, "properties": properties}


def _embedded(schema: Object) -> Object:
    """The same for resources inside of it."""
    found = dict(schema)
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {name: _embedded(member) for name, member in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found[name] = _embedded(schema[name])
    return _resource(found) if schema.get("x-kubernetes-embedded-resource") else found
