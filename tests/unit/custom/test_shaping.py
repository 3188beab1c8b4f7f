"""Pruning and defaulting, with properties over generated schemas and objects."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.custom import kind_for, schema
from support.properties import examples

from controlplane.resources.custom.lists import list_causes
from controlplane.resources.custom.shaping import default, drop_nulls, prune
from controlplane.resources.custom.structural import compile_schema
from controlplane.resources.custom.values import Validator

NAMES = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.one_of(
    st.fixed_dictionaries({"type": st.just("integer"), "default": st.integers(0, 9)}),
    st.fixed_dictionaries({"type": st.just("string")}, optional={"nullable": st.just(True)}),
    st.fixed_dictionaries({"type": st.just("boolean")}, optional={"default": st.booleans()}),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
        optional={"x-kubernetes-preserve-unknown-fields": st.just(True), "default": st.just({})},
    )
    maps = st.fixed_dictionaries({"type": st.just("object"), "additionalProperties": inner})
    lists = st.fixed_dictionaries({"type": st.just("array"), "items": inner})
    return st.one_of(properties, maps, lists)


SCHEMAS = st.recursive(SCALARS, _objects, max_leaves=8)


def shaped(value: Any, compiled: Any) -> Any:
    found = copy.deepcopy(prune(value, compiled, root=False))
    default(found, compiled)
    drop_nulls(found, compiled)
    return found


@settings(max_examples=examples(50), deadline=None)
@given(SCHEMAS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_pruning_and_defaulting_twice_is_once(spec: dict[str, Any], value: dict[str, Any]) -> None:
    compiled = compile_schema({"type": "object", "properties": {"spec": spec}})
    once = shaped({"spec": value}, compiled)
    assert shaped(once, compiled) == once


@settings(max_examples=examples(50), deadline=None)
@given(SCHEMAS)
def test_a_defaulted_object_is_valid(spec: dict[str, Any]) -> None:
    root = {"type": "object", "properties": {"spec": spec}}
    value = shaped(
        {"spec": [] if spec["type"] == "array" else {}} if spec["type"] in ("object", "array") else {},
        compile_schema(root),
    )
    assert Validator(root).causes(value) == []


@settings(max_examples=examples(50), deadline=None)
@given(SCHEMAS, VALUES)
def test_pruning_never_changes_what_stays(spec: dict[str, Any], value: Any) -> None:
    """Everything in the result was there before, at the same place."""

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return isinstance(whole, dict) and all(
                key in whole and within(each, whole[key]) for key, each in part.items()
            )
        if isinstance(part, list):
            return isinstance(whole, list) and len(part) == len(whole) and all(map(within, part, whole))
        return part == whole

    compiled = compile_schema({"type": "object", "properties": {"spec": spec}})
    assert within(prune({"spec": value}, compiled), {"spec": value})


def test_unknown_fields_are_told_by_their_paths() -> None:
    spec = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
                     "properties": {"closed": {"type": "object", "properties": {}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"x": {"type": "string"}}},
        },
    }  # fmt: skip
    unknown: list[str] = []
    given_ = {
        "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a"}, "top": 1,
        "spec": {
            "list": [{"a": "x"}, {"b": 1}], "free": {"any": {"thing": 1}, "closed": {"no": 1}},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "y": 1},
        },
    }  # fmt: skip
    pruned = prune(given_, compile_schema(schema(spec)), unknown)
    assert unknown == ["top", "spec.list[1].b", "spec.free.closed.no", "spec.pod.y"]
    assert pruned["spec"] == {
        "list": [{"a": "x"}, {}], "free": {"any": {"thing": 1}, "closed": {}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
    }  # fmt: skip


def test_nulls() -> None:
    spec = {
        "type": "object",
        "properties": {
            "with": {"type": "string", "default": "x"},
            "without": {"type": "string"},
            "nullable": {"type": "string", "nullable": True, "default": "x"},
            "free": {"x-kubernetes-preserve-unknown-fields": True},
            "map": {"type": "object", "additionalProperties": True},
        },
    }
    obj = {
        "metadata": {},
        "spec": {"with": None, "without": None, "nullable": None, "free": None, "map": {"a": None}},
    }
    kind_for(schema(spec)).default(obj)
    assert obj["spec"] == {"with": "x", "nullable": None, "map": {"a": None}}


def test_sets_and_maps_hold_nothing_twice() -> None:
    spec = {
        "type": "object",
        "properties": {
            "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "map": {
                "type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            },
        },
    }  # fmt: skip
    value = {"spec": {"set": ["a", "b", "a"], "map": [{"k": "x"}, {"k": "y"}, {"k": "x"}]}}
    assert [f"{each.field}: {each.message}" for each in list_causes(value, compile_schema(schema(spec)))] == [
        'spec.set[2]: Duplicate value: "a"',
        'spec.map[2]: Duplicate value: map[string]interface {}{"k":"x"}',
    ]
