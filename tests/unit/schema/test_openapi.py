"""The OpenAPI v3 index and documents, as kubectl reads them."""

import orjson
import pytest

from controlplane.errors import NotFound
from controlplane.resources.kind import Kind, Scale, Subresource
from controlplane.schema import openapi

POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    namespaced=True,
    status=True,
    subresources=(
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
    ),
)
NODE = Kind(group="", version="v1", kind="Node", plural="nodes", singular="node", namespaced=False)
DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    namespaced=True,
    scale=Scale(),
)
KINDS = (POD, NODE, DEPLOYMENT)


@pytest.fixture(scope="module")
def core():
    return orjson.loads(openapi.document("", "v1", KINDS))


def test_index_gives_each_group_version_an_address_with_its_hash():
    paths = openapi.index(KINDS)["paths"]
    assert set(paths) == {"api/v1", "apis/apps/v1"}
    core_hash = openapi.content_hash("", "v1", KINDS)
    assert paths["api/v1"] == {"serverRelativeURL": f"/openapi/v3/api/v1?hash={core_hash}"}


def test_hash_follows_the_content():
    assert openapi.content_hash("", "v1", KINDS) == openapi.content_hash("", "v1", (POD, NODE))
    assert openapi.content_hash("", "v1", KINDS) != openapi.content_hash("", "v1", (POD,))
    assert openapi.content_hash("", "v1", KINDS) != openapi.content_hash("apps", "v1", KINDS)


def test_documents_are_kept():
    assert openapi.document("", "v1", KINDS) is openapi.document("", "v1", list(KINDS))


def test_unknown_group_versions():
    with pytest.raises(NotFound):
        openapi.document("batch", "v1", KINDS)


def test_paths_and_verbs(core):
    paths = core["paths"]
    methods = {path: sorted(set(item) - {"parameters"}) for path, item in paths.items()}
    assert methods == {
        "/api/v1/namespaces/{namespace}/pods": ["delete", "get", "post"],
        "/api/v1/pods": ["get"],
        "/api/v1/namespaces/{namespace}/pods/{name}": ["delete", "get", "patch", "put"],
        "/api/v1/namespaces/{namespace}/pods/{name}/status": ["get", "patch", "put"],
        "/api/v1/namespaces/{namespace}/pods/{name}/eviction": ["post"],
        "/api/v1/namespaces/{namespace}/pods/{name}/exec": ["get", "post"],
        "/api/v1/nodes": ["delete", "get", "post"],
        "/api/v1/nodes/{name}": ["delete", "get", "patch", "put"],
    }


def test_operation_ids_are_unique_and_upstreams(core):
    names = [
        operation["operationId"]
        for item in core["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(names) == len(set(names))
    assert {"patchCoreV1NamespacedPod", "listCoreV1PodForAllNamespaces", "readCoreV1Node"} <= set(names)
    assert {"replaceCoreV1NamespacedPodStatus", "deleteCoreV1CollectionNamespacedPod"} <= set(names)


def test_kubectl_finds_field_validation_on_the_patch_operation(core):
    patch = core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} == {
        found["name"] for found in patch["parameters"]
    }
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_subresources_name_the_kind_of_their_body(core):
    eviction = core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {
        "group": "policy",
        "version": "v1",
        "kind": "Eviction",
    }
    apps = orjson.loads(openapi.document("apps", "v1", KINDS))
    scale = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["patch"]
    assert scale["x-kubernetes-group-version-kind"]["kind"] == "Scale"


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix("#/components/schemas/")
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize(("group", "version"), [("", "v1"), ("apps", "v1")])
def test_schemas_are_those_that_can_be_reached(group, version):
    document = orjson.loads(openapi.document(group, version, KINDS))
    schemas = document["components"]["schemas"]
    assert set(references(document)) <= set(schemas)
    assert "io.k8s.api.core.v1.PodSpec" in schemas
    assert "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions" in schemas
    assert "io.k8s.api.batch.v1.Job" not in schemas
    assert ("io.k8s.api.core.v1.Node" in schemas) is (group == "")


def test_explain_finds_schemas_by_kind_with_their_documentation(core):
    found = [
        schema
        for schema in core["components"]["schemas"].values()
        if {"group": "", "version": "v1", "kind": "Pod"} in schema.get("x-kubernetes-group-version-kind", [])
    ]
    assert len(found) == 1
    assert found[0]["description"].startswith("Pod is a collection of containers")
    spec = found[0]["properties"]["spec"]
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert spec["description"].startswith("Specification of the desired behavior")
