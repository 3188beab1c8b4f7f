"""The CEL environment of admission: which variables an expression sees, with their types.

Validation compiles here to find faults, the admission plug-ins to evaluate. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.cel import (
    AUTHORIZER,
    BOOL,
    DYN,
    INT,
    NULL,
    RESOURCE_CHECK,
    STRING,
    TIMESTAMP,
    CelCompileError,
    CelType,
    Program,
    compile_expression,
    list_of,
    map_of,
    object_of,
)

BOOLEAN = (BOOL,)
TEXT = (STRING,)
TEXT_OR_NULL = (STRING, NULL)

_KIND = object_of("kubernetes.GroupVersionKind", {"group": STRING, "version": STRING, "kind": STRING})
_RESOURCE = object_of(
    "kubernetes.GroupVersionResource", {"group": STRING, "version": STRING, "resource": STRING}
)
_USER = object_of(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST = object_of(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND, "resource": _RESOURCE, "subResource": STRING, "requestKind": _KIND,
        "requestResource": _RESOURCE, "requestSubResource": STRING, "name": STRING, "namespace": STRING,
        "operation": STRING, "userInfo": _USER, "dryRun": BOOL, "options": DYN,
    },
)  # fmt: skip
NAMESPACE = object_of(
    "kubernetes.Namespace",
    {
        "metadata": object_of(
            "kubernetes.NamespaceMetadata",
            {
                "name": STRING, "generateName": STRING, "namespace": STRING, "labels": map_of(STRING, STRING),
                "annotations": map_of(STRING, STRING), "UID": STRING, "creationTimestamp": TIMESTAMP,
                "deletionGracePeriodSeconds": INT, "deletionTimestamp": TIMESTAMP, "generation": INT,
                "resourceVersion": STRING, "finalizers": list_of(STRING),
            },
        ),
        "spec": object_of("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}),
        "status": object_of("kubernetes.NamespaceStatus", {"phase": STRING}),
    },
)  # fmt: skip
_BASE: Mapping[str, CelType] = {
    "object": DYN,
    "oldObject": DYN,
    "request": REQUEST,
    "namespaceObject": NAMESPACE,
}
_AUTHORIZER: Mapping[str, CelType] = {
    "authorizer": AUTHORIZER,
    "authorizer.requestResource": RESOURCE_CHECK,
}


class Compiler:
    """Compiles the expressions of one webhook or policy, whose `variables` it learns on the way.

    `typed` gives object and oldObject, and perhaps params, another type than "anything", for type checking.
    """

    def __init__(self, *, params: bool = False, typed: Mapping[str, CelType] | None = None) -> None:
        self._base = {**_BASE, **({"params": DYN} if params else {}), **(typed or {})}
        self._variables: dict[str, CelType] | None = None

    def declare(self, name: str, kind: CelType) -> None:
        """From now on expressions may use `variables.NAME`."""
        self._variables = {**(self._variables or {}), name: kind}

    def compose(self) -> None:
        """There are variables, even if all of them are bad."""
        self._variables = self._variables or {}

    def compile(
        self, text: str, results: Iterable[CelType] | None = BOOLEAN, *, authorizer: bool = True
    ) -> Program:
        """Raises CelCompileError."""
        variables = {**self._base, **(_AUTHORIZER if authorizer else {})}
        if self._variables is not None:
            variables["variables"] = object_of("kubernetes.variables", self._variables)
        return compile_expression(text, variables, results)


def compile_conditions(
    conditions: Sequence[Mapping[str, Any]], compiler: Compiler
) -> list[tuple[str, Program]]:
    """Names and programs of matchConditions. Raises CelCompileError."""
    return [(item["name"], compiler.compile(item["expression"].strip())) for item in conditions]


def compile_error(text: str, compiler: Compiler, results: Iterable[CelType] | None = BOOLEAN) -> str:
    """What is wrong with an expression, empty when nothing is."""
    try:
        compiler.compile(text, results)
    except CelCompileError as fault:
        return str(fault)
    return ""
