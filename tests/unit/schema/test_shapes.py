"""Shapes of built-in kinds and of custom resources: what comes out as field owners."""

from __future__ import annotations

import pytest
from support.managed import Versions

from controlplane.meta.managed.applying import apply
from controlplane.meta.managed.tracking import Writer, tracked
from controlplane.meta.managed.typed import Mistyped, check_type
from controlplane.resources.catalog import KINDS, by_kind
from controlplane.schema import shapes

TIME = "2026-01-01T00:00:00Z"
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "nginx", "labels": {"app": "nginx"}},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "nginx"}},
        "template": {
            "metadata": {"creationTimestamp": None, "labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80}]}]},
        },
    },
}


def created(obj):
    kind = by_kind(obj["apiVersion"], obj["kind"])
    kind.default(obj)
    shape = shapes.builtin(obj["apiVersion"], obj["kind"])
    writer = Writer("m", obj["apiVersion"], "", TIME, (("f:status",),))
    (entry,) = tracked(Versions(shape, obj["apiVersion"]), None, obj, None, writer)
    return entry["fieldsV1"]


def test_a_created_deployment_is_owned_as_by_a_real_server():
    port = {".": {}, "f:containerPort": {}, "f:protocol": {}}
    container = {
        ".": {},
        "f:image": {},
        "f:imagePullPolicy": {},
        "f:name": {},
        "f:ports": {".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': port},
        "f:resources": {},
        "f:terminationMessagePath": {},
        "f:terminationMessagePolicy": {},
    }
    assert created({**DEPLOYMENT}) == {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:progressDeadlineSeconds": {},
            "f:replicas": {},
            "f:revisionHistoryLimit": {},
            "f:selector": {},
            "f:strategy": {
                "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                "f:type": {},
            },
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {'k:{"name":"nginx"}': container},
                    "f:dnsPolicy": {},
                    "f:restartPolicy": {},
                    "f:schedulerName": {},
                    "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        },
    }


def test_a_created_service_is_owned_as_by_a_real_server():
    fields = created(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s"},
            "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}], "type": "ClusterIP"},
        }
    )
    assert fields["f:spec"]["f:selector"] == {}
    assert fields["f:spec"]["f:ports"].keys() == {".", 'k:{"port":80,"protocol":"TCP"}'}
    assert fields["f:spec"].keys() == {
        "f:internalTrafficPolicy", "f:ports", "f:selector", "f:sessionAffinity", "f:type",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "element"),
    [
        ("finalizers", ["x/y"], 'v:"x/y"'),
        ("ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}], 'k:{"uid":"u"}'),
    ],
)
def test_lists_of_metadata(place, value, element):
    fields = created({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", place: value}})
    assert fields == {"f:metadata": {f"f:{place}": {".": {}, element: {}}}}


SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"},
                "either": {"x-kubernetes-int-or-string": True},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name", "kind"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "kind": {"type": "string", "default": "plain"},
                            "size": {"type": "integer"},
                        },
                    },
                },
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "words": {"type": "array", "items": {"type": "string"}},
                "whole": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "properties": {"a": {"type": "string"}},
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        }
    },
}


def applied(spec, schema=SCHEMA):
    obj = {"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
    versions = Versions(shapes.custom(schema), "test/v1")
    result = apply(versions, None, obj, "Thing", Writer("m", "test/v1", "", TIME), False)
    return result.entries[0]["fieldsV1"]["f:spec"]


def test_structural_schemas():
    assert applied(
        {
            "size": 1,
            "either": "1",
            "parts": [{"name": "a", "size": 2}],
            "tags": ["t"],
            "words": ["w"],
            "whole": {"a": "b"},
            "labels": {"l": "m"},
            "open": {"any": {"thing": [1]}},
        }
    ) == {
        "f:either": {},
        "f:labels": {"f:l": {}},
        "f:open": {"f:any": {".": {}, "f:thing": {}}},
        "f:parts": {'k:{"kind":"plain","name":"a"}': {".": {}, "f:name": {}, "f:size": {}}},
        "f:size": {},
        "f:tags": {'v:"t"': {}},
        "f:whole": {},
        "f:words": {},
    }


def test_without_a_schema_all_is_deduced():
    assert applied({"a": {"b": [1]}, "c": 1}, None) == {".": {}, "f:a": {".": {}, "f:b": {}}, "f:c": {}}


def test_what_a_structural_schema_does_not_declare():
    shape = shapes.custom(SCHEMA)
    with pytest.raises(Mistyped, match=r"^\.spec\.sizes: field not declared in schema$"):
        check_type(shape, {"spec": {"sizes": 1}})
    with pytest.raises(Mistyped, match=r"^\.status: field not declared in schema$"):
        check_type(shape, {"status": {}})
    check_type(shape, {"apiVersion": "a", "kind": "b", "metadata": {"labels": {"a": "b"}}})


def test_what_became_atomic_is_owned_as_a_whole():
    obj = {"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {"tags": ["a", "b"]}}
    writer = Writer("m", "test/v1", "", TIME)
    made = apply(Versions(shapes.custom(SCHEMA), "test/v1"), None, obj, "Thing", writer, False)
    spec = SCHEMA["properties"]["spec"]
    tags = {**spec["properties"]["tags"], "x-kubernetes-list-type": "atomic"}
    changed = {"properties": {"spec": {**spec, "properties": {**spec["properties"], "tags": tags}}}}
    now = Versions(shapes.custom({"type": "object", **changed}), "test/v1")
    live = {**made.obj, "metadata": {**made.obj["metadata"], "managedFields": made.entries}}
    (entry,) = tracked(now, live, live, None, Writer("other", "test/v1", "", TIME))
    assert entry["fieldsV1"] == {"f:spec": {"f:tags": {}}}
    fewer = {**obj, "spec": {"tags": ["b"]}}
    assert apply(now, live, fewer, "Thing", writer, False).obj["spec"] == {"tags": ["b"]}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.definitions], ids=lambda kind: kind.kind)
def test_every_kind_has_a_shape(kind):
    shape = shapes.builtin(kind.api_version, kind.kind)
    assert shape is not None
    assert "metadata" in shape.fields
