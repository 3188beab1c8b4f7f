import pytest
from support.resources import said

from controlplane.resources.catalog import CONFIG_MAP, NAMESPACE, NODE, SERVICE
from controlplane.resources.metadata import ANNOTATIONS_MAX, validate_metadata, validate_metadata_update


def config_map(**meta):
    return {"metadata": {"name": "settings", "namespace": "default", **meta}}


def test_a_plain_object_is_fine():
    meta = {
        "labels": {"app.kubernetes.io/name": "web", "empty": ""},
        "annotations": {"Example.com/Any": "text of any kind\n"},
        "finalizers": ["example.com/clean"],
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "1", "controller": True},
            {"apiVersion": "v1", "kind": "Pod", "name": "y", "uid": "2"},
        ],
    }
    assert validate_metadata(CONFIG_MAP, config_map(**meta)) == []


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"name": ""}, "metadata.name: Required value: name or generateName is required"),
        ({"namespace": ""}, "metadata.namespace: Required value"),
        (
            {"name": "Not_Good"},
            'metadata.name: Invalid value: "Not_Good": a lowercase RFC 1123 subdomain must consist of lower case '
            "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
            "'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        ({"generation": -1}, "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"annotations": {"a": "x" * ANNOTATIONS_MAX}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            'metadata.finalizers: Invalid value: []string{"orphan", "foregroundDeletion"}: '
            "finalizer orphan and foregroundDeletion cannot be both set",
        ),
    ],
)
def test_faults(meta, expected):
    assert said(validate_metadata(CONFIG_MAP, config_map(**meta))) == [expected]


@pytest.mark.parametrize(
    ("meta", "field", "part"),
    [
        ({"labels": {"a/b/c": ""}}, "metadata.labels", "a qualified name must consist of"),
        ({"labels": {"a": "x" * 64}}, "metadata.labels", "must be no more than 63 "),
        ({"annotations": {"-": ""}}, "metadata.annotations", "name part must consist of"),
        ({"finalizers": ["no good"]}, "metadata.finalizers", "name part must consist of"),
        ({"generateName": "Web-"}, "metadata.generateName", "a lowercase RFC 1123 subdomain"),
        (
            {"ownerReferences": [{"kind": "A", "name": "b", "uid": "c"}]},
            "metadata.ownerReferences.apiVersion",
            "version must",
        ),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "b", "uid": "c"}]},
            "metadata.ownerReferences",
            "is disallowed from being an owner",
        ),
    ],
)
def test_faults_and_their_place(meta, field, part):
    causes = validate_metadata(CONFIG_MAP, config_map(**meta))
    assert [cause.field for cause in causes] == [field]
    assert part in causes[0].message


def test_one_controller_only():
    owner = {"apiVersion": "v1", "kind": "A", "uid": "1", "controller": True}
    owners = [{**owner, "name": "a"}, {**owner, "name": "b"}]
    (cause,) = validate_metadata(CONFIG_MAP, config_map(ownerReferences=owners))
    assert 'Found "true" in references for a and b' in cause.message


def test_a_prefix_may_end_in_a_dash():
    assert validate_metadata(CONFIG_MAP, config_map(generateName="web-")) == []


def test_names_follow_the_kind():
    assert (
        "a DNS-1035 label"
        in said(validate_metadata(SERVICE, {"metadata": {"name": "1st", "namespace": "default"}}))[0]
    )
    assert "RFC 1123 label" in said(validate_metadata(NAMESPACE, {"metadata": {"name": "A_b"}}))[0]
    assert validate_metadata(NODE, {"metadata": {"name": "a.b"}}) == []


def test_a_cluster_scoped_object_has_no_namespace():
    assert said(validate_metadata(NODE, {"metadata": {"name": "n", "namespace": "x"}})) == [
        "metadata.namespace: Forbidden: not allowed on this type"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "other"}, 'metadata.name: Invalid value: "other": field is immutable'),
        ({"uid": "2"}, 'metadata.uid: Invalid value: "2": field is immutable'),
        ({"generation": 1}, "metadata.generation: Invalid value: 1: must not be decremented"),
        (
            {"creationTimestamp": "2026-01-02T00:00:00Z"},
            'metadata.creationTimestamp: Invalid value: "2026-01-02T00:00:00Z": field is immutable',
        ),
    ],
)
def test_what_an_update_may_not_change(change, expected):
    old = config_map(uid="1", generation=2, creationTimestamp="2026-01-01T00:00:00Z")
    new = {"metadata": {**old["metadata"], **change}}
    assert said(validate_metadata_update(CONFIG_MAP, new, old)) == [expected]


def test_left_out_means_as_before():
    old = config_map(uid="1", creationTimestamp="2026-01-01T00:00:00Z")
    assert validate_metadata_update(CONFIG_MAP, config_map(), old) == []


def test_no_new_finalizers_while_deleting():
    old = config_map(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a.b/c"])
    less = config_map(deletionTimestamp="2026-01-01T00:00:00Z")
    more = config_map(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a.b/c", "d.e/f"])
    assert validate_metadata_update(CONFIG_MAP, less, old) == []
    assert said(validate_metadata_update(CONFIG_MAP, more, old)) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"d.e/f"}'
    ]
