"""Server-side apply: merging, removal, conflicts, force, and what client-side apply left."""

import json

import pytest
from support.managed import LATER, TIME, Live, thing

from controlplane.errors import BadRequest, Conflict, Unclassified
from controlplane.meta.managed.last_applied import ANNOTATION


def test_an_applier_owns_what_it_states():
    live = Live()
    live.apply(thing({"labels": {"a": "1"}}, text="x", items=[{"name": "i", "value": "v"}], set=["s"]), "me")
    assert live.entries == [
        {
            "manager": "me",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": TIME,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {
                    "f:items": {'k:{"name":"i"}': {".": {}, "f:name": {}, "f:value": {}}},
                    "f:set": {'v:"s"': {}},
                    "f:text": {},
                },
            },
        }
    ]


def test_applying_again_changes_nothing():
    live = Live()
    wanted = thing(text="x", items=[{"name": "i"}], any={"a": [1]})
    live.apply(wanted, "me")
    before, live.time = live.obj, LATER
    live.apply(wanted, "me")
    assert live.obj == before


def test_what_only_the_applier_owned_goes_when_it_is_not_stated_any_more():
    live = Live()
    live.apply(
        thing(text="x", number=1, map={"a": "1", "b": "2"}, items=[{"name": "i"}, {"name": "j"}]), "me"
    )
    live.apply(thing(text="x", map={"a": "1"}, items=[{"name": "j"}]), "me")
    assert live.spec == {"text": "x", "map": {"a": "1"}, "items": [{"name": "j"}]}


def test_what_others_own_too_stays():
    live = Live()
    live.apply(thing(text="x", map={"a": "1"}, items=[{"name": "i", "value": "v"}]), "one")
    live.apply(thing(map={"a": "1"}, items=[{"name": "i"}]), "other")
    live.apply(thing(text="x"), "one")
    assert live.spec == {"text": "x", "map": {"a": "1"}, "items": [{"name": "i"}]}
    live.apply(thing(), "other")
    assert live.spec == {"text": "x"}


def test_what_an_updater_set_stays():
    live = Live()
    live.apply(thing(text="x", map={"a": "1"}), "me")
    live.update(thing(text="x", map={"a": "1", "b": "2"}, number=3), "other")
    live.apply(thing(text="x"), "me")
    assert live.spec == {"text": "x", "map": {"b": "2"}, "number": 3}


def test_conflicts_name_owners_and_fields():
    live = Live()
    live.apply(thing(text="x"), "applier")
    live.update(thing(text="x", number=1, items=[{"name": "i", "value": "v"}]), "updater")
    with pytest.raises(Conflict) as caught:
        live.apply(thing(text="y", number=2, items=[{"name": "i", "value": "w"}]), "me")
    assert caught.value.message == (
        'Apply failed with 3 conflicts: conflicts with "applier":\n- .spec.text\nconflicts with "updater" using v1:\n'
        '- .spec.number\n- .spec.items[name="i"].value'
    )
    assert [(cause.reason, cause.message, cause.field) for cause in caught.value.causes] == [
        ("FieldManagerConflict", 'conflict with "applier"', ".spec.text"),
        ("FieldManagerConflict", 'conflict with "updater" using v1', ".spec.number"),
        ("FieldManagerConflict", 'conflict with "updater" using v1', '.spec.items[name="i"].value'),
    ]
    assert live.spec["text"] == "x"


def test_one_conflict_has_one_line():
    live = Live()
    live.update(thing(text="x"), "up", subresource="status")
    with pytest.raises(Conflict) as caught:
        live.apply(thing(text="y"), "me")
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "up" with subresource "status" using v1: .spec.text'
    )


def test_force_takes_the_fields():
    live = Live()
    live.apply(thing(text="x", number=1), "other")
    live.apply(thing(text="y"), "me", force=True)
    assert live.spec == {"text": "y", "number": 1}
    assert live.owned("other") == {"f:spec": {"f:number": {}}}
    assert live.owned("me") == {"f:spec": {"f:text": {}}}


def test_the_same_value_is_shared_without_a_time():
    live = Live()
    live.apply(thing(text="x"), "one")
    live.time = LATER
    live.apply(thing(text="x"), "other")
    assert [(entry["manager"], entry.get("time")) for entry in live.entries] == [
        ("other", None),
        ("one", TIME),
    ]


def test_atomic_values_are_taken_as_a_whole():
    live = Live()
    live.apply(thing(atomic={"a": "1"}, list=["a"]), "one")
    with pytest.raises(Conflict, match=r"conflicts with \"one\":\n- .spec.atomic\n- .spec.list"):
        live.apply(thing(atomic={"a": "1", "b": "2"}, list=["a", "b"]), "other")
    live.apply(thing(atomic={"b": "2"}, list=["b"]), "other", force=True)
    assert live.spec == {"atomic": {"b": "2"}, "list": ["b"]}


def test_an_object_without_owners_gets_one_for_what_was_there():
    live = Live()
    live.obj = {**thing(text="x"), "metadata": {"name": "x", "uid": "u"}}
    with pytest.raises(Conflict, match=r'conflict with "before-first-apply" using v1: .spec.text'):
        live.apply(thing(text="y"), "me")
    live.apply(thing(number=1), "me")
    assert live.owned("before-first-apply") == {"f:spec": {".": {}, "f:text": {}}}


