"""Values against schemas: the texts kube-openapi gives."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.resources.custom import golang
from controlplane.resources.custom.values import Validator


def texts(schema: dict[str, Any], value: Any, path: str = "spec") -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in Validator(schema).causes(value, path)]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer", "minimum": 1}, 0,
         ["spec: Invalid value: 0: spec in body should be greater than or equal to 1"]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1,
         ["spec: Invalid value: 1: spec in body should be greater than 1"]),
        ({"type": "integer", "maximum": 2147483647}, 2**40,
         ["spec: Invalid value: 1099511627776: spec in body should be less than or equal to 2.147483647e+09"]),
        ({"type": "number", "multipleOf": 0.5}, 1.2,
         ["spec: Invalid value: 1.2: spec in body should be a multiple of 0.5"]),
        ({"type": "string"}, 1, ['spec: Invalid value: "integer": spec in body must be of type string: "integer"']),
        ({"type": "integer"}, 1.5,
         ['spec: Invalid value: "number": spec in body must be of type integer: "number"']),
        ({"type": "integer"}, 2.0, []),
        ({"type": "integer"}, True,
         ['spec: Invalid value: "boolean": spec in body must be of type integer: "boolean"']),
        ({"type": "integer"}, None, ['spec: Invalid value: "null": spec in body must be of type integer: "null"']),
        ({"type": "integer", "nullable": True}, None, []),
        ({"x-kubernetes-int-or-string": True}, True,
         ['spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean"']),
        ({"x-kubernetes-int-or-string": True}, "80%", []),
        ({"type": "string", "enum": ["a", "b"]}, "c", ['spec: Unsupported value: "c": supported values: "a", "b"']),
        ({"type": "integer", "enum": [1]}, True, [
            'spec: Invalid value: "boolean": spec in body must be of type integer: "boolean"',
            'spec: Unsupported value: true: supported values: "1"']),
        ({"type": "string", "minLength": 3}, "ab",
         ['spec: Invalid value: "ab": spec in body should be at least 3 chars long']),
        ({"type": "string", "maxLength": 1}, "äö", ["spec: Too long: may not be more than 1 byte"]),
        ({"type": "string", "pattern": "^a+$"}, "b", ["spec: Invalid value: \"b\": spec in body should match '^a+$'"]),
        ({"type": "string", "pattern": "^a$"}, "a\n",
         ['spec: Invalid value: "a\\n": spec in body should match \'^a$\'']),
        ({"type": "string", "format": "ipv4"}, "x",
         ['spec: Invalid value: "x": spec in body must be of type ipv4: "x"']),
        ({"type": "string", "format": "date-time"}, "2026-01-02T03:04:05Z", []),
        ({"type": "string", "format": "no-such-format"}, "x", []),
        ({"type": "array", "minItems": 2, "items": {"type": "string"}}, ["a"],
         ["spec: Invalid value: 1: spec in body should have at least 2 items"]),
        ({"type": "array", "maxItems": 1, "items": {"type": "string"}}, ["a", 1], [
            'spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer"',
            "spec: Too many: 2: must have at most 1 item"]),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 2}, ["spec: Too many: 2: must have at most 1 item"]),
        ({"type": "object", "required": ["a"], "properties": {"a": {}}}, {}, ["spec.a: Required value"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "x"},
         ['spec.a: Invalid value: "string": spec.a in body must be of type integer: "string"']),
        ({"type": "string", "not": {"pattern": "a"}}, "a",
         ['<nil>: Invalid value: "": "spec" must not validate the schema (not)']),
        ({"type": "string", "allOf": [{"minLength": 2}, {"maxLength": 3}]}, "a", [
            'spec: Invalid value: "a": spec in body should be at least 2 chars long',
            '<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)']),
        ({"type": "string", "anyOf": [{"minLength": 2}]}, "a", [
            '<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)',
            'spec: Invalid value: "a": spec in body should be at least 2 chars long']),
        ({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
         {"a": 1, "b": 2},
         ['<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). '
          "Found 2 valid alternatives"]),
    ],
)  # fmt: skip
def test_texts(schema: dict[str, Any], value: Any, expected: list[str]) -> None:
    assert texts(schema, value) == expected


def test_an_update_does_not_judge_again_what_it_leaves() -> None:
    items = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer", "minimum": 5}},
    }
    schema = {
        "type": "object",
        "properties": {
            "old": {"type": "integer", "minimum": 5},
            "new": {"type": "integer"},
            "list": {
                "type": "array", "items": items,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            },
        },
    }  # fmt: skip
    validator = Validator(schema)
    before = {"old": 1, "new": 1, "list": [{"name": "a", "size": 1}]}
    assert validator.update_causes({**before, "new": 2}, before) == []
    moved = {**before, "list": [{"name": "b", "size": 9}, {"name": "a", "size": 1}]}
    assert validator.update_causes(moved, before) == []
    assert [cause.field for cause in validator.update_causes({**before, "old": 2}, before)] == ["old"]
    spoilt = {**before, "list": [{"name": "a", "size": 2}]}
    assert [cause.field for cause in validator.update_causes(spoilt, before)] == ["list[0].size"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1"),
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (2.5, "2.5"),
        (0.0, "0"),
    ],
)
def test_numbers_as_go_prints_them(value: float, shown: str) -> None:
    assert golang.number(value) == shown
