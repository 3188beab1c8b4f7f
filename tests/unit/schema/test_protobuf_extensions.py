"""CustomResourceDefinitions and APIServices in protobuf, encoded here by hand as Go's generated code does."""

from __future__ import annotations

import struct

import pytest
from support.protobuf import envelope, length, number, varint

from controlplane.schema import definitions, protobuf_extensions
from controlplane.schema.protobuf import ProtobufError, decode

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


def text(field: int, value: str) -> bytes:
    return length(field, value.encode())


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def entry(field: int, key: str, value: bytes) -> bytes:
    return length(field, text(1, key) + length(2, value))


INTEGER = text(5, "integer") + double(9, 10.0) + double(11, 0.5) + length(8, length(1, b"3")) + number(37, 0)
STRINGS = text(5, "array") + length(24, length(1, text(5, "string") + length(20, length(1, b'"a"'))))
OPEN = text(5, "object") + length(30, number(1, 1)) + number(38, 1)
TYPED = text(5, "object") + length(30, length(2, text(5, "string")))
SPEC = (
    text(5, "object")
    + entry(29, "size", INTEGER)
    + entry(29, "names", STRINGS)
    + entry(29, "any", OPEN)
    + entry(29, "labels", TYPED)
    + text(23, "size")
    + length(44, text(1, "self.size < 9") + text(2, "too large"))
)
ROOT = text(5, "object") + entry(29, "spec", SPEC)
NAMES = text(1, "widgets") + text(2, "") + text(3, "wd") + text(4, "Widget") + text(5, "")
VERSION = (
    text(1, "v1")
    + number(2, 1)
    + number(3, 0)
    + length(4, length(1, ROOT))
    + length(5, length(1, b"") + length(2, text(1, ".spec.size") + text(2, ".status.size")))
    + length(
        6,
        text(1, "Size")
        + text(2, "integer")
        + text(3, "")
        + text(4, "")
        + number(5, 0)
        + text(6, ".spec.size"),
    )
    + number(7, 0)
)
BODY = length(1, text(1, "widgets.example.com")) + length(
    2, text(1, "example.com") + length(3, NAMES) + text(4, "Namespaced") + length(7, VERSION) + number(10, 0)
)


def test_a_definition() -> None:
    assert decode(envelope(BODY, *CRD)) == {
        "apiVersion": CRD[0],
        "kind": CRD[1],
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "widgets", "shortNames": ["wd"], "kind": "Widget"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": False,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {
                                        "size": {
                                            "type": "integer",
                                            "maximum": 10,
                                            "minimum": 0.5,
                                            "default": 3,
                                        },
                                        "names": {
                                            "type": "array",
                                            "items": {"type": "string", "enum": ["a"]},
                                        },
                                        "any": {
                                            "type": "object",
                                            "additionalProperties": True,
                                            "x-kubernetes-preserve-unknown-fields": True,
                                        },
                                        "labels": {
                                            "type": "object",
                                            "additionalProperties": {"type": "string"},
                                        },
                                    },
                                    "required": ["size"],
                                    "x-kubernetes-validations": [
                                        {"rule": "self.size < 9", "message": "too large"}
                                    ],
                                }
                            },
                        }
                    },
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
                    ],
                }
            ],
        },
    }


def test_unions_in_all_their_forms() -> None:
    def schema(inner: bytes) -> object:
        version = text(1, "v1") + length(4, length(1, inner))
        body = length(2, length(7, version))
        return decode(envelope(body, *CRD))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    assert schema(length(24, length(2, text(5, "string")) + length(2, b""))) == {
        "items": [{"type": "string"}, {}]
    }
    assert schema(length(30, number(1, 0))) == {"additionalProperties": False}
    assert schema(entry(32, "a", text(2, "b"))) == {"dependencies": {"a": ["b"]}}
    assert schema(entry(32, "a", length(1, text(5, "string")))) == {"dependencies": {"a": {"type": "string"}}}


def test_an_api_service() -> None:
    spec = length(1, text(1, "ns") + text(2, "name") + number(3, 443)) + text(2, "g") + text(3, "v1")
    spec += number(4, 0) + length(5, b"pem") + number(7, 100) + number(8, 0)
    obj = decode(envelope(length(2, spec), "apiregistration.k8s.io/v1", "APIService"))
    assert obj["spec"] == {
        "service": {"namespace": "ns", "name": "name", "port": 443}, "group": "g", "version": "v1",
        "caBundle": "cGVt", "groupPriorityMinimum": 100, "versionPriority": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (double(9, float("nan")), "unsupported value"),
        (number(9, 1), "wrong wireType = 0"),
        (text(9, "x"), "wrong"),
    ],
)
def test_numbers_that_are_none(inner: bytes, words: str) -> None:
    body = length(2, length(7, length(4, length(1, inner))))
    with pytest.raises(ProtobufError, match=words):
        decode(envelope(body, *CRD))


def test_schemas_in_schemas_end() -> None:
    inner = b""
    for _ in range(400):
        inner = length(24, length(1, inner))
    with pytest.raises(ProtobufError, match="exceeded max depth"):
        decode(envelope(length(2, length(7, length(4, length(1, inner)))), *CRD))


def test_the_names_are_those_of_the_documentation() -> None:
    for name, rows in protobuf_extensions.MESSAGES.items():
        schema = definitions.schemas()[name]
        fields = {row[0] for row in rows.values()}
        if schema.get("x-kubernetes-group-version-kind"):
            fields |= {"apiVersion", "kind"}
        assert fields == set(schema.get("properties", {})), name
