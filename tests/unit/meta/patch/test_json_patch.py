"""JSON patch (RFC 6902) with upstream's additions and faults."""

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import BadRequest, Invalid, RequestEntityTooLarge
from controlplane.meta.objects import clone
from controlplane.meta.patch.json_patch import MAX_OPERATIONS, apply_json_patch


def op(name, path, *value, source=None):
    found = {"op": name, "path": path}
    if value:
        found["value"] = value[0]
    if source is not None:
        found["from"] = source
    return found


@pytest.mark.parametrize(
    ("obj", "operations", "result"),
    [
        ({"a": 1}, [op("add", "/b", 2)], {"a": 1, "b": 2}),
        ({"a": 1}, [op("add", "/a", None)], {"a": None}),
        ({"l": [1, 3]}, [op("add", "/l/1", 2)], {"l": [1, 2, 3]}),
        ({"l": [1]}, [op("add", "/l/-", 2)], {"l": [1, 2]}),
        ({"l": [1]}, [op("add", "/l/1", 2)], {"l": [1, 2]}),
        ({"l": [1, 2]}, [op("add", "/l/-1", 3)], {"l": [1, 2, 3]}),
        ({"a": {"b": 1}}, [op("remove", "/a/b")], {"a": {}}),
        ({"l": [1, 2]}, [op("remove", "/l/0")], {"l": [2]}),
        ({"l": [1, 2]}, [op("remove", "/l/-1")], {"l": [1]}),
        ({"a": 1}, [op("replace", "/a", [1])], {"a": [1]}),
        ({"a": 1}, [op("replace", "", {"b": 1})], {"b": 1}),
        ({"l": [1, 2]}, [op("replace", "/l/1", 9)], {"l": [1, 9]}),
        ({"a": {"x": 1}}, [op("move", "/b", source="/a/x")], {"a": {}, "b": 1}),
        ({"l": [1, 2, 3]}, [op("move", "/l/2", source="/l/0")], {"l": [2, 3, 1]}),
        ({"a": {"x": 1}}, [op("copy", "/b", source="/a")], {"a": {"x": 1}, "b": {"x": 1}}),
        ({"a": 1}, [op("test", "/a", 1)], {"a": 1}),
        ({"a": 1}, [op("test", "/b", None)], {"a": 1}),
        ({"a": {"x": [1.0]}}, [op("test", "/a", {"x": [1]})], {"a": {"x": [1.0]}}),
        ({"m/n": {"~": 1}}, [op("replace", "/m~1n/~0", 2)], {"m/n": {"~": 2}}),
        ({"m": {"": 1}}, [op("remove", "/m/")], {"m": {}}),
    ],
)
def test_operations(obj, operations, result):
    before = clone(obj)
    assert apply_json_patch(obj, operations) == result
    assert obj == before


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        (op("add", "/x/y", 1), 'add operation does not apply: doc is missing path: "/x/y": missing value'),
        (op("add", "x", 1), 'add operation does not apply: doc is missing path: "x": missing value'),
        (op("add", "/l/3", 1), "Unable to access invalid index: 3: invalid index referenced"),
        (op("add", "/l/01", 1), 'strconv.Atoi: parsing "01": invalid syntax'),
        (op("add", "/l/-4", 1), "Unable to access invalid index: -4: invalid index referenced"),
        (op("add", "/z"), "add operation of /z does not have a value"),
        (
            op("remove", "/x"),
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (op("remove", "/l/2"), "Unable to access invalid index: 2: invalid index referenced"),
        (op("remove", ""), "remove operation does not apply: the whole document cannot be removed"),
        (op("replace", "/x", 1), "replace operation does not apply: doc is missing key: /x: missing value"),
        (
            op("replace", "/a/b/c/d", 1),
            "replace operation does not apply: doc is missing path: /a/b/c/d: missing value",
        ),
        (
            op("replace", "/l/7", 1),
            "replace operation does not apply: doc is missing key: /l/7: missing value",
        ),
        (op("move", "/a/b/c", source="/a"), "move operation does not apply: /a cannot be moved into itself"),
        (op("move", "/b"), 'move operation does not have a "from"'),
        (
            op("copy", "/b", source="/x"),
            "copy operation does not apply: doc is missing from path: /x: missing value",
        ),
        (op("test", "/a", 1), "testing value /a failed: test failed"),
        (op("test", "/t", 1), "testing value /t failed: test failed"),
        (op("test", "/x/y", 1), "test operation does not apply: is missing path: /x/y: missing value"),
        (op("jump", "/a"), "Unexpected kind: jump"),
        ({"path": "/a"}, "Unexpected kind: unknown"),
        ({"op": "remove"}, 'remove operation does not have a "path"'),
        (op("replace", "", 1), "the patched document is not an object"),
    ],
)
def test_faults(operation, fault):
    obj = {"a": {"b": {}}, "l": [1, 2], "t": True}
    before = clone(obj)
    with pytest.raises(Invalid) as caught:
        apply_json_patch(obj, [op("add", "/new", 1), operation])
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert str(caught.value.__cause__) == fault
    assert obj == before


