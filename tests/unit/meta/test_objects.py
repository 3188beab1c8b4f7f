"""Reading metadata, copying objects, owner references."""

import pytest

from controlplane.meta import objects, owners

POD = {
    "metadata": {
        "name": "web",
        "namespace": "default",
        "uid": "u1",
        "resourceVersion": "12",
        "labels": {"app": "web"},
        "annotations": {"a": "b"},
    },
    "status": {"podIP": None, "conditions": []},
}


def test_metadata():
    assert objects.name(POD) == "web"
    assert objects.namespace(POD) == "default"
    assert objects.namespaced_name(POD) == "default/web"
    assert objects.uid(POD) == "u1"
    assert objects.resource_version(POD) == 12
    assert objects.labels(POD) == {"app": "web"}
    assert objects.annotations(POD) == {"a": "b"}
    assert not objects.is_being_deleted(POD)
    assert objects.is_being_deleted({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}})


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": {"labels": None}}])
def test_missing_metadata(obj):
    assert (
        objects.name(obj) == objects.namespace(obj) == objects.uid(obj) == objects.namespaced_name(obj) == ""
    )
    assert objects.labels(obj) == objects.annotations(obj) == {}
    assert objects.resource_version(obj) == 0


def test_cluster_scoped_objects_are_named_without_a_slash():
    assert objects.namespaced_name({"metadata": {"name": "node1"}}) == "node1"


def test_dig():
    assert objects.dig(POD, "metadata", "labels", "app") == "web"
    assert objects.dig(POD, "status", "podIP", default="") == ""
    assert objects.dig(POD, "status", "conditions", "x") is None
    assert objects.dig(None, "a", default=1) == 1
    assert objects.dig(POD, "status", "conditions") == []


def test_clone_is_independent():
    copy = objects.clone(POD)
    assert copy == POD
    copy["metadata"]["labels"]["app"] = "db"
    assert POD["metadata"]["labels"]["app"] == "web"


def test_owner_references():
    owner = {"metadata": {"name": "rs", "uid": "u9"}}
    reference = owners.owner_reference("apps/v1", "ReplicaSet", owner)
    assert reference == {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "rs",
        "uid": "u9",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    other = owners.owner_reference("v1", "ConfigMap", owner, controller=False, block=False)
    pod = {"metadata": {"ownerReferences": [other, reference]}}
    assert owners.controller_of(pod) is reference
    assert owners.is_controlled_by(pod, "u9")
    assert not owners.is_controlled_by(pod, "u1")
    assert owners.references(pod) == [other, reference]
    assert owners.controller_of({"metadata": {"ownerReferences": [other]}}) is None
    assert not owners.is_controlled_by({}, "")
