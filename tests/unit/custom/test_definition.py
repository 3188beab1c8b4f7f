"""What a CustomResourceDefinition must be, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest
from support.custom import SPEC, definition, schema, version

from controlplane.resources.catalog import CUSTOM_RESOURCE_DEFINITION

PROPERTIES = "spec.validation.openAPIV3Schema.properties[spec]"


def with_spec(spec: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"versions": [version(schema=schema(spec))]}}


def with_rule(rule: str) -> dict[str, Any]:
    return with_spec({**SPEC, "x-kubernetes-validations": [{"rule": rule}]})


def with_version(**rest: Any) -> dict[str, Any]:
    return {"spec": {"versions": [version(**rest)]}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metadata": {"name": "wrong.example.com"}},
         'metadata.name: Invalid value: "wrong.example.com": must be spec.names.plural+"."+spec.group'),
        ({"spec": {"scope": "Everywhere"}},
         'spec.scope: Unsupported value: "Everywhere": supported values: "Cluster", "Namespaced"'),
        (with_version(storage=False), "must have exactly one version marked as storage version"),
        ({"spec": {"versions": [{**version(), "schema": {}}]}},
         "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        (with_spec({"properties": {"a": {"type": "string"}}}),
         f"{PROPERTIES}.type: Required value: must not be empty for specified object fields"),
        (with_version(schema={"type": "object", "anyOf": [{"properties": {"x": {}}}]}),
         "spec.validation.openAPIV3Schema.properties[x]: Required value: because it is defined in "
         "spec.validation.openAPIV3Schema.anyOf[0].properties[x]"),
        (with_spec({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}),
         f'{PROPERTIES}.properties[n].default: Invalid value: "string": {PROPERTIES}.properties[n].default in body '
         'must be of type integer: "string"'),
        (with_spec({"type": "object", "properties": {"n": {"type": "object", "default": {"x": 1}}}}),
         "must not have unknown fields"),
        (with_spec({"type": "string", "pattern": "("}), "must be a valid regular expression, but isn't: "),
        (with_version(additionalPrinterColumns=[{"name": "a", "type": "text", "jsonPath": "spec"}]),
         'spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of '
         "boolean,date,integer,number,string"),
        ({"spec": {"conversion": {"strategy": "Webhook"}}},
         "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        (with_rule("self.x > 1"), "undefined field 'x'"),
        (with_rule("self.size"), "cel expression must evaluate to a bool"),
        (with_spec({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [
            {"rule": "self == oldSelf"}]}}),
         "oldSelf cannot be used on the uncorrelatable portion of the schema within"),
        (with_spec({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
                    "x-kubernetes-validations": [{"rule": "self.all(x, x.all(y, y.contains('a')))"}]}),
         "estimated rule cost exceeds budget by factor of more than 100x"),
        (with_version(selectableFields=[{"jsonPath": ".spec.nothing"}]),
         'spec.selectableFields[0].jsonPath: Invalid value: ".spec.nothing": is an invalid path'),
    ],
)  # fmt: skip
def test_bad_definitions(change: dict[str, Any], expected: str) -> None:
    wanted = definition()
    for part, values in change.items():
        wanted[part] = {**wanted[part], **values}
    CUSTOM_RESOURCE_DEFINITION.default(wanted)
    CUSTOM_RESOURCE_DEFINITION.prepare_create(wanted)
    causes = [f"{cause.field}: {cause.message}" for cause in CUSTOM_RESOURCE_DEFINITION.validate(wanted)]
    assert any(expected in each for each in causes), causes


def test_a_good_definition() -> None:
    wanted = definition()
    CUSTOM_RESOURCE_DEFINITION.default(wanted)
    CUSTOM_RESOURCE_DEFINITION.prepare_create(wanted)
    assert CUSTOM_RESOURCE_DEFINITION.validate(wanted) == []
    assert wanted["spec"]["names"] == {
        "plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList",
    }  # fmt: skip
    assert wanted["status"]["storedVersions"] == ["v1"]