@pytest.mark.parametrize("operations", [{}, "x", [1], None])
def test_a_patch_is_a_list_of_operations(operations):
    with pytest.raises(BadRequest, match=r"^json: cannot unmarshal"):
        apply_json_patch({}, operations)


def test_too_many_operations():
    many = [op("add", "/a", 1)] * MAX_OPERATIONS
    assert apply_json_patch({}, many) == {"a": 1}
    with pytest.raises(RequestEntityTooLarge, match="maximum operations in a JSON patch is 10000, got 10001"):
        apply_json_patch({}, [*many, many[0]])


names = st.sampled_from(["a", "b", "m/n", "~", "x y", "0"])
values = st.recursive(
    st.integers(-9, 9), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6
)
documents = st.dictionaries(names, values, min_size=1, max_size=3)


def pointers(value, prefix=""):
    for key, member in value.items():
        path = f"{prefix}/{key.replace('~', '~0').replace('/', '~1')}"
        yield path, member
        if isinstance(member, dict):
            yield from pointers(member, path)


@given(documents, st.data())
def test_removing_and_adding_again_restores(obj, data):
    path, value = data.draw(st.sampled_from(list(pointers(obj))))
    removed = apply_json_patch(obj, [op("test", path, value), op("remove", path)])
    assert removed != obj
    assert apply_json_patch(removed, [op("add", path, value)]) == obj


@given(documents, st.data())
def test_a_move_is_a_copy_and_a_removal(obj, data):
    source, value = data.draw(st.sampled_from(list(pointers(obj))))
    moved = apply_json_patch(obj, [op("move", "/target", source=source)])
    assert moved == apply_json_patch(obj, [op("copy", "/target", source=source), op("remove", source)])
    assert moved["target"] == value


keys = st.sampled_from(["a", "b", "m/n", "~"])
documents = st.dictionaries(
    keys,
    st.recursive(
        st.integers(0, 3),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=4,
)


@given(documents, documents)
def test_the_librarys_differences_give_the_target(old, new):
    before = clone(old)
    assert apply_json_patch(old, jsonpatch.make_patch(old, new).patch) == new
    assert old == before


def _pointers(value, at=""):
    yield at
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from _pointers(member, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


@st.composite
def patches(draw):
    """A document and a patch made of places that are there, are new, or are not to be had."""
    document = draw(documents)
    places = [place for place in _pointers(document) if place] + ["/new", "/a/x", "/b/0", "/a/-", "/q/r"]
    operations = []
    for _ in range(draw(st.integers(1, 4))):
        operation = {
            "op": draw(st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])),
            "path": draw(st.sampled_from(places)),
        }
        if operation["op"] in ("add", "replace", "test"):
            operation["value"] = draw(st.integers(0, 3))
        if operation["op"] in ("move", "copy"):
            operation["from"] = draw(st.sampled_from(places))
        operations.append(operation)
    return document, operations


@given(patches())
def test_operations_do_what_the_library_does(found):
    document, operations = found
    try:
        expected = jsonpatch.apply_patch(document, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError):
        with pytest.raises(Invalid):
            apply_json_patch(document, operations)
    else:
        assert apply_json_patch(document, operations) == expected
