"""Field selectors: operators, escapes and messages of apimachinery's `pkg/fields`."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta.fields import FieldSelector


def test_parse_and_match():
    selector = FieldSelector.parse("status.phase=Running,spec.nodeName!=n1,metadata.name==a")
    assert selector.requirements == (
        ("status.phase", "=", "Running"),
        ("spec.nodeName", "!=", "n1"),
        ("metadata.name", "=", "a"),
    )
    pod = {"status.phase": "Running", "metadata.name": "a"}
    assert selector.matches(lambda field: pod.get(field, ""))
    pod["spec.nodeName"] = "n1"
    assert not selector.matches(lambda field: pod.get(field, ""))
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("spec.nodeName") is None


def test_empty():
    assert FieldSelector.parse("").empty
    assert FieldSelector.parse(",").matches(lambda field: "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,b", "invalid selector: 'a=1,b'; can't understand 'b'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
    ],
)
def test_messages(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FieldSelector.parse(text)


values = st.text(alphabet="ab=,\\!", max_size=6)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "spec.x"]), st.sampled_from(["=", "!="]), values), max_size=3)
)
def test_text_survives_a_round_trip(requirements):
    selector = FieldSelector(tuple(requirements))
    assert FieldSelector.parse(str(selector)) == selector
