"""Rules for the environment of a container: variables, their sources, and references to fields. Pure."""

from __future__ import annotations

import re

from controlplane.meta.names import config_map_key, qualified_name
from controlplane.resources.fieldpath import not_supported
from controlplane.resources.rules import Field

# Relaxed since v1.32 (RelaxedEnvironmentVariableValidation).
_NAME = re.compile("[ -<>-~]+").fullmatch
_NAME_MESSAGE = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)

_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
_PLURAL = "may not have more than one field specified at a time"

ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
VOLUME_FIELDS = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
)  # fmt: skip
_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_SUBSCRIPTED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]").fullmatch


def variable_name(text: str) -> list[str]:
    return [] if _NAME(text) else [_NAME_MESSAGE]


def validate_environment(container: Field) -> None:
    for variable in container["env"]:
        variable["name"].required().check(variable_name)
        if variable["valueFrom"].value is not None:
            _value_from(variable)
    for source in container["envFrom"]:
        _all_from(source)


def _value_from(variable: Field) -> None:
    source = variable["valueFrom"]
    given = [name for name in _SOURCES if source[name].value is not None]
    if source["fieldRef"].value is not None:
        validate_field_ref(source["fieldRef"], ENV_FIELDS)
    if source["resourceFieldRef"].value is not None:
        validate_resource_field_ref(source["resourceFieldRef"], volume=False)
    for name in ("configMapKeyRef", "secretKeyRef"):
        if source[name].value is not None:
            source[name]["name"].required().dns_subdomain()
            source[name]["key"].required().check(config_map_key)
    blank = source.of("")
    if not given:
        blank.invalid(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        )
    elif variable["value"].present:
        blank.invalid("may not be specified when `value` is not empty")
    elif len(given) > 1:
        blank.invalid(_PLURAL)


def _all_from(source: Field) -> None:
    source["prefix"].check(variable_name)
    given = [name for name in ("configMapRef", "secretRef") if source[name].value is not None]
    for name in given:
        source[name]["name"].required().dns_subdomain()
    if not given:
        source.of("").invalid("must specify one of: `configMapRef` or `secretRef`")
    elif len(given) > 1:
        source.of("").invalid(_PLURAL)


def validate_field_ref(reference: Field, allowed: tuple[str, ...]) -> None:
    """A field of the pod itself; `allowed` are the paths without a subscript."""
    reference["apiVersion"].required()
    path = reference["fieldPath"].required()
    if not path.present:
        return
    subscripted = _SUBSCRIPTED(path.text)
    if subscripted:
        for message in _subscript_errors(subscripted[1], subscripted[2]):
            path.of(subscripted[2]).invalid(message)
    elif path.text not in ENV_FIELDS + VOLUME_FIELDS:
        path.invalid(f"error converting fieldPath: field label not supported: {path.text}")
    elif path.text not in allowed:
        path.fail(not_supported(path.path, path.text, allowed))


def _subscript_errors(kind: str, key: str) -> list[str]:
    return qualified_name(key.lower() if kind == "annotations" else key)


def validate_resource_field_ref(reference: Field, *, volume: bool) -> None:
    """A container's limit or request; a volume has to name the container."""
    if volume:
        reference["containerName"].required()
    resource = reference["resource"].required()
    if resource.present and ".hugepages-" not in resource.text:
        resource.one_of(*_RESOURCES)
    reference["divisor"].quantity()
