import pytest
from support.resources import said

from controlplane.resources.rules import Field, same


def test_a_path_follows_the_value():
    field = Field.root({"spec": {"ports": [{"port": 80}, {"port": 0}]}})
    for port in field["spec"]["ports"]:
        port["port"].port_number()
    assert said(field.causes) == [
        "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive"
    ]


@pytest.mark.parametrize(
    ("value", "good"), [(None, False), (0, False), (1, True), (65535, True), (65536, False)]
)
def test_ports(value, good):
    field = Field.root({"port": value})
    field["port"].port_number()
    assert (field.causes == []) is good


@pytest.mark.parametrize("value", ["http", 1, 65535])
def test_ports_by_name_or_number(value):
    field = Field.root({"port": value})
    field["port"].port_number_or_name()
    assert field.causes == []


def test_rules_chain_and_let_absent_values_pass():
    field = Field.root({})
    field["a"].one_of("x").dns_label().between(1, 2).ip().not_negative().positive().max_bytes(1)
    assert field.causes == []
    field["a"].required().one_of("x")
    assert said(field.causes) == ["a: Required value"]


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_required_refuses_what_go_calls_empty(empty):
    field = Field.root({"a": empty})
    field["a"].required("say why")
    assert said(field.causes) == ["a: Required value: say why"]


@pytest.mark.parametrize("value", [0, False, "x", ["x"]])
def test_required_accepts_a_value(value):
    field = Field.root({"a": value})
    field["a"].required()
    assert field.causes == []


def test_going_below_a_missing_place_is_absent_not_a_fault():
    field = Field.root({"spec": None})
    assert not field["spec"]["deep"]["deeper"].present
    assert list(field["spec"]["list"]) == []
    assert list(field["spec"]["map"].entries()) == []
    assert field.causes == []


def test_unique_names_the_second_of_two():
    field = Field.root({"items": [{"name": "a"}, {}, {"name": "b"}, {}, {"name": "a"}]})
    field["items"].unique("name")
    assert said(field.causes) == ['items[4].name: Duplicate value: "a"']


def test_labels_blame_the_map():
    field = Field.root({"labels": {"-x": "ok", "app": "not ok", "good": "1"}})
    field["labels"].labels()
    assert [cause.field for cause in field.causes] == ["labels", "labels"]
    assert field.causes[0].message.startswith('Invalid value: "-x": name part must consist of')
    assert field.causes[1].message.startswith('Invalid value: "not ok": a valid label must be')


def test_an_empty_key_is_no_label():
    field = Field.root({"labels": {"": "a", "empty": ""}})
    field["labels"].labels()
    fault = said(field.causes)[0]
    assert fault.startswith('labels: Invalid value: "": name part must be non-empty')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", 'a: Invalid value: "-1": must be greater than or equal to 0'),
        (
            "1x",
            'a: Invalid value: "1x": quantities must match the regular expression '
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_quantities(text, message):
    field = Field.root({"a": text})
    field["a"].quantity()
    assert said(field.causes) == [message]


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1"])
def test_ip_accepts(text):
    field = Field.root({"a": text})
    field["a"].ip()
    assert field.causes == []


@pytest.mark.parametrize("text", ["10.0.0", "010.0.0.1", "fe80::1%eth0", "x", "10.0.0.1/24"])
def test_ip_refuses(text):
    field = Field.root({"a": text})
    field["a"].ip()
    assert said(field.causes) == [
        f'a: Invalid value: "{text}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
    ]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (None, {}, True),
        ({"a": None}, {}, True),
        ({"a": []}, {"a": None}, True),
        ({"a": {"b": ""}}, {"a": {}}, True),
        ({"a": 0}, {}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ({"a": False}, {}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": None}]}, True),
    ],
)
def test_same_is_gos_semantic_equality(one, other, equal):
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_unchanged():
    new, old = Field.root({"a": 1, "b": None}), Field.root({"a": 2})
    new["a"].unchanged(old["a"])
    new["b"].unchanged(old["b"])
    assert said(new.causes) == ["a: Invalid value: 1: field is immutable"]
