import pytest

from controlplane.resources import fieldpath


@pytest.mark.parametrize(
    ("cause", "reason", "message"),
    [
        (fieldpath.required("a"), "FieldValueRequired", "Required value"),
        (fieldpath.required("a", "say why"), "FieldValueRequired", "Required value: say why"),
        (fieldpath.invalid("a", 0, "bad"), "FieldValueInvalid", "Invalid value: 0: bad"),
        (fieldpath.invalid("a", "x", "bad"), "FieldValueInvalid", 'Invalid value: "x": bad'),
        (fieldpath.invalid("a", True, "bad"), "FieldValueInvalid", "Invalid value: true: bad"),
        (fieldpath.invalid("a", None, "bad"), "FieldValueInvalid", "Invalid value: null: bad"),
        (
            fieldpath.invalid("a", {"b": "2", "a": "1"}, "bad"),
            "FieldValueInvalid",
            'Invalid value: map[string]string{"a":"1", "b":"2"}: bad',
        ),
        (
            fieldpath.invalid("a", ["x", "y"], "bad"),
            "FieldValueInvalid",
            'Invalid value: []string{"x", "y"}: bad',
        ),
        (
            fieldpath.invalid("a", fieldpath.Literal("25%"), "bad"),
            "FieldValueInvalid",
            "Invalid value: 25%: bad",
        ),
        (
            fieldpath.not_supported("a", "x", ["A", "B"]),
            "FieldValueNotSupported",
            'Unsupported value: "x": supported values: "A", "B"',
        ),
        (fieldpath.forbidden("a", "no"), "FieldValueForbidden", "Forbidden: no"),
        (fieldpath.duplicate("a", "x"), "FieldValueDuplicate", 'Duplicate value: "x"'),
        (fieldpath.not_found("a", "x"), "FieldValueNotFound", 'Not found: "x"'),
        (fieldpath.too_long("a", 63), "FieldValueTooLong", "Too long: may not be more than 63 bytes"),
        (fieldpath.too_long("a", 1), "FieldValueTooLong", "Too long: may not be more than 1 byte"),
        (fieldpath.too_many("a", 3, 2), "FieldValueTooMany", "Too many: 3: must have at most 2 items"),
    ],
)
def test_says_it_in_upstreams_words(cause, reason, message):
    assert (cause.reason, cause.message, cause.field) == (reason, message, "a")


def test_paths_grow():
    path = fieldpath.child(fieldpath.index(fieldpath.child("", "spec", "ports"), 1), "name")
    assert path == "spec.ports[1].name"
    assert fieldpath.key("data", "a.b") == "data[a.b]"


def test_nil_maps_and_lists_are_shown_as_go_does():
    assert fieldpath.string_map(None) == "map[string]string(nil)"
    assert fieldpath.string_list(None) == "[]string(nil)"


def test_quotes_as_go_does():
    assert fieldpath.shown('say "hé"\n') == '"say \\"hé\\"\\n"'
