"""The protobuf messages of CustomResourceDefinition and APIService, which no kubectl program holds.

Read by the table of messages. Written by hand from the field numbers of the `v1` messages of apiextensions-apiserver
and kube-aggregator (v0.32); the form of a row is that of the distilled table.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.schema.protobuf_shapes import Row, Shape

_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
_AGGREGATOR = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
SCHEMA = f"{_EXTENSIONS}.JSONSchemaProps"

_PLAIN, _ALWAYS, _POINTER, _LIST, _MAP = Shape.PLAIN, Shape.ALWAYS, Shape.POINTER, Shape.LIST, Shape.MAP


def _text(name: str) -> Row:
    return name, _PLAIN, "string"


def _required(name: str, type_: str = "string") -> Row:
    return name, _ALWAYS, type_


def _pointer(name: str, type_: str = "string") -> Row:
    return name, _POINTER, type_


def _list(name: str, type_: str = "string") -> Row:
    return name, _LIST, type_


def _flag(name: str) -> Row:
    return name, _PLAIN, "bool"


def _own(name: str, message: str, shape: Shape = _PLAIN) -> Row:
    return name, shape, f"{_EXTENSIONS}.{message}"


_SCHEMA_ROWS: Mapping[int, Row] = {
    1: _text("id"), 2: _text("$schema"), 3: _pointer("$ref"), 4: _text("description"), 5: _text("type"),
    6: _text("format"), 7: _text("title"), 8: _pointer("default", "RawJSON"), 9: _pointer("maximum", "double"),
    10: _flag("exclusiveMaximum"), 11: _pointer("minimum", "double"), 12: _flag("exclusiveMinimum"),
    13: _pointer("maxLength", "int64"), 14: _pointer("minLength", "int64"), 15: _text("pattern"),
    16: _pointer("maxItems", "int64"), 17: _pointer("minItems", "int64"), 18: _flag("uniqueItems"),
    19: _pointer("multipleOf", "double"), 20: _list("enum", "RawJSON"), 21: _pointer("maxProperties", "int64"),
    22: _pointer("minProperties", "int64"), 23: _list("required"), 24: _pointer("items", "SchemaOrArray"),
    25: _list("allOf", SCHEMA), 26: _list("oneOf", SCHEMA), 27: _list("anyOf", SCHEMA), 28: _pointer("not", SCHEMA),
    29: ("properties", _MAP, SCHEMA), 30: _pointer("additionalProperties", "SchemaOrBool"),
    31: ("patternProperties", _MAP, SCHEMA), 32: ("dependencies", _MAP, "SchemaOrStrings"),
    33: _pointer("additionalItems", "SchemaOrBool"), 34: ("definitions", _MAP, SCHEMA),
    35: _own("externalDocs", "ExternalDocumentation", _POINTER), 36: _pointer("example", "RawJSON"),
    37: _flag("nullable"), 38: _pointer("x-kubernetes-preserve-unknown-fields", "bool"),
    39: _flag("x-kubernetes-embedded-resource"), 40: _flag("x-kubernetes-int-or-string"),
    41: _list("x-kubernetes-list-map-keys"), 42: _pointer("x-kubernetes-list-type"),
    43: _pointer("x-kubernetes-map-type"),
    44: _own("x-kubernetes-validations", "ValidationRule", _LIST),
}  # fmt: skip

_DEFINITION: Mapping[str, Mapping[int, Row]] = {
    "CustomResourceDefinition": {
        1: ("metadata", _PLAIN, f"{_META}.ObjectMeta"),
        2: _own("spec", "CustomResourceDefinitionSpec"),
        3: _own("status", "CustomResourceDefinitionStatus"),
    },
    "CustomResourceDefinitionSpec": {
        1: _required("group"),
        3: _own("names", "CustomResourceDefinitionNames"),
        4: _required("scope"),
        7: _own("versions", "CustomResourceDefinitionVersion", _LIST),
        9: _own("conversion", "CustomResourceConversion", _POINTER),
        10: _flag("preserveUnknownFields"),
    },
    "CustomResourceDefinitionNames": {
        1: _required("plural"), 2: _text("singular"), 3: _list("shortNames"), 4: _required("kind"),
        5: _text("listKind"), 6: _list("categories"),
    },
    "CustomResourceDefinitionVersion": {
        1: _required("name"),
        2: _required("served", "bool"),
        3: _required("storage", "bool"),
        4: _own("schema", "CustomResourceValidation", _POINTER),
        5: _own("subresources", "CustomResourceSubresources", _POINTER),
        6: _own("additionalPrinterColumns", "CustomResourceColumnDefinition", _LIST),
        7: _flag("deprecated"),
        8: _pointer("deprecationWarning"),
        9: _own("selectableFields", "SelectableField", _LIST),
    },
    "CustomResourceDefinitionStatus": {
        1: _own("conditions", "CustomResourceDefinitionCondition", _LIST),
        2: _own("acceptedNames", "CustomResourceDefinitionNames"),
        3: _list("storedVersions"),
    },
    "CustomResourceDefinitionCondition": {
        1: _required("type"), 2: _required("status"), 3: ("lastTransitionTime", _PLAIN, "Time"),
        4: _text("reason"), 5: _text("message"),
    },
    "CustomResourceConversion": {1: _required("strategy"), 2: _own("webhook", "WebhookConversion", _POINTER)},
    "WebhookConversion": {
        2: _own("clientConfig", "WebhookClientConfig", _POINTER), 3: _list("conversionReviewVersions"),
    },
    "WebhookClientConfig": {
        1: _own("service", "ServiceReference", _POINTER), 2: ("caBundle", _PLAIN, "bytes"), 3: _pointer("url"),
    },
    "ServiceReference": {
        1: _required("namespace"), 2: _required("name"), 3: _pointer("path"), 4: _pointer("port", "int32"),
    },
    "CustomResourceValidation": {1: _pointer("openAPIV3Schema", SCHEMA)},
    "CustomResourceSubresources": {
        1: _own("status", "CustomResourceSubresourceStatus", _POINTER),
        2: _own("scale", "CustomResourceSubresourceScale", _POINTER),
    },
    "CustomResourceSubresourceStatus": {},
    "CustomResourceSubresourceScale": {
        1: _required("specReplicasPath"), 2: _required("statusReplicasPath"), 3: _pointer("labelSelectorPath"),
    },
    "CustomResourceColumnDefinition": {
        1: _required("name"), 2: _required("type"), 3: _text("format"), 4: _text("description"),
        5: ("priority", _PLAIN, "int32"), 6: _required("jsonPath"),
    },
    "SelectableField": {1: _required("jsonPath")},
    "JSONSchemaProps": _SCHEMA_ROWS,
    "ExternalDocumentation": {1: _text("description"), 2: _text("url")},
    "ValidationRule": {
        1: _required("rule"), 2: _text("message"), 3: _text("messageExpression"), 4: _pointer("reason"),
        5: _text("fieldPath"), 6: _pointer("optionalOldSelf", "bool"),
    },
}  # fmt: skip

_API_SERVICE: Mapping[str, Mapping[int, Row]] = {
    "APIService": {
        1: ("metadata", _PLAIN, f"{_META}.ObjectMeta"),
        2: ("spec", _PLAIN, f"{_AGGREGATOR}.APIServiceSpec"),
        3: ("status", _PLAIN, f"{_AGGREGATOR}.APIServiceStatus"),
    },
    "APIServiceSpec": {
        1: ("service", _POINTER, f"{_AGGREGATOR}.ServiceReference"), 2: _text("group"), 3: _text("version"),
        4: _flag("insecureSkipTLSVerify"), 5: ("caBundle", _PLAIN, "bytes"),
        7: _required("groupPriorityMinimum", "int32"), 8: _required("versionPriority", "int32"),
    },
    "APIServiceStatus": {1: ("conditions", _LIST, f"{_AGGREGATOR}.APIServiceCondition")},
    "APIServiceCondition": {
        1: _required("type"), 2: _required("status"), 3: ("lastTransitionTime", _PLAIN, "Time"),
        4: _text("reason"), 5: _text("message"),
    },
    "ServiceReference": {1: _text("namespace"), 2: _text("name"), 3: _pointer("port", "int32")},
}  # fmt: skip

MESSAGES: Mapping[str, Mapping[int, Row]] = {
    **{f"{_EXTENSIONS}.{name}": rows for name, rows in _DEFINITION.items()},
    **{f"{_AGGREGATOR}.{name}": rows for name, rows in _API_SERVICE.items()},
}
"""Rows by message name and field number."""
