"""Decoding: unknown fields, wrong types in Go's words, canonical values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.meta.objects import clone
from controlplane.schema import strict
from controlplane.schema.definitions import type_for


def service(**spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


def check(obj, api_version="v1", kind="Service"):
    before = clone(obj)
    checked = strict.check(obj, api_version, kind)
    assert obj == before
    return checked


def only_error(obj, api_version="v1", kind="Service"):
    checked = check(obj, api_version, kind)
    assert len(checked.type_errors) == 1
    return checked.type_errors[0]


GOOD = service(
    selector={"app": "web"}, ports=[{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}]
)


def test_a_clean_object_comes_back_itself():
    checked = check(GOOD)
    assert checked.pruned is GOOD
    assert checked.unknown == checked.type_errors == []


def test_kinds_without_type_are_accepted():
    obj = {"apiVersion": "example.com/v1", "kind": "Thing", "spec": {"x": None}}
    assert check(obj, "example.com/v1", "Thing").pruned is obj


def test_unknown_fields_are_named_and_dropped():
    obj = service(selectorr={}, ports=[{"port": 80}, {"port": 81, "foo": {"x": 1}}]) | {"extra": 1}
    obj["metadata"]["labels"] = {"any": "thing"}
    checked = check(obj)
    assert checked.unknown == ["spec.selectorr", "spec.ports[1].foo", "extra"]
    assert checked.type_errors == []
    assert checked.pruned["spec"] == {"ports": [{"port": 80}, {"port": 81}]}
    assert "extra" not in checked.pruned


def test_field_names_are_case_sensitive():
    assert check(service(clusterip="None")).unknown == ["spec.clusterip"]


def test_nulls_leave_fields_out():
    obj = service(selector={"a": None}, ports=[None], type=None) | {"status": None}
    obj["metadata"]["creationTimestamp"] = None
    checked = check(obj)
    assert checked.pruned == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "creationTimestamp": None},
        "spec": {"selector": {"a": ""}, "ports": [{}]},
    }
    assert checked.unknown == checked.type_errors == []


def test_objects_with_a_template_as_go_prints_it_are_clean():
    meta = {"labels": {"app": "a"}, "creationTimestamp": None}
    obj = {"spec": {"replicas": 1, "template": {"metadata": meta, "spec": {"containers": []}}}}
    assert check(obj, "apps/v1", "Deployment").pruned is obj


@pytest.mark.parametrize(
    ("obj", "error"),
    [
        (
            service(ports="x"),
            "json: cannot unmarshal string into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
        ),
        (
            service(ports=[{"port": "80"}]),
            "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            service(ports=[{"port": 1.5}]),
            "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            service(ports=[{"port": 2**31}]),
            "json: cannot unmarshal number 2147483648 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            service(selector={"a": True}),
            "json: cannot unmarshal bool into Go struct field ServiceSpec.spec.selector of type string",
        ),
        (
            service(selector=[]),
            "json: cannot unmarshal array into Go struct field ServiceSpec.spec.selector of type map[string]string",
        ),
        (
            service(publishNotReadyAddresses={}),
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.publishNotReadyAddresses of type bool",
        ),
        (
            {"spec": "x"},
            "json: cannot unmarshal string into Go struct field Service.spec of type v1.ServiceSpec",
        ),
        (
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            service(ports=[{"port": 80, "targetPort": True}]),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            {"metadata": {"creationTimestamp": 5}},
            "json: cannot unmarshal number into Go value of type string",
        ),
        (
            {"metadata": {"creationTimestamp": "today"}},
            'parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006"',
        ),
        ([], "json: cannot unmarshal array into Go value of type v1.Service"),
    ],
)
def test_type_errors(obj, error):
    assert only_error(obj) == error


def test_the_struct_in_a_message_is_the_innermost_again_after_leaving_a_struct():
    errors = check(service(ports=[{"port": "80"}], type=5)).type_errors
    assert (
        errors[1] == "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type string"
    )


def pod(limits):
    return {"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}}


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("1000m", "1"),
        (0.5, "500m"),
        (2, "2"),
        (" 1Gi ", "1Gi"),
        ("1024Mi", "1Gi"),
        (None, "0"),
        ("250m", "250m"),
    ],
)
def test_quantities_become_canonical(value, canonical):
    checked = check(pod({"cpu": value}), kind="Pod")
    assert checked.pruned == pod({"cpu": canonical})
    assert checked.type_errors == []


@pytest.mark.parametrize("value", ["", "1 core", True, {}, []])
def test_wrong_quantities(value):
    assert only_error(pod({"cpu": value}), kind="Pod").startswith(
        "quantities must match the regular expression"
    )


def test_times_become_canonical():
    checked = check({"metadata": {"creationTimestamp": "2026-01-02T03:04:05.5+01:00"}})
    assert checked.pruned["metadata"]["creationTimestamp"] == "2026-01-02T02:04:05Z"
    lease = {"spec": {"renewTime": "2026-01-02T03:04:05.123456+01:00"}}
    checked = check(lease, "coordination.k8s.io/v1", "Lease")
    assert checked.pruned["spec"]["renewTime"] == "2026-01-02T02:04:05.123456Z"
    assert only_error({"spec": {"renewTime": "2026-01-02T03:04:05Z"}}, "coordination.k8s.io/v1", "Lease") == (
        'parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"'
    )
    assert only_error({"metadata": {"creationTimestamp": "2026-02-30T00:00:00Z"}}).endswith(
        "day out of range"
    )


@pytest.mark.parametrize(("data", "result"), [("aGk=", "aGk="), ("", ""), ("a\nGk\r\n=", "aGk="), (None, "")])
def test_bytes(data, result):
    assert check({"data": {"k": data}}, kind="Secret").pruned == {"data": {"k": result}}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("a!k=", "illegal base64 data at input byte 1"),
        ("aGk", "illegal base64 data at input byte 0"),
        (5, "json: cannot unmarshal number into Go struct field Secret.data of type []uint8"),
    ],
)
def test_wrong_bytes(data, error):
    assert only_error({"data": {"k": data}}, kind="Secret") == error


def test_values_without_a_type_are_kept_whole():
    raw = {"f:metadata": {"f:x": None, ".": {}}}
    obj = {"metadata": {"managedFields": [{"manager": "a", "fieldsV1": raw}]}}
    assert check(obj).pruned is obj
    revision = {"data": {"spec": {"any": [1, None]}}, "revision": 1}
    assert check(revision, "apps/v1", "ControllerRevision").pruned is revision


members = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(1.5), st.sampled_from(["", "x", "1", "1Gi", "aGk="])
)
values = st.recursive(
    members,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["name", "ports", "port", "targetPort", "cpu", "limits", "x", "labels"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "kind", "x"]), values, max_size=4))
def test_the_fast_way_agrees_with_the_careful_one(obj):
    """Whatever the fast check lets through, careful decoding returns unchanged and without a remark."""
    decoder = strict._Decoder()
    decoded = decoder.decode(type_for("v1", "Pod"), clone(obj))
    clean = decoded == obj and not decoder.unknown and not decoder.type_errors
    assert (check(obj, kind="Pod").pruned is obj) is clean


@given(values)
def test_decoding_twice_changes_nothing_more(spec):
    first = check({"spec": spec}, kind="Pod")
    if not first.type_errors:
        assert check(first.pruned, kind="Pod").pruned is first.pruned
