"""The real kubectl with CustomResourceDefinitions: what people type, and what they are told."""

from __future__ import annotations

import json

import pytest
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

pytestmark = pytest.mark.kubectl

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas, priority: 1}
    - {name: Names, type: string, jsonPath: '.spec.list[*].name'}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.cronSpec}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [cronSpec]
            x-kubernetes-validations: [{rule: 'self.replicas != 5', message: five is too many or too few}]
            properties:
              cronSpec: {type: string, description: When it runs.}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              list:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, n: {type: integer}}}
          status: {type: object, properties: {replicas: {type: integer}}}
"""

CR = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: my}
spec: {cronSpec: daily, list: [{name: a}, {name: b}]}
"""


async def defined(kubectl: Kubectl) -> None:
    path = kubectl.write("crd.yaml", CRD)
    assert await kubectl("create", "-f", path) == (
        "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n"
    )
    told = await kubectl(
        "wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=20s"
    )
    assert told.endswith("condition met\n")


@needs_kubectl(27)
async def test_from_definition_to_deletion(kubectl: Kubectl) -> None:
    await defined(kubectl)
    listed = await kubectl("api-resources", "--api-group=stable.example.com", "--no-headers")
    assert listed.split() == ["crontabs", "ct", "stable.example.com/v1", "true", "CronTab"]
    path = kubectl.write("cr.yaml", CR)
    assert await kubectl("apply", "-f", path) == "crontab.stable.example.com/my created\n"
    assert await kubectl("apply", "-f", path) == "crontab.stable.example.com/my unchanged\n"
    header, row = (await kubectl("get", "ct")).splitlines()
    assert header.split() == ["NAME", "SPEC", "NAMES", "AGE"]
    assert row.split()[:3] == ["my", "daily", "a,b"]
    header, row = (await kubectl("get", "crontabs.v1.stable.example.com", "-o", "wide")).splitlines()
    assert header.split() == ["NAME", "SPEC", "REPLICAS", "NAMES", "AGE"]
    assert "crontab.stable.example.com/my" in await kubectl("get", "all")
    explained = await kubectl("explain", "crontab.spec.cronSpec")
    assert "When it runs." in explained
    assert "cronSpec\t<string> -required-" in await kubectl("explain", "ct.spec")
    kubectl.write("cr.yaml", CR.replace("daily", "weekly").replace(", {name: b}", ""))
    assert await kubectl("apply", "-f", path) == "crontab.stable.example.com/my configured\n"
    assert await kubectl("get", "ct/my", "-o", "jsonpath={.spec.cronSpec} {.spec.list[*].name}") == "weekly a"
    assert await kubectl("scale", "ct/my", "--replicas=3") == "crontab.stable.example.com/my scaled\n"
    assert await kubectl("get", "ct", "--field-selector", "spec.cronSpec=weekly", "-o", "name") == (
        "crontab.stable.example.com/my\n"
    )
    assert "label" in await kubectl("label", "ct", "my", "a=b")
    assert await kubectl("delete", "crd", "crontabs.stable.example.com") == (
        'customresourcedefinition.apiextensions.k8s.io "crontabs.stable.example.com" deleted\n'
    )
    assert "the server doesn't have a resource type" in await kubectl.fails("get", "nothing-like-this")
    assert await kubectl("api-resources", "--api-group=stable.example.com", "--no-headers") == ""


@needs_kubectl(27)
async def test_what_is_refused(kubectl: Kubectl) -> None:
    await defined(kubectl)
    path = kubectl.write("cr.yaml", CR.replace("cronSpec: daily", "replicas: 0, cronSpec: 1"))
    told = await kubectl.fails("apply", "-f", path)
    assert told == (
        'The CronTab "my" is invalid: \n'
        '* spec.cronSpec: Invalid value: "integer": spec.cronSpec in body must be of type string: "integer"\n'
        "* spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1\n"
        '* <nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; '
        "correct the existing errors to complete validation\n"
    )
    kubectl.write("cr.yaml", CR.replace("cronSpec: daily", "cronSpec: daily, replicas: 5"))
    assert await kubectl.fails("apply", "-f", path) == (
        'The CronTab "my" is invalid: spec: Invalid value: "object": five is too many or too few\n'
    )
    kubectl.write("cr.yaml", CR.replace("cronSpec: daily", "cronSpec: daily, unknown: 1"))
    told = await kubectl.fails("create", "-f", path)
    assert (
        'CronTab in version "v1" cannot be handled as a CronTab: strict decoding error: unknown field' in told
    )
    result = await kubectl.run("create", "--validate=warn", "-f", path)
    assert (result.code, result.err) == (0, 'Warning: unknown field "spec.unknown"\n')
    kubectl.write("cr.yaml", CR.replace("{name: b}", "{name: a}"))
    told = await kubectl.fails("apply", "-f", path)
    assert 'spec.list[1]: Duplicate value: map[string]interface {}{"name":"a"}' in told
    told = await kubectl.fails("patch", "ct", "my", "--type=strategic", "-p", '{"spec":{"replicas":2}}')
    assert "application/apply-patch+yaml" in told
    path = kubectl.write(
        "bad.yaml", CRD.replace("type: integer, minimum: 1", "type: number, default: x, minimum: 1")
    )
    assert "spec.validation.openAPIV3Schema" in await kubectl.fails("replace", "-f", path)


@needs_kubectl(27)
async def test_server_side_apply_merges_lists_by_their_keys(kubectl: Kubectl) -> None:
    await defined(kubectl)
    path = kubectl.write("cr.yaml", CR)
    await kubectl("apply", "--server-side", "--field-manager=one", "-f", path)
    other = kubectl.write(
        "other.yaml", CR.replace("cronSpec: daily, list: [{name: a}, {name: b}]", "list: [{name: c}]")
    )
    await kubectl("apply", "--server-side", "--field-manager=two", "-f", other)
    assert await kubectl("get", "ct/my", "-o", "jsonpath={.spec.list[*].name}") == "a b c"
    kubectl.write("cr.yaml", CR.replace(", {name: b}", ""))
    await kubectl("apply", "--server-side", "--field-manager=one", "-f", path)
    assert await kubectl("get", "ct/my", "-o", "jsonpath={.spec.list[*].name}") == "a c"
    conflicting = kubectl.write("third.yaml", CR.replace("daily", "hourly"))
    told = await kubectl.fails("apply", "--server-side", "--field-manager=three", "-f", conflicting)
    assert 'conflict with "one": .spec.cronSpec' in told


@needs_kubectl(27)
async def test_edit_and_dry_run(kubectl: Kubectl) -> None:
    await defined(kubectl)
    path = kubectl.write("cr.yaml", CR)
    told = await kubectl("apply", "--dry-run=server", "-o", "json", "-f", path)
    assert json.loads(told)["spec"]["replicas"] == 1
    assert "not found" in await kubectl.fails("get", "ct", "my")
    await kubectl("create", "-f", path)
    result = await kubectl.run("edit", "ct", "my", EDITOR="sed -i s/daily/yearly/")
    assert result.out == "crontab.stable.example.com/my edited\n", result.err
    assert await kubectl("get", "ct/my", "-o", "jsonpath={.spec.cronSpec}") == "yearly"
