"""Schemas -> shapes: what server-side apply and the tracking of field owners must know of a type.

Called by the registry, for built-in kinds (from the package's data) and for custom resources (from their structural
schema). Shapes are made lazily and once; those of built-in types refer to each other by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from controlplane.errors import Object
from controlplane.meta.managed.shapes import ANYTHING, Form, Scalar, Shape
from controlplane.schema import definitions

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_CORE = "io.k8s.api.core.v1"
_PLAIN = frozenset(
    {
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        f"{_META}.Time",
        f"{_META}.MicroTime",
    }
)
_SCALARS = {
    "string": Scalar.STRING,
    "integer": Scalar.NUMERIC,
    "number": Scalar.NUMERIC,
    "boolean": Scalar.BOOLEAN,
}
_KEY_DEFAULTS = {(f"{_CORE}.ContainerPort", "protocol"): "TCP", (f"{_CORE}.ServicePort", "protocol"): "TCP"}
"""Defaults of keys that may be left out; the definitions know no defaults."""
_ZEROES = {"string": "", "integer": 0, "number": 0, "boolean": False}
_VALUE_STRUCTS = frozenset({"metadata", "spec", "status", "strategy", "updateStrategy", "jobTemplate"})
"""Optional fields that Go holds by value, so that they are there even when they are empty. (Deeper ones that begin to
exist with their holder need no mention.)
"""


@cache
def builtin(api_version: str, kind: str) -> Shape | None:
    """The shape of a built-in kind; None for others."""
    name = definitions.name_for(api_version, kind)
    return None if name is None else _named(name)


@cache
def _named(name: str) -> Shape:
    if name in _PLAIN:
        return Shape(Form.SCALAR)
    schema = definitions.schemas()[name]
    properties: Mapping[str, Object] = schema.get("properties") or {}
    if not properties:
        return ANYTHING
    return Shape(
        Form.MAP,
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
        fields=lambda: {field: _builtin_field(found) for field, found in properties.items()},
        always=_always(name, schema),
    )


def _builtin_field(schema: Object) -> Shape:
    name = definitions.reference(schema)
    if name is None:
        return _compile(schema)
    shape = _named(name)
    map_type = schema.get("x-kubernetes-map-type")
    if map_type and shape.form is Form.MAP:
        return shape.as_atomic() if map_type == "atomic" else shape.as_granular()
    return shape


def _compile(schema: Object) -> Shape:
    """A schema without a name: of a field, an item, a map's values or a whole custom resource."""
    if definitions.reference(schema) is not None:
        return _builtin_field(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return Shape(Form.SCALAR)
    kind = schema.get("type", "")
    if kind == "array":
        return _list(schema)
    if kind == "object":
        return _object(schema)
    if kind in _SCALARS:
        return Shape(Form.SCALAR, scalar=_SCALARS[kind])
    return ANYTHING


def _list(schema: Object) -> Shape:
    list_type = schema.get("x-kubernetes-list-type", "")
    items: Object = schema.get("items") or {}
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if list_type == "map" else ()
    element = _compile(items)
    return Shape(
        Form.LIST, element=element, keys=keys, is_set=list_type == "set", defaults=_key_defaults(items, keys)
    )


def _key_defaults(items: Object, keys: tuple[str, ...]) -> Mapping[str, Any]:
    name = definitions.reference(items)
    if name is not None:
        return {key: value for key in keys if (value := _KEY_DEFAULTS.get((name, key))) is not None}
    properties: Mapping[str, Object] = items.get("properties") or {}
    return {key: properties[key]["default"] for key in keys if "default" in properties.get(key, {})}


def _object(schema: Object) -> Shape:
    properties: Mapping[str, Object] = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    element: Shape | None = None
    if isinstance(additional, dict) and additional:
        element = _compile(additional)
    elif additional or schema.get("x-kubernetes-preserve-unknown-fields") or not properties:
        element = ANYTHING
    fields = {name: _compile(found) for name, found in properties.items()}
    if schema.get("x-kubernetes-embedded-resource"):
        fields = {**fields, **_type_meta()}
    return Shape(
        Form.MAP,
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
        fields=lambda: fields,
        element=element,
    )


def _type_meta() -> Mapping[str, Shape]:
    text = Shape(Form.SCALAR, scalar=Scalar.STRING)
    return {"apiVersion": text, "kind": text, "metadata": _named(f"{_META}.ObjectMeta")}


def custom(schema: Object | None) -> Shape:
    """The shape of a custom resource with that structural schema (`openAPIV3Schema`).

    Without one everything but the metadata is deduced from the values.
    """
    declared = _object(schema) if schema else Shape(Form.MAP, element=ANYTHING)
    fields = {**declared.fields, **_type_meta()}
    return Shape(
        Form.MAP,
        fields=lambda: fields,
        element=declared.element,
        always={"metadata": {}},
        may_change=True,
    )


def _always(name: str, schema: Object) -> Mapping[str, Any]:
    """The fields that a Go value of this type cannot leave out, with their zero values."""
    if name == f"{_META}.ObjectMeta":
        return {"creationTimestamp": None}
    required = frozenset(schema.get("required") or ())
    found: dict[str, Any] = {}
    for field, sub in schema["properties"].items():
        target = definitions.reference(sub)
        if target is not None:
            if (field in _VALUE_STRUCTS and target not in _PLAIN) or _is_pod_template(name, field):
                found[field] = {} if target == name else _zero(target)
            elif field in required and target not in _PLAIN:
                found[field] = None
        elif field in required:
            found[field] = _ZEROES.get(sub.get("type", ""))
    return found


def _is_pod_template(name: str, field: str) -> bool:
    return field == "template" and not name.endswith((".ReplicationControllerSpec", ".PodTemplateList"))


def _zero(name: str) -> Any:
    schema = definitions.schemas()[name]
    return dict(_always(name, schema)) if schema.get("properties") else {}
