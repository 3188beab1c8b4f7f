"""Label selectors: grammar, order, matching and messages of apimachinery's `pkg/labels`."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta.labels import EVERYTHING, NOTHING, LabelSelector

values = st.sampled_from(["a", "b", "in", "7"])
words = st.sampled_from(["a", "b", "app", "in", "notin", "x.io/tier", "1", "7"])
label_maps = st.dictionaries(words, st.sampled_from(["", "a", "b", "in", "7", "12"]), max_size=4)
requirements = st.one_of(
    words,
    words.map(lambda key: f"!{key}"),
    st.tuples(words, st.sampled_from(["=", "==", "!="]), values).map("".join),
    st.tuples(words, st.sampled_from([">", "<"]), st.sampled_from(["1", "7", "3"])).map("".join),
    st.tuples(words, st.sampled_from(["in", "notin"]), st.lists(values, min_size=1, max_size=3)).map(
        lambda parts: f"{parts[0]} {parts[1]} ({', '.join(parts[2])})"
    ),
)


@pytest.mark.parametrize(
    ("text", "matching", "missing"),
    [
        ("app=web", {"app": "web"}, {"app": "db"}),
        ("app==web", {"app": "web"}, {}),
        ("app!=web", {}, {"app": "web"}),
        ("app", {"app": ""}, {}),
        ("!app", {}, {"app": ""}),
        ("app in (a, b)", {"app": "b"}, {"app": "c"}),
        ("app notin (a,b)", {}, {"app": "a"}),
        ("app in (,a)", {"app": ""}, {}),
        ("n>5", {"n": "6"}, {"n": "5"}),
        ("n<5", {"n": "-1"}, {"n": "x"}),
        ("a=1,b!=2", {"a": "1"}, {"a": "1", "b": "2"}),
        ("in=notin", {"in": "notin"}, {"in": "in"}),
        ("app=", {"app": ""}, {"app": "x"}),
    ],
)
def test_matching(text, matching, missing):
    selector = LabelSelector.parse(text)
    assert selector.matches(matching)
    assert not selector.matches(missing)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" b = 1 , a ", "a,b=1"),
        ("x in (b,a,b)", "x in (a,b)"),
        ("!a,b notin (z),c>3,d<4,e==5,f!=6", "!a,b notin (z),c>3,d<4,e==5,f!=6"),
    ],
)
def test_canonical_text(text, canonical):
    assert str(LabelSelector.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b)", "found ')', expected: ',' or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        (
            "a in ()",
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values "
            "set can't be empty",
        ),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the "
            "value must be an integer",
        ),
    ],
)
def test_messages(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LabelSelector.parse(text)


def test_invalid_keys_and_values_are_refused():
    with pytest.raises(
        ValueError, match=r'^unable to parse requirement: key: Invalid value: "-a": name part must'
    ):
        LabelSelector.parse("-a=b")
    with pytest.raises(ValueError, match=r'values\[0\]\[a\]: Invalid value: "-b": a valid label must'):
        LabelSelector.parse("a=-b")


def test_from_object():
    selector = LabelSelector.from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "app=web,!old,tier in (a,b)"
    assert LabelSelector.from_object(None) is NOTHING
    assert LabelSelector.from_object({}).empty
    assert not NOTHING.matches({})
    assert not NOTHING.empty
    with pytest.raises(ValueError, match=r'^"Is" is not a valid label selector operator$'):
        LabelSelector.from_object({"matchExpressions": [{"key": "a", "operator": "Is"}]})
    with pytest.raises(ValueError, match="values set must be empty for exists and does not exist"):
        LabelSelector.from_object({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]})


def test_from_map_and_exact():
    selector = LabelSelector.from_map({"b": "2", "a": "1"})
    assert str(selector) == "a=1,b=2"
    assert selector.exact("b") == "2"
    assert selector.exact("c") is None
    assert LabelSelector.parse("a!=1").exact("a") is None
    assert LabelSelector.from_map(None) == EVERYTHING


@given(st.lists(requirements, max_size=4), label_maps)
def test_text_survives_a_round_trip(parts, labels):
    selector = LabelSelector.parse(",".join(parts))
    again = LabelSelector.parse(str(selector))
    assert str(again) == str(selector)
    assert again.matches(labels) is selector.matches(labels)


@given(st.lists(requirements, max_size=3), st.lists(requirements, max_size=3), label_maps)
def test_a_comma_means_and(one, other, labels):
    both = LabelSelector.parse(",".join([*one, *other]))
    each = [LabelSelector.parse(",".join(part)) for part in (one, other)]
    assert both.matches(labels) is all(selector.matches(labels) for selector in each)


@given(st.text(alphabet="ab=!(),<> \tinot\\", max_size=20))
def test_any_text_is_parsed_or_refused(text):
    try:
        selector = LabelSelector.parse(text)
    except ValueError:
        return
    assert LabelSelector.parse(str(selector)) == LabelSelector.parse(str(selector))
    assert selector.empty is not bool(selector.requirements)
