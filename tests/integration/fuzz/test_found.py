"""What the fuzzers found once, as plain cases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster
from support.fuzzing.samples import samples

PODS = "/api/v1/namespaces/default/pods"
SCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with cluster(tmp_path) as served:
        yield served


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (f"resourceVersion={'9' * 5000}", "value out of range"),
        (f"resourceVersion={2**64}", "value out of range"),
        (f"watch=1&timeoutSeconds={'9' * 400}", "value out of range"),
        (f"limit={2**63}", "value out of range"),
        ("limit=1_0", "invalid syntax"),
        ("limit=%D9%A3", "invalid syntax"),
    ],
)
async def test_numbers_of_queries(api: Served, query: str, told: str) -> None:
    assert told in (await api.json("GET", f"{PODS}?{query}", 400))["message"]


async def test_a_version_on_create_has_no_reason(api: Served) -> None:
    body = {"metadata": {"name": "x", "resourceVersion": "5"}}
    status = await api.json("POST", "/api/v1/namespaces/default/configmaps", 500, json=body)
    assert status["message"] == "resourceVersion should not be set on objects to be created"
    assert "reason" not in status


async def test_an_object_is_made_anew_with_owners_of_another_version(api: Served) -> None:
    fields = {"f:spec": {"f:maxReplicas": {}, "f:minReplicas": {}}}
    entry = {"manager": "m", "operation": "Apply", "apiVersion": "autoscaling/v2", "fieldsType": "FieldsV1"}
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "x"}, "maxReplicas": 3}
    body = {"metadata": {"name": "x", "managedFields": [{**entry, "fieldsV1": fields}]}, "spec": spec}
    made = await api.json("POST", SCALERS, 201, json=body)
    assert made["spec"]["maxReplicas"] == 3


@pytest.mark.parametrize("name", ["10.0.0.1", "/", "{}", "", "é", "a b"])
async def test_variables_that_are_no_identifiers(api: Served, name: str) -> None:
    policy: Any = samples()["ValidatingAdmissionPolicy"]
    spec = {
        **policy["spec"],
        "variables": [{"name": name, "expression": "1"}, {"name": "v", "expression": "2"}],
    }
    status = await api.json("POST", POLICIES, 422, json={"metadata": {"name": "x"}, "spec": spec})
    assert "spec.variables[0].name" in [cause["field"] for cause in status["details"]["causes"]]


async def test_a_version_of_a_definition_without_a_name(api: Served) -> None:
    definition: Any = samples()["CustomResourceDefinition"]
    (version,) = definition["spec"]["versions"]
    nameless = {key: value for key, value in version.items() if key != "name"}
    body = {"metadata": {"name": "things.fuzz.io"}, "spec": {**definition["spec"], "versions": [nameless]}}
    status = await api.json("POST", DEFINITIONS, 422, json=body)
    assert "spec.versions[0].name" in [cause["field"] for cause in status["details"]["causes"]]


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", "!!omap [a: b]", "!!python/name:os.system x"])
async def test_tags_of_yaml(api: Served, value: str) -> None:
    text = f"metadata: {{name: x, generation: {value}}}"
    await api.json("POST", PODS, 400, data=text, headers={"Content-Type": "application/yaml"})
