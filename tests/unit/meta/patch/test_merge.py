"""JSON merge patch (RFC 7386)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.patches import merge_diff

from controlplane.errors import BadRequest
from controlplane.meta.objects import clone
from controlplane.meta.patch.merge import apply_merge_patch

keys = st.sampled_from("abcd")
scalars = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["", "x"]))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
documents = st.dictionaries(keys, values, max_size=4)


@pytest.mark.parametrize(
    ("obj", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "x"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_examples_of_the_standard(obj, patch, result):
    assert apply_merge_patch(obj, patch) == result


@pytest.mark.parametrize("patch", [[], "x", None, 1])
def test_a_patch_is_an_object(patch):
    with pytest.raises(BadRequest, match=r"^Invalid JSON Patch$"):
        apply_merge_patch({}, patch)


@given(documents, documents)
def test_patching_with_a_difference_gives_the_target(old, new):
    before = clone(old)
    assert apply_merge_patch(old, merge_diff(old, new)) == new
    assert old == before


def rfc7386(target, patch):
    """The standard's own pseudo-code."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = rfc7386(result.get(name), value)
    return result


patches = st.dictionaries(
    keys,
    st.recursive(
        st.one_of(st.none(), scalars),
        lambda inner: st.one_of(st.lists(scalars, max_size=2), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=8,
    ),
    max_size=4,
)


@given(documents, patches)
def test_it_is_the_standards(target, patch):
    assert apply_merge_patch(target, patch) == rfc7386(target, patch)
