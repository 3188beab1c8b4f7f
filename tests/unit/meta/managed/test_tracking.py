"""Owners after creates, updates and patches."""

import pytest
from support.managed import LATER, THING, TIME, Live, thing

from controlplane.meta.managed.compare import compare
from controlplane.meta.managed.entries import MAX_UPDATERS


def test_a_creator_owns_what_it_created_but_for_the_servers_fields():
    live = Live()
    live.update(
        thing({"labels": {"a": "1"}, "generation": 1}, text="x", items=[{"name": "i", "value": "v"}]), "me"
    )
    assert live.entries == [
        {
            "manager": "me",
            "operation": "Update",
            "apiVersion": "v1",
            "time": TIME,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {
                    ".": {},
                    "f:items": {".": {}, 'k:{"name":"i"}': {".": {}, "f:name": {}, "f:value": {}}},
                    "f:text": {},
                },
            },
        }
    ]


def test_an_updater_owns_what_it_changed_and_nobody_else_does():
    live = Live()
    live.update(thing(text="x", number=1, map={"a": "1"}), "first")
    live.time = LATER
    live.update(thing(text="y", number=1, map={"a": "1", "b": "2"}), "second")
    assert live.owned("second") == {"f:spec": {"f:map": {"f:b": {}}, "f:text": {}}}
    assert live.owned("first") == {"f:spec": {".": {}, "f:map": {".": {}, "f:a": {}}, "f:number": {}}}
    assert [entry["time"] for entry in live.entries] == [TIME, LATER]


def test_what_is_removed_is_owned_by_nobody():
    live = Live()
    live.update(thing(text="x", map={"a": "1"}), "first")
    live.update(thing(text="x"), "second")
    assert live.owned("first") == {"f:spec": {".": {}, "f:text": {}}}
    assert live.owned("second") is None


def test_an_owner_of_nothing_has_no_entry():
    live = Live()
    live.update(thing(text="x"), "first")
    live.update(thing(text="y"), "second")
    live.update(thing(text="z"), "third")
    assert [entry["manager"] for entry in live.entries] == ["first", "third"]


def test_nothing_changes_when_nothing_changed():
    live = Live()
    live.update(thing(text="x"), "first")
    before, live.time = live.entries, LATER
    live.update(thing({"generation": 4, "resourceVersion": "9"}, text="x"), "second")
    assert live.entries == before


def test_subresources_have_their_own_entries():
    live = Live()
    live.update(thing(text="x"), "me")
    assert live.obj is not None
    live.update({**thing(text="x"), "status": {"text": "up"}}, "me", subresource="status")
    assert [(entry["manager"], entry.get("subresource")) for entry in live.entries] == [
        ("me", None),
        ("me", "status"),
    ]


def test_no_name_is_unknown():
    live = Live()
    live.update(thing(text="x"), "")
    assert live.entries[0]["manager"] == "unknown"


def test_the_oldest_of_many_updaters_become_one():
    live = Live()
    live.update(thing(map={}), "creator")
    for number in range(15):
        live.time = f"2026-01-02T03:05:{number:02}Z"
        assert live.obj is not None
        live.update(thing(map={**live.spec["map"], f"k{number}": "x"}), f"m{number:02}")
    managers = [entry["manager"] for entry in live.entries]
    assert len(managers) == MAX_UPDATERS
    assert managers[0] == "ancient-changes"
    assert live.entries[0]["fieldsV1"]["f:spec"]["f:map"].keys() >= {"f:k0", "f:k5"}
    assert managers[1:] == [f"m{number:02}" for number in range(6, 15)]


@pytest.mark.parametrize("claimed", [[], [{}]])
def test_clients_may_have_all_ownership_forgotten(claimed):
    live = Live()
    live.update(thing(text="x"), "me")
    live.update(thing(text="y"), "other", claimed)
    assert live.entries == []
    live.update(thing(text="z"), "later")
    assert live.entries == []


@pytest.mark.parametrize(
    "claimed",
    [
        "x",
        [{"manager": "a", "operation": "Other", "apiVersion": "v1", "fieldsType": "FieldsV1"}],
        [{"manager": "a", "operation": "Update", "fieldsType": "FieldsV1"}],
        [{"manager": "a", "operation": "Update", "apiVersion": "v1"}],
        [{"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "V2"}],
        [
            {
                "manager": "a",
                "operation": "Update",
                "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"x": {}},
            }
        ],
        [{"manager": 1, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}],
    ],
)
def test_malformed_entries_of_clients_are_ignored(claimed):
    live = Live()
    live.update(thing(text="x"), "me")
    before = live.entries
    live.update(thing(text="x"), "other", claimed)
    assert live.entries == before


def test_clients_may_edit_entries():
    live = Live()
    live.update(thing(text="x", number=1), "me")
    entry = {
        **live.entries[0],
        "manager": "new",
        "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:text": {}}},
    }
    live.update(thing(text="x", number=1), "me", [entry])
    assert live.entries == [entry]


def test_entries_sent_through_a_subresource_are_ignored():
    live = Live()
    live.update(thing(text="x"), "me")
    before = live.entries
    live.update(thing(text="x"), "me", [], subresource="status")
    assert live.entries == before


def test_entries_of_versions_that_are_gone_are_dropped_with_the_next_change():
    live = Live()
    live.update(thing(text="x"), "me")
    old = {**live.entries[0], "manager": "old", "apiVersion": "v1alpha1"}
    live.update(thing(text="y"), "me", [*live.entries, old])
    assert [entry["manager"] for entry in live.entries] == ["me"]


@pytest.mark.parametrize(
    ("old", "new", "changed", "removed"),
    [
        ({"list": ["a"]}, {"list": ["b"]}, {"f:list": {}}, {}),
        ({"atomic": {"a": "1"}}, {"atomic": {"a": "2"}}, {"f:atomic": {}}, {}),
        ({"set": ["a", "b"]}, {"set": ["b", "c"]}, {"f:set": {'v:"c"': {}}}, {"f:set": {'v:"a"': {}}}),
        ({"set": ["a", "b"]}, {"set": ["b", "a"]}, {}, {}),
        ({"map": {}}, {"map": {"a": "1"}}, {"f:map": {"f:a": {}}}, {}),
        ({"map": {"a": "1"}}, {}, {}, {"f:map": {".": {}, "f:a": {}}}),
        ({"any": {"a": [1]}}, {"any": {"a": [2], "b": {}}}, {"f:any": {"f:a": {}, "f:b": {}}}, {}),
        ({"any": {"a": 1}}, {"any": 3}, {"f:any": {}}, {"f:any": {"f:a": {}}}),
        (
            {"ports": [{"port": 80}]},
            {"ports": [{"port": 80, "protocol": "TCP", "name": "x"}]},
            {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {"f:name": {}, "f:protocol": {}}}},
            {},
        ),
        (
            {"items": [{"name": "a"}]},
            {"items": [{"name": "a"}, {"name": "a", "value": "x"}]},
            {"f:items": {'k:{"name":"a"}': {}}},
            {"f:items": {'k:{"name":"a"}': {".": {}, "f:name": {}}}},
        ),
        (
            {"items": [{"name": "a"}, {"name": "a", "value": "x"}]},
            {"items": [{"name": "a"}]},
            {"f:items": {'k:{"name":"a"}': {".": {}, "f:name": {}}}},
            {"f:items": {'k:{"name":"a"}': {}}},
        ),
    ],
)  # fmt: skip
def test_comparing(old, new, changed, removed):
    found = compare(THING, {"spec": old}, {"spec": new})
    assert [part.get("f:spec", {}) for part in found] == [changed, removed]
