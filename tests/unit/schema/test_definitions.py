"""Types, merge keys and list types of the built-in kinds, and that the data file is what its generator makes."""

import orjson
import pytest

from controlplane.schema import definitions, distill
from controlplane.schema.definitions import Form, type_for


def test_unknown_kinds_have_no_type():
    assert type_for("v1", "Nothing") is None
    assert type_for("apps/v1", "Pod") is None


def test_fields_of_a_service():
    service = type_for("v1", "Service")
    assert service.form is Form.STRUCT
    assert service.go_type == "v1.Service"
    spec = service.fields["spec"].type
    assert spec.struct_name == "ServiceSpec"
    ports = spec.fields["ports"]
    assert (ports.type.form, ports.type.go_type) == (Form.LIST, "[]v1.ServicePort")
    assert (ports.list_type, ports.list_map_keys) == ("map", ("port", "protocol"))
    assert ports.merge.merge
    assert ports.merge.key == "port"
    assert ports.type.element.fields["port"].required
    assert not ports.type.element.fields["name"].required
    assert ports.type.element.fields["targetPort"].type.form is Form.INT_OR_STRING
    assert spec.fields["selector"].type.go_type == "map[string]string"
    assert spec.fields["selector"].map_type == "atomic"


@pytest.mark.parametrize(
    ("kind", "path", "form"),
    [
        ("Pod", "metadata.creationTimestamp", Form.TIME),
        ("Pod", "metadata.managedFields.fieldsV1", Form.RAW),
        ("Pod", "spec.terminationGracePeriodSeconds", Form.INT64),
        ("Pod", "spec.containers.resources.limits", Form.MAP),
        ("Secret", "data", Form.MAP),
        ("Event", "eventTime", Form.MICRO_TIME),
    ],
)
def test_forms(kind, path, form):
    found = type_for("v1", kind)
    for name in path.split("."):
        found = (found.element if found.form is Form.LIST else found).fields[name].type
    assert found.form is form


@pytest.mark.parametrize(
    ("api_version", "kind", "path", "key"),
    [
        ("v1", "Pod", "spec.containers", "name"),
        ("v1", "Pod", "spec.containers.ports", "containerPort"),
        ("v1", "Pod", "spec.containers.env", "name"),
        ("v1", "Pod", "spec.containers.volumeMounts", "mountPath"),
        ("v1", "Pod", "spec.hostAliases", "ip"),
        ("v1", "Pod", "spec.topologySpreadConstraints", "topologyKey"),
        ("v1", "Pod", "metadata.ownerReferences", "uid"),
        ("v1", "Node", "status.conditions", "type"),
        ("apps/v1", "Deployment", "spec.template.spec.volumes", "name"),
    ],
)
def test_merge_keys(api_version, kind, path, key):
    schema = type_for(api_version, kind)
    *parents, last = path.split(".")
    for name in parents:
        schema = schema.merge_rule(name).schema
    assert schema.merge_rule(last).merge
    assert schema.merge_rule(last).key == key


def test_lists_of_plain_values_and_atomic_lists():
    pod = type_for("v1", "Pod")
    finalizers = pod.merge_rule("metadata").schema.merge_rule("finalizers")
    assert (finalizers.merge, finalizers.key, finalizers.schema) == (True, "", None)
    assert not pod.merge_rule("spec").schema.merge_rule("tolerations").merge
    assert not pod.merge_rule("nothing").merge


def test_types_that_contain_themselves():
    schema = type_for("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    properties = definitions.named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert properties.fields["properties"].type.element is properties
    assert properties.fields["$ref"].type.form is Form.STRING
    assert schema.fields["spec"].type.form is Form.STRUCT


def test_every_type_compiles():
    seen = set()
    pending = [definitions.named(name) for name in definitions.schemas()]
    while pending:
        found = pending.pop()
        if found not in seen:
            seen.add(found)
            pending += [field.type for field in found.fields.values()]
            pending += [found.element] if found.element else []
            assert (found.form in (Form.LIST, Form.MAP)) is (found.element is not None)
    assert len(definitions.schemas()) == 638


def test_distilled_schemas_say_what_openapi_v3_can():
    source = {
        "a.b.v1.Thing": {
            "type": ["object", "null"],
            "description": "A thing.",
            "properties": {
                "kind": {"type": ["string", "null"], "enum": ["Thing"]},
                "$ref": {"type": "string"},
                "part": {"$ref": "#/$defs/a.b.v1.Part", "description": "One."},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/a.b.v1.Part"}},
                "map": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
            },
        }
    }
    reference = {"$ref": "#/components/schemas/a.b.v1.Part"}
    assert distill.distill(source)["a.b.v1.Thing"] == {
        "type": "object",
        "description": "A thing.",
        "properties": {
            "kind": {"type": "string"},
            "$ref": {"type": "string"},
            "part": {"allOf": [reference], "description": "One."},
            "parts": {"type": "array", "items": reference},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
    }
    with pytest.raises(ValueError, match="which OpenAPI v3 cannot say"):
        distill.distill({"a": {"type": ["string", "integer"]}})


def test_the_data_file_is_what_the_generator_makes():
    validate = pytest.importorskip("kubernetes_validate", reason="development dependency")
    folder = next(iter(validate.__path__)) + f"/kubernetes-json-schema/{definitions.version()}-local"
    with open(f"{folder}/_definitions.json", "rb") as file:
        source = orjson.loads(file.read())["$defs"]
    assert distill.distill(source) == definitions.schemas()
