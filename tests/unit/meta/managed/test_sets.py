"""Sets of fields: their algebra against plain sets of paths, their form on the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta.managed.sets import (
    at,
    decoded,
    difference,
    has,
    intersection,
    ordered,
    paths,
    printed,
    union,
    without,
)

elements = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
members = st.frozensets(st.lists(elements, min_size=1, max_size=3).map(tuple), max_size=8)


def as_set(wanted):
    result = {}
    for path in wanted:
        result = union(result, at(*path))
    return result


@given(members, members)
def test_the_algebra_is_that_of_sets_of_paths(one, other):
    left, right = as_set(one), as_set(other)
    before = json.dumps([left, right])
    assert frozenset(paths(left)) == one
    assert frozenset(paths(union(left, right))) == one | other
    assert frozenset(paths(difference(left, right))) == one - other
    assert frozenset(paths(intersection(left, right))) == one & other
    assert all(has(left, path) == (path in one) for path in one | other)
    assert json.dumps([left, right]) == before


@given(members, st.lists(elements, min_size=1, max_size=2).map(tuple))
def test_without_takes_all_below(wanted, path):
    left = {found for found in wanted if found[: len(path)] != path}
    assert frozenset(paths(without(as_set(wanted), path))) == left


@given(members)
def test_the_wire_keeps_it(wanted):
    fields = ordered(as_set(wanted))
    assert decoded(json.loads(json.dumps(fields))) == fields
    assert frozenset(paths(fields)) == wanted


def test_the_order_of_the_wire():
    elements = ["f:b", "i:2", 'v:"a"', 'k:{"port":80}', "f:a", 'k:{"port":9}', "v:1", 'k:{"name":"z"}']
    assert list(ordered({element: {} for element in elements})) == [
        "f:a", "f:b", 'k:{"name":"z"}', 'k:{"port":9}', 'k:{"port":80}', "v:1", 'v:"a"', "i:2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (('k:{"port":80,"protocol":"TCP"}', "f:name"), '[port=80,protocol="TCP"].name'),
        (('v:"x"',), '[="x"]'),
        (("i:3",), "[3]"),
    ],
)
def test_paths_in_messages(path, text):
    assert printed(path) == text


def test_what_clients_send_becomes_canonical():
    sent = {".": {}, "f:a": {}, 'k:{"b": 1, "a": 2}': {".": {}, "f:c": {}}, "z:unknown": {}}
    assert decoded(sent) == {"f:a": {}, 'k:{"a":2,"b":1}': {".": {}, "f:c": {}}}


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ([], "must be an object"),
        ("x", "must be an object"),
        ({"nocolon": {}}, "must begin with a letter and a colon"),
        ({"k:[]": {}}, "must be an object of plain values"),
        ({"k:{": {}}, "unexpected"),
        ({"i:x": {}}, "unexpected"),
        ({"f:a": 1}, "must be an object"),
    ],
)
def test_what_is_malformed_is_refused(sent, fault):
    with pytest.raises(ValueError, match=fault):
        decoded(sent)
