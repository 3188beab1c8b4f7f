"""The table of messages against the kubectl program it was made from: made again, and against the descriptors."""

import gzip
from functools import cache
from pathlib import Path

import orjson
import pytest
from support.protobuf import descriptors

from controlplane.schema import definitions, protobuf_extensions, protobuf_table
from controlplane.schema.definitions import Form
from controlplane.schema.go_binary import GoProgram
from controlplane.schema.protobuf_distill import from_program
from controlplane.schema.protobuf_table import Shape

KUBECTL = Path("/usr/lib/google-cloud-sdk/bin/kubectl.1.32")
needs_kubectl = pytest.mark.skipif(
    not KUBECTL.exists(), reason="needs the kubectl 1.32 the table is made from"
)

SPECIAL = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "Quantity",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "IntOrString",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": "Time",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": "MicroTime",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": "RawJSON",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "RawJSON",
    "k8s.io.apimachinery.pkg.apis.meta.v1.Verbs": "Strings",
    "k8s.io.api.authentication.v1.ExtraValue": "Strings",
    "k8s.io.api.authentication.v1beta1.ExtraValue": "Strings",
    "k8s.io.api.authorization.v1.ExtraValue": "Strings",
    "k8s.io.api.authorization.v1beta1.ExtraValue": "Strings",
    "k8s.io.api.certificates.v1.ExtraValue": "Strings",
    "k8s.io.api.certificates.v1beta1.ExtraValue": "Strings",
}
ODD_NAMES = {
    ("BoundObjectReference", "uID", "uid"),
    ("IngressClassParametersReference", "aPIGroup", "apiGroup"),
    ("MutatingWebhookConfiguration", "Webhooks", "webhooks"),
    ("ValidatingWebhookConfiguration", "Webhooks", "webhooks"),
    ("Validation", "Expression", "expression"),
    ("Variable", "Expression", "expression"),
    ("Variable", "Name", "name"),
}
"""What kubectl 1.32 calls otherwise in protobuf than in JSON: (message, protobuf, JSON)."""


@cache
def program() -> bytes:
    return KUBECTL.read_bytes()


def our_name(described: str) -> str:
    return f"io.k8s.{described.removeprefix('k8s.io.')}"


@needs_kubectl
def test_the_data_file_is_what_the_generator_makes() -> None:
    made = {
        name: {str(number): list(row) for number, row in rows.items()}
        for name, rows in from_program(program()).items()
    }
    assert made == orjson.loads(gzip.decompress(protobuf_table.DATA.read_bytes()))


@needs_kubectl
def test_the_table_agrees_with_the_descriptors() -> None:
    described = {our_name(name): fields for name, fields in descriptors(program()).items()}
    odd = set()
    for name in protobuf_table.names():
        if name in protobuf_extensions.MESSAGES:
            continue
        ours = protobuf_table.message(name)
        theirs = described[name]
        assert ours is not None
        assert set(ours) == set(theirs), name
        for number, field in ours.items():
            their = theirs[number]
            their_type = SPECIAL.get(their.type) or (
                our_name(their.type) if their.type.startswith("k8s.io") else their.type
            )
            assert (field.type, field.shape is Shape.LIST, field.shape is Shape.MAP) == (
                their_type,
                their.repeated,
                their.map,
            ), (name, their)
            if field.json and field.json != their.name:
                odd.add((name.rpartition(".")[2], their.name, field.json))
    assert odd == ODD_NAMES


def test_every_message_has_the_fields_of_its_schema() -> None:
    """The OpenAPI definitions come from another source; what is inlined must fill them completely."""
    compared = 0
    for name in protobuf_table.names():
        if name not in definitions.schemas():
            continue
        schema = definitions.named(name)
        if schema.form is not Form.STRUCT:
            continue
        ours = json_names(name)
        assert ours <= set(schema.fields), name
        assert set(schema.fields) - ours in (set(), {"apiVersion", "kind"}), name
        compared += 1
    assert compared > 500


def json_names(name: str) -> set[str]:
    fields = protobuf_table.message(name)
    assert fields is not None
    found = {field.json for field in fields.values() if field.json}
    for field in fields.values():
        if not field.json:
            found |= json_names(field.type)
    return found


POINTERS = {
    "io.k8s.api.apps.v1.DeploymentSpec": {"replicas", "revisionHistoryLimit", "progressDeadlineSeconds"},
    "io.k8s.api.batch.v1.JobSpec": {
        "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "suspend",
    },
    "io.k8s.api.batch.v1.CronJobSpec": {
        "suspend", "successfulJobsHistoryLimit", "failedJobsHistoryLimit", "startingDeadlineSeconds", "timeZone",
    },
    "io.k8s.api.autoscaling.v1.HorizontalPodAutoscalerSpec": {"minReplicas", "targetCPUUtilizationPercentage"},
    "io.k8s.api.core.v1.PodSpec": {
        "terminationGracePeriodSeconds", "activeDeadlineSeconds", "automountServiceAccountToken",
        "enableServiceLinks", "shareProcessNamespace", "priority",
    },
    "io.k8s.api.core.v1.SecurityContext": {"runAsUser", "privileged", "runAsNonRoot", "allowPrivilegeEscalation"},
    "io.k8s.api.core.v1.ConfigMap": {"immutable"},
    "io.k8s.api.core.v1.Secret": {"immutable"},
    "io.k8s.api.core.v1.ServiceSpec": {"allocateLoadBalancerNodePorts"},
    "io.k8s.api.authentication.v1.TokenRequestSpec": {"expirationSeconds"},
}  # fmt: skip


@pytest.mark.parametrize("name", POINTERS)
def test_pointers(name: str) -> None:
    fields = protobuf_table.message(name)
    assert fields is not None
    assert {field.json for field in fields.values() if field.shape is Shape.POINTER} >= POINTERS[name]


def test_what_is_left_out_when_zero() -> None:
    fields = protobuf_table.message("io.k8s.api.core.v1.ContainerPort")
    assert fields is not None
    assert {field.json: field.shape for field in fields.values()} == {
        "name": Shape.PLAIN,
        "hostPort": Shape.PLAIN,
        "containerPort": Shape.ALWAYS,
        "protocol": Shape.PLAIN,
        "hostIP": Shape.PLAIN,
    }


@pytest.mark.parametrize("program", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(10) + b"\x03\x00"])
def test_only_programs_are_read(program: bytes) -> None:
    with pytest.raises(ValueError, match="not a little-endian 64-bit ELF program"):
        GoProgram(program)
