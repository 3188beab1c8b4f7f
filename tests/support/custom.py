"""CustomResourceDefinitions for tests."""

from __future__ import annotations

from typing import Any

from controlplane.resources.custom.conversion import RenameConverter
from controlplane.resources.custom.kinds import kinds_of
from controlplane.resources.kind import Kind

GROUP = "stable.example.com"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = f"/apis/{GROUP}/v1/namespaces/default/widgets"
SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 1, "default": 1},
        "colour": {"type": "string", "enum": ["red", "green"]},
    },
}


def schema(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with that spec, and a status."""
    status = {"type": "object", "properties": {"phase": {"type": "string"}, "size": {"type": "integer"}}}
    return {"type": "object", "properties": {"spec": spec or SPEC, "status": status}}


def version(name: str = "v1", *, storage: bool = True, **rest: Any) -> dict[str, Any]:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": rest.pop("schema", None) or schema()},
        **rest,
    }


def definition(
    *versions: dict[str, Any], plural: str = "widgets", kind: str = "Widget", group: str = GROUP, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, **spec.pop("names", {})},
            "versions": list(versions) or [version()],
            **spec,
        },
    }


def widget(name: str = "w", api_version: str = f"{GROUP}/v1", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def kind_for(root: dict[str, Any], **rest: Any) -> Kind:
    """The kind of a definition with one version that has this schema."""
    made = definition(version(schema=root, **rest))
    made["status"] = {"acceptedNames": {"plural": "widgets", "kind": "Widget", "singular": "widget"}}
    (found,) = kinds_of(made, RenameConverter())
    return found
