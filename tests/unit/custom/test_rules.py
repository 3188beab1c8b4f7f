"""CEL rules of custom resources."""

from __future__ import annotations

from typing import Any

import pytest
from support.custom import kind_for, schema

from controlplane.resources.kind import Kind


def kind_with(*rules: dict[str, Any], **properties: Any) -> Kind:
    properties = properties or {"low": {"type": "integer"}, "high": {"type": "integer"}}
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}
    return kind_for(schema(spec))


def created(kind: Kind, **spec: Any) -> list[str]:
    return [
        f"{cause.field}: {cause.message}"
        for cause in kind.validate({"metadata": {"name": "a"}, "spec": spec})
    ]


def updated(kind: Kind, new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    found = kind.update_causes(
        {"metadata": {"name": "a"}, "spec": new}, {"metadata": {"name": "a"}, "spec": old}
    )
    return [f"{cause.field}: {cause.message}" for cause in found]


def test_messages() -> None:
    assert created(kind_with({"rule": "self.low <= self.high", "message": "no"}), low=2, high=1) == [
        'spec: Invalid value: "object": no'
    ]
    assert created(kind_with({"rule": "self.low <= self.high"}), low=2, high=1) == [
        'spec: Invalid value: "object": failed rule: self.low <= self.high'
    ]
    told = {"rule": "self.low <= self.high", "messageExpression": "'low is %d'.format([self.low])"}
    assert created(kind_with(told), low=2, high=1) == ['spec: Invalid value: "object": low is 2']
    assert created(kind_with({"rule": "self.low <= self.high", "message": "no"}), low=1, high=1) == []


def test_reasons_and_field_paths() -> None:
    rule = {"rule": "self.low < 5", "message": "no", "fieldPath": ".low"}
    assert created(kind_with({**rule, "reason": "FieldValueForbidden"}), low=9) == ["spec.low: Forbidden: no"]
    assert created(kind_with({**rule, "reason": "FieldValueRequired"}), low=9) == [
        "spec.low: Required value: no"
    ]
    assert created(kind_with({**rule, "reason": "FieldValueDuplicate"}), low=9) == [
        'spec.low: Duplicate value: "object"'
    ]


def test_runtime_faults_are_told() -> None:
    (fault,) = created(kind_with({"rule": "self.low <= self.high", "message": "no"}), low=1)
    assert fault.startswith('spec: Invalid value: "object": ')
    assert fault.endswith(" evaluating rule: no")


def test_transition_rules() -> None:
    kind = kind_with({"rule": "self.low >= oldSelf.low", "message": "only up"})
    assert created(kind, low=1) == []
    assert updated(kind, {"low": 2}, {"low": 1}) == []
    assert updated(kind, {"low": 0}, {"low": 1}) == ['spec: Invalid value: "object": only up']


def test_optional_old_self() -> None:
    rule = {
        "rule": "!oldSelf.hasValue() || self.low >= oldSelf.value().low",
        "optionalOldSelf": True,
        "message": "up",
    }
    kind = kind_with(rule)
    assert created(kind, low=1) == []
    assert updated(kind, {"low": 0}, {"low": 1}) == ['spec: Invalid value: "object": up']
    assert updated(kind, {"low": 3}, {"low": 1}) == []


def test_what_does_not_change_is_not_judged_again() -> None:
    kind = kind_with({"rule": "self.low < 5", "message": "no"})
    assert updated(kind, {"low": 9}, {"low": 9}) == []
    assert updated(kind, {"low": 8}, {"low": 9}) == ['spec: Invalid value: "object": no']


def test_rules_in_lists_and_maps() -> None:
    items = {
        "type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "integer"}},
        "x-kubernetes-validations": [
            {"rule": "self.n >= oldSelf.n", "message": "up"}, {"rule": "self.n < 5", "message": "small"},
        ],
    }  # fmt: skip
    keyed = {
        "type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
    }  # fmt: skip
    kind = kind_for(schema({"type": "object", "properties": {"l": keyed}}))
    assert created(kind, l=[{"k": "a", "n": 1}, {"k": "b", "n": 7}]) == [
        'spec.l[1]: Invalid value: "object": small'
    ]
    assert updated(kind, {"l": [{"k": "c", "n": 0}, {"k": "a", "n": 1}]}, {"l": [{"k": "a", "n": 2}]}) == [
        'spec.l[1]: Invalid value: "object": up'
    ]


def test_rules_are_not_asked_of_objects_of_another_shape() -> None:
    kind = kind_with({"rule": "self.low < 5", "message": "no"})
    assert created(kind, low="x") == [
        'spec.low: Invalid value: "string": spec.low in body must be of type integer: "string"',
        '<nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; correct '
        "the existing errors to complete validation",
    ]


def test_rules_of_the_root_see_the_name() -> None:
    root = schema({"type": "object", "properties": {"low": {"type": "integer"}}})
    root["x-kubernetes-validations"] = [
        {"rule": "self.metadata.name.startsWith('a')", "message": "begin with a"}
    ]
    kind = kind_for(root)
    assert kind.validate({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "abc"}, "spec": {}}) == []
    (cause,) = kind.validate({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "b"}, "spec": {}})
    assert (cause.field, cause.message) == ("<nil>", 'Invalid value: "object": begin with a')


@pytest.mark.parametrize("name", ["with-dash", "in", "a.b"])
def test_escaped_names(name: str) -> None:
    escaped = {"with-dash": "with__dash__dash", "in": "__in__", "a.b": "a__dot__b"}[name]
    kind = kind_with({"rule": f"self.{escaped} > 0", "message": "no"}, **{name: {"type": "integer"}})
    assert created(kind, **{name: 1}) == []
    assert created(kind, **{name: 0}) == ['spec: Invalid value: "object": no']
