"""Strategic merge patch: merge keys, directives, orders and faults, on the types of the built-in kinds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.patches import strategic_diff

from controlplane.errors import BadRequest, InternalError, Invalid
from controlplane.meta.objects import clone
from controlplane.meta.patch.strategic import apply_strategic
from controlplane.schema.definitions import type_for

POD, SERVICE, DEPLOYMENT = type_for("v1", "Pod"), type_for("v1", "Service"), type_for("apps/v1", "Deployment")


def containers(*items):
    return {"spec": {"containers": list(items)}}


def merged(original, patch, schema=POD):
    before = clone(original), clone(patch)
    result = apply_strategic(original, patch, schema)
    assert (original, patch) == before
    return result


A, B, C = ({"name": name, "image": f"{name}:1"} for name in "abc")


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ([{"name": "b", "image": "b:2"}], [A, {"name": "b", "image": "b:2"}, C]),
        ([{"name": "d"}], [{"name": "d"}, A, B, C]),
        ([{"name": "b", "image": None}], [A, {"name": "b"}, C]),
        ([{"name": "b", "$patch": "delete"}], [A, C]),
        ([{"name": "x", "$patch": "delete"}], [A, B, C]),
        ([{"$patch": "replace"}, {"name": "d", "image": None}], [{"name": "d"}]),
        ([{"name": "b", "$patch": "replace", "image": "x"}, {"name": "d"}], [{"name": "d"}]),
        ([], [A, B, C]),
    ],
)
def test_lists_merge_by_key(change, result):
    assert merged(containers(A, B, C), containers(*change)) == containers(*result)


def test_lists_without_merge_strategy_are_replaced():
    original = {"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x"]}]}}
    patch = {"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}}
    assert merged(original, patch) == patch


def test_merge_keys_differ_by_type():
    service = {"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}}
    patch = {"spec": {"ports": [{"port": 80, "name": "web"}]}}
    assert merged(service, patch, SERVICE)["spec"]["ports"] == [{"port": 80, "name": "web"}, {"port": 443}]
    pod = containers({"name": "a", "ports": [{"containerPort": 80, "name": "http"}]})
    patch = containers({"name": "a", "ports": [{"containerPort": 80, "hostPort": 1}, {"containerPort": 81}]})
    ports = merged(pod, patch)["spec"]["containers"][0]["ports"]
    assert ports == [{"containerPort": 80, "name": "http", "hostPort": 1}, {"containerPort": 81}]


def test_conditions_merge_by_type():
    pod = {"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized"}]}}
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    result = merged(pod, patch)["status"]["conditions"]
    assert result == [{"type": "Ready", "status": "True"}, {"type": "Initialized"}]


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"finalizers": ["c"]}, ["c", "a", "b"]),
        ({"finalizers": ["b", "d"]}, ["a", "b", "d"]),
        ({"$deleteFromPrimitiveList/finalizers": ["a", "x"]}, ["b"]),
        ({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}, ["c", "b"]),
        ({"$setElementOrder/finalizers": ["b", "a"]}, ["b", "a"]),
        ({"$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"]}, ["a", "b", "c"]),
    ],
)
def test_lists_of_plain_values_merge(patch, result):
    pod = {"metadata": {"finalizers": ["a", "b"]}}
    assert merged(pod, {"metadata": patch})["metadata"]["finalizers"] == result


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"$patch": "replace", "x": "y"}, {"x": "y"}),
        ({"$patch": "delete"}, {}),
        ({"a": None, "n": "1"}, {"b": "2", "n": "1"}),
    ],
)
def test_directives_of_mappings(patch, result):
    pod = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    assert merged(pod, {"metadata": {"labels": patch}}) == {"metadata": {"labels": result}}


def test_retain_keys_drops_the_rest():
    deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert merged(deployment, patch, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}
    pod = {"spec": {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "w"}]}}
    volume = {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}
    volumes = merged(pod, {"spec": {"volumes": [volume]}})["spec"]["volumes"]
    assert volumes == [{"name": "v", "configMap": {"name": "c"}}, {"name": "w"}]


def test_order_puts_the_servers_own_items_where_they_were():
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "n"}, {"name": "a"}],
            "containers": [{"name": "n"}],
        }
    }
    names = [item["name"] for item in merged(containers(A, B, C), patch)["spec"]["containers"]]
    assert names == ["b", "c", "n", "a"]


def test_new_parts_come_without_directives_and_nulls():
    patch = {
        "metadata": {"labels": {"a": None, "b": "1"}, "annotations": {"$patch": "delete"}},
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [
                {"name": "a", "image": None, "env": [{"name": "X", "$patch": "delete"}, {"name": "Y"}]}
            ],
            "volumes": [{"name": "v", "$retainKeys": ["name"]}],
            "$deleteFromPrimitiveList/x": ["a"],
        },
    }
    assert merged({}, patch) == {
        "metadata": {"labels": {"b": "1"}},
        "spec": {"containers": [{"name": "a", "env": [{"name": "Y"}]}], "volumes": [{"name": "v"}]},
    }


def test_types_that_differ_are_replaced():
    assert merged({"spec": "x"}, {"spec": {"a": None, "b": 1}}) == {"spec": {"b": 1}}
    assert merged({"spec": {"a": 1}}, {"spec": "x"}) == {"spec": "x"}


def test_mappings_with_the_strategy_replace():
    budget = type_for("policy/v1", "PodDisruptionBudget")
    original = {"spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}
    patch = {"spec": {"selector": {"matchExpressions": [], "x": None}}}
    result = merged(original, patch, budget)
    assert result == {"spec": {"selector": {"matchExpressions": []}, "minAvailable": 1}}


def test_keys_of_other_types_are_other_keys():
    service = {"spec": {"ports": [{"port": 1, "name": "a"}]}}
    result = merged(service, {"spec": {"ports": [{"port": True}, {"port": "1"}]}}, SERVICE)
    assert result["spec"]["ports"] == [{"port": True}, {"port": "1"}, {"port": 1, "name": "a"}]


def test_without_schema_lists_are_replaced():
    assert merged(containers(A, B), containers(C), None) == containers(C)


@pytest.mark.parametrize(
    ("patch", "error", "message"),
    [
        ([], BadRequest, "invalid JSON document"),
        (
            containers({"image": "x"}),
            InternalError,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            containers({"$patch": "delete", "image": "x"}),
            InternalError,
            "map: map[$patch:delete image:x] does not contain declared merge key: name",
        ),
        (
            containers({"name": "a", "$patch": "drop"}),
            InternalError,
            "unknown patch type: drop in map: map[$patch:drop name:a]",
        ),
        (
            containers({"name": "a", "$patch": "merge"}),
            InternalError,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            {"spec": {"$patch": "x", "l": [1, True, None]}},
            InternalError,
            "unknown patch type: x in map: map[l:[1 true <nil>]]",
        ),
        (
            containers("a"),
            InternalError,
            "list element types are not identical: [[map[image:a:1 name:a]] [a]]",
        ),
        ({"spec": {"$retainKeys": "x"}}, BadRequest, "invalid patch format of retainKeys"),
        ({"spec": {"$retainKeys": ["a"], "nodeName": "n"}}, BadRequest, "invalid patch format of retainKeys"),
        ({"spec": {"$setElementOrder": []}}, BadRequest, "invalid patch format of setElementOrder list"),
        ({"spec": {"$deleteFromPrimitiveList": []}}, BadRequest, "invalid patch format of primitive list"),
        (
            {"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}},
            InternalError,
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
        (
            {"spec": {"$setElementOrder/containers": {}}},
            InternalError,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
    ],
)
def test_faults(patch, error, message):
    with pytest.raises(error) as caught:
        apply_strategic(containers(A), patch, POD)
    assert caught.value.message == message


def test_lists_of_lists_are_refused():
    with pytest.raises(Invalid) as caught:
        apply_strategic({"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": [["b"]]}}, POD)
    assert caught.value.message == "the server rejected our request due to an error in our request"


KEYS = {"containers": "name", "env": "name", "ports": "containerPort", "finalizers": ""}
environment = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("XYZ")}, optional={"value": st.sampled_from("12")}),
    unique_by=lambda item: item["name"],
    max_size=3,
)
ports = st.lists(
    st.fixed_dictionaries({"containerPort": st.integers(80, 82)}, optional={"protocol": st.just("UDP")}),
    unique_by=lambda item: item["containerPort"],
    max_size=3,
)
container = st.fixed_dictionaries(
    {"name": st.sampled_from("abcd")},
    optional={
        "image": st.sampled_from("12"),
        "env": environment,
        "ports": ports,
        "args": st.lists(st.sampled_from("pq")),
    },
)
pods = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(container, unique_by=lambda item: item["name"], max_size=4)}
        )
    },
    optional={
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("12")),
                "finalizers": st.lists(st.sampled_from("fgh"), unique=True, max_size=3),
            },
        )
    },
)


@given(pods, pods)
def test_patching_with_a_clients_difference_gives_the_target(old, new):
    assert merged(old, strategic_diff(old, new, KEYS)) == new


@given(pods, pods, pods)
def test_others_additions_survive(old, new, live):
    """A client's patch against a newer object keeps what it did not know of."""
    live_names = {item["name"] for item in live["spec"]["containers"]}
    result = merged(live, strategic_diff(old, new, KEYS))
    names = [item["name"] for item in result["spec"].get("containers", [])]
    deleted = {item["name"] for item in old["spec"]["containers"]} - {
        item["name"] for item in new["spec"]["containers"]
    }
    assert len(names) == len(set(names))
    assert live_names - deleted <= set(names)
    assert not deleted & set(names)