@pytest.mark.parametrize(
    ("live_names", "applied_names", "result"),
    [
        ("abc", "cb", "acb"),
        ("abc", "cba", "cba"),
        ("abcde", "db", "acdeb"),
        ("ab", "xaby", "xaby"),
        ("abc", "xc", "abxc"),
        ("ac", "abc", "abc"),
        ("", "ba", "ba"),
        ("abcd", "da", "bcda"),
    ],
)
def test_the_order_of_merged_items(live_names, applied_names, result):
    live = Live()
    live.update(thing(items=[{"name": name} for name in live_names]), "other")
    live.apply(thing(items=[{"name": name} for name in applied_names]), "me")
    assert "".join(item["name"] for item in live.spec["items"]) == result


def test_keys_left_out_have_their_defaults():
    live = Live()
    live.update(thing(ports=[{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]), "other")
    live.apply(thing(ports=[{"port": 53, "name": "dns"}]), "me")
    assert live.spec["ports"] == [
        {"port": 53, "protocol": "TCP", "name": "dns"},
        {"port": 53, "protocol": "UDP"},
    ]
    assert live.owned("me") == {
        "f:spec": {"f:ports": {'k:{"port":53,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}}}
    }


def test_duplicates_that_are_there_already_stay_until_they_are_stated():
    live = Live()
    live.update(thing(items=[{"name": "a"}, {"name": "a", "value": "2"}, {"name": "b"}]), "other")
    live.apply(thing(items=[{"name": "b", "value": "x"}]), "me")
    assert [item["name"] for item in live.spec["items"]] == ["a", "a", "b"]
    live.apply(thing(items=[{"name": "a", "value": "3"}]), "me", force=True)
    assert live.spec["items"] == [{"name": "a", "value": "3"}, {"name": "b"}]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"unknown": 1, "other": 2}, ".spec.unknown: field not declared in schema"),
        ({"text": 1}, ".spec.text: expected string, got &value.valueUnstructured{Value:1}"),
        ({"number": "x"}, ".spec.number: expected numeric (int or float), got string"),
        ({"map": ["a"]}, ".spec.map: expected map, got &{[a]}"),
        ({"items": {"a": "b"}}, ".spec.items: expected list, got &{map[a:b]}"),
        ({"items": [{"name": "a"}, {"name": "a"}]}, '.spec.items: duplicate entries for key [name="a"]'),
        (
            {"items": [{"value": "a"}]},
            '.spec.items: element 0: associative list with keys has an element that omits key field "name" '
            "(and doesn't have default value)",
        ),
        ({"set": ["a", "a"]}, '.spec.set: duplicate entries for key [="a"]'),
        (
            {"text": True, "number": "x"},
            "errors:\n  .spec.text: expected string, got &value.valueUnstructured{Value:true}\n"
            "  .spec.number: expected numeric (int or float), got string",
        ),
        ({"list": [1]}, ".spec.list[0]: expected string, got &value.valueUnstructured{Value:1}"),
    ],
)
def test_objects_that_do_not_fit(spec, fault):
    with pytest.raises(Unclassified) as caught:
        Live().apply(thing({"namespace": "n"}, **spec), "me")
    assert caught.value.message == f"failed to create typed patch object (n/x; /v1, Kind=Thing): {fault}"


def test_objects_of_others_kinds_and_with_entries_are_refused():
    live = Live()
    with pytest.raises(BadRequest, match=r"^invalid object type: apps/v2, Kind=Thing$"):
        live.apply({**thing(), "apiVersion": "apps/v2"}, "me")
    with pytest.raises(BadRequest, match=r"^metadata.managedFields must be nil$"):
        live.apply(thing({"managedFields": []}), "me")


def _client_side(live, **spec):
    obj = thing(**spec)
    text = json.dumps(obj)
    live.update(
        {**obj, "metadata": {"name": "x", "annotations": {ANNOTATION: text}}}, "kubectl-client-side-apply"
    )


def test_kubectl_takes_over_what_its_client_side_apply_set():
    live = Live()
    _client_side(live, text="x", number=1)
    live.apply(thing(text="y", number=1), "kubectl")
    assert live.spec == {"text": "y", "number": 1}
    annotation = live.obj["metadata"]["annotations"][ANNOTATION]
    assert annotation == (
        '{"apiVersion":"v1","kind":"Thing","metadata":{"name":"x"},"spec":{"number":1,"text":"y"}}\n'
    )


def test_others_do_not_and_neither_what_was_changed_since():
    live = Live()
    _client_side(live, text="x", number=1)
    with pytest.raises(Conflict):
        live.apply(thing(text="y"), "other")
    assert live.obj is not None
    live.update({**live.obj, "spec": {"text": "x", "number": 2}}, "scaler")
    with pytest.raises(Conflict) as caught:
        live.apply(thing(text="y", number=3), "kubectl")
    assert (
        caught.value.message == 'Apply failed with 1 conflict: conflict with "scaler" using v1: .spec.number'
    )
