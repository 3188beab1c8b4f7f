"""Parsing bodies and finding repeated fields."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.schema.duplicates import parse

keys = st.sampled_from(["a", "b", 'q"', "back\\", ":", '":', "", "é"])
values = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), keys, st.just('{"a":1,"a":2}')),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "value", "paths"),
    [
        (b'{"a":1,"a":2}', {"a": 2}, ["a"]),
        (b'{"a" : 1, "a" : 2}', {"a": 2}, ["a"]),
        (b'{"a":1,"a":2,"a":3}', {"a": 3}, ["a", "a"]),
        (b'{"s":{"p":[{"x":1},{"x":1,"x":2}]}}', {"s": {"p": [{"x": 1}, {"x": 2}]}}, ["s.p[1].x"]),
        (b'{"m":{"a":1,"a":2},"m":{"a":3}}', {"m": {"a": 3}}, ["m"]),
        (b'{"a":1,"\\u0061":2}', {"a": 2}, ["a"]),
        (b'{"l":"{\\"a\\":1,\\"a\\":2}"}', {"l": '{"a":1,"a":2}'}, []),
        (b'{"a\\\\":1,"a\\\\":2}', {"a\\": 2}, ["a\\"]),
        (b'{"t":"\\":","a":1,"a":2}', {"t": '":', "a": 2}, ["a"]),
        (b"[]", [], []),
    ],
)
def test_parse(body, value, paths):
    assert parse(body) == (value, paths)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a":', "unexpected end of JSON input"),
        (b"{a}", "invalid character 'a'"),
        (b"nothing", "invalid character"),
        (b'{"a":1}}', "invalid character '}'"),
    ],
)
def test_broken_bodies(body, message):
    with pytest.raises(ValueError, match=message):
        parse(body)


@given(values, st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_text_without_repetitions_has_none(value, separators):
    assert parse(json.dumps(value, separators=separators).encode()) == (value, [])
    assert parse(orjson.dumps(value)) == (value, [])


@given(st.dictionaries(keys, values, min_size=1, max_size=3), st.data())
def test_every_repetition_is_found(value, data):
    key = data.draw(st.sampled_from(sorted(value)))
    body = orjson.dumps(value)[:-1] + b"," + orjson.dumps(key) + b":null}"
    assert parse(body) == (value | {key: None}, [key])


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("depth", [300, 5000, 200_000])
def test_a_body_nested_too_deeply_is_no_value(opening: bytes, closing: bytes, depth: int) -> None:
    with pytest.raises(ValueError, match=r"max depth|invalid character"):
        parse(opening * depth + b"1" + closing * depth)
